/**
 * The viewpoint: the original camera, an orbit around the head, and a zoom and shift of the image.
 * Zoom and shift move the background plate along, so that it stays aligned; orbiting fades it out.
 */

const MAX_AZIMUTH = Math.PI, MAX_ELEVATION = 1.3;
const MIN_ZOOM = 1, MAX_ZOOM = 12; // further out, the cut edge of the shoulders would show
/** The plate is whole below the first angle and gone above the second, radians. */
const PLATE_FADE = [0.035, 0.21];

class ViewCamera {
  constructor(camera) {
    this.width = camera.width;
    this.height = camera.height;
    this.K = camera.K;
    this.rest = rigidFromRows(camera.T_camera_rest);
    this.plate = true;
    this.plain = [0.5, 0.5, 0.5, 1]; // red, green, blue, alpha
    this.reset();
  }

  reset() {
    this.azimuth = 0;
    this.elevation = 0;
    this.zoom = 1;
    this.shift = [0, 0]; // original pixels
  }

  orbit(azimuth, elevation) {
    this.azimuth = clamp(azimuth, -MAX_AZIMUTH, MAX_AZIMUTH);
    this.elevation = clamp(elevation, -MAX_ELEVATION, MAX_ELEVATION);
  }

  /** Change the zoom; the point (u, v), in fractions of the picture, stays where it is. */
  zoomBy(factor, u = 0.5, v = 0.5) {
    const zoom = clamp(this.zoom * factor, MIN_ZOOM, MAX_ZOOM);
    const change = zoom / this.zoom;
    const anchor = [(u - 0.5) * this.width, (v - 0.5) * this.height];
    this.shift = this.shift.map((s, i) => anchor[i] + (s - anchor[i]) * change);
    this.zoom = zoom;
  }

  /** What `Splats.draw` wants, for a face and an output size in pixels. */
  view(face, width, height) {
    const origin = [this.rest[3], this.rest[7], this.rest[11]];
    const turn = rotationAbout(
      multiply3(rotationX(this.elevation), rotationY(this.azimuth)), origin);
    const base = compose(turn, this.rest);
    // Original pixel p lands on scale * p + offset.
    const scale = [this.zoom * width / this.width, this.zoom * height / this.height];
    const offset = [width, height].map((size, i) =>
      size / 2 + (this.shift[i] * scale[i]) / this.zoom - (scale[i] * [this.width, this.height][i]) / 2);
    const [[fx, , cx], [, fy, cy]] = this.K;
    const away = Math.hypot(this.azimuth, this.elevation);
    const fade = 1 - smooth((away - PLATE_FADE[0]) / (PLATE_FADE[1] - PLATE_FADE[0]));
    return {
      head: compose(base, face.head),
      torso: compose(base, face.torso),
      camera: [fx * scale[0], fy * scale[1], cx * scale[0] + offset[0], cy * scale[1] + offset[1]],
      size: [width, height],
      plateMap: [
        1 / (scale[0] * this.width), 1 / (scale[1] * this.height),
        -offset[0] / (scale[0] * this.width), -offset[1] / (scale[1] * this.height),
      ],
      plateWeight: this.plate ? fade : 0,
      plain: this.plain,
    };
  }
}

function clamp(value, low, high) {
  return Math.max(low, Math.min(high, value));
}
