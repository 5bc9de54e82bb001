/** What the scripts hand to each other; the scripts share one scope. */

/** What avatar3d/export/payload.py stored, flat and row major; quantised arrays are floats again. */
type Arrays = Record<string, any>;

interface Header {
  format: string;
  version: number;
  name: string;
  notice: string;
  expression_names: string[];
  /** Mean colour of the background, red, green, blue in [0, 1]. */
  plain: number[];
  limit: number;
  camera: { width: number; height: number; K: number[][]; T_camera_rest: number[][] };
  motion: { fps: number; frames: number } | null;
  arrays: Record<string, { dtype: string; shape: number[]; start: number; scale?: number[]; zero?: number[] }>;
  files?: { plate: string | null; sound: string | null };
}

interface Content {
  header: Header;
  arrays: Arrays;
  plate: ImageBitmap | null;
  sound: Blob | null;
}

/** A motion as the performer plays it; rigid transforms are rotation vector and translation. */
interface Track {
  fps: number;
  frames: number;
  /** Of a row of `weights`. */
  width: number;
  weights: Float32Array;
  head: Float32Array | null;
  torso: Float32Array | null;
  gaze: Float32Array | null;
}

interface MotionData {
  format?: string;
  version?: number;
  fps: number;
  expression?: number[][];
  head_pose?: number[][][];
  torso_pose?: number[][][];
  gaze?: number[][][];
}

interface View {
  /** Rigid transforms to the view. */
  head: Float64Array;
  torso: Float64Array;
  /** fx, fy, cx, cy in pixels. */
  camera: number[];
  size: number[];
  /** Plate coordinates in [0, 1] = pixel * (a, b) + (c, d). */
  plateMap: number[];
  plateWeight: number;
  /** Straight RGBA behind the plate. */
  plain: number[];
}
