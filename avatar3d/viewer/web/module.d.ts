/** An avatar in a web page. Angles in radians, times in seconds. Serve the folder over http. */

/**
 * Show the avatar of a folder that `avatar3d export AVATAR --format web` wrote.
 * @param folder its address, relative to the page.
 * @param element what the picture fits into; give it a size.
 * @throws ViewerError what to tell the person: no WebGL2, another version, a damaged file.
 */
export function load(folder: string, element: HTMLElement): Promise<Avatar>;

export class ViewerError extends Error {}

export interface Avatar {
  /** Set one expression or several; null lets go of it, so that motions move it again. */
  setExpression(name: Expression, weight: number | null): void;
  setExpression(weights: Partial<Record<Expression, number | null>>): void;
  /** To the person's left, up, and the crown to the person's left. */
  setPose(angles: { yaw?: number | null; pitch?: number | null; roll?: number | null }): void;
  setGaze(angles: { yaw?: number | null; pitch?: number | null }): void;
  /** Blinks, glances and a slow sway while nothing else moves the head; on at first. */
  setIdle(on: boolean): void;
  /** background: true the recorded one, false its mean colour, "transparent" or "#rrggbb". */
  setView(view: {
    azimuth?: number; elevation?: number; zoom?: number; background?: boolean | string;
  }): void;
  resetView(): void;
  /** The motion at hand: at first the one in the folder, then that of playMotion or speak. */
  play(): void;
  pause(): void;
  seek(seconds: number): void;
  /** Play a motion, e.g. what `avatar3d motion convert take.npz -o take.json` wrote. */
  playMotion(motion: MotionData, sound?: Blob | ArrayBuffer | string | null): Promise<void>;
  /** Say a sound file; a string is its address. */
  speak(sound: Blob | ArrayBuffer | string): Promise<void>;
  /** Move the mouth with the microphone. */
  listen(on: boolean): Promise<void>;
  /** Film the picture with what is heard. */
  record(): void;
  stopRecording(): Promise<Blob | null>;
  /** Rest pose, original view, nothing playing. */
  reset(): void;
  /** RGBA with straight alpha, top row first. */
  snapshot(width?: number, height?: number):
    { width: number; height: number; data: Uint8ClampedArray };
  /** As PNG. */
  picture(width?: number, height?: number): Promise<Blob>;
  /** Centres of the Gaussians: N x 3, metres, camera frame. */
  gaussians(): Float32Array;
  statistics(): { gaussians: number; frames: number; sorting: number };
  /** Remove the picture for good. */
  destroy(): void;
}
