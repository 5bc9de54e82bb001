/**
 * What the head does at a moment: the embedded motion, idling, and what the person at the controls
 * has set, which wins over both.
 */

const POSE_AXES = ["yaw", "pitch", "roll"];
const GAZE_AXES = ["yaw", "pitch"];
const FADE_SECONDS = 0.25;
const MOTION_FORMAT = "avatar3d.motion", MOTION_VERSION = 1;

class Performer {
  /** @param {Header} header @param {Arrays} arrays of `loadPayload`. */
  constructor(header, arrays) {
    this.names = header.expression_names;
    this.arrays = arrays;
    this.rowCount = arrays.expression_scale.length;
    /** @type {Track | null} */
    this.motion = header.motion && {
      ...header.motion, width: this.rowCount, weights: arrays.motion_weights,
      head: arrays.motion_head, torso: arrays.motion_torso, gaze: arrays.motion_gaze,
    };
    /** @type {Float32Array | null} */
    this.mouth = null; // 52 weights of a live voice
    this.time = 0; // seconds into the motion
    this.playing = false;
    this.engaged = false; // the motion shows, playing or paused; else the head is at rest
    this.idling = false;
    this.strength = 0; // of the motion, eased towards 1 while engaged and 0 otherwise
    this.idle = new Idle();
    this.reset();
  }

  get duration() {
    return this.motion ? this.motion.frames / this.motion.fps : 0;
  }

  /** Forget everything set by hand. */
  reset() {
    this.expression = new Map(); // row to weight
    this.pose = {}; // yaw, pitch, roll in radians where set
    this.gaze = {}; // yaw, pitch of both eyes in radians where set
  }

  /** Set, or with null release, an expression by its ARKit name. */
  setExpression(name, value) {
    const row = this.names.indexOf(name);
    if (row < 0) throw new RangeError(`There is no expression named ${name}.`);
    if (value === null) this.expression.delete(row);
    else this.expression.set(row, finite(value));
  }

  /** Set, or with null release, some of {yaw, pitch, roll} in radians. */
  setPose(angles) {
    assign(this.pose, POSE_AXES, angles);
  }

  /** Set, or with null release, {yaw, pitch} of both eyes in radians. */
  setGaze(angles) {
    assign(this.gaze, GAZE_AXES, angles);
  }

  /** Have another motion at hand, at its beginning. @param {Track | null} motion */
  setMotion(motion) {
    this.motion = motion;
    this.time = this.strength = 0;
    this.playing = this.engaged = false;
  }

  /** Let `seconds` pass. @returns {boolean} whether anything moves by itself. */
  advance(seconds) {
    const target = this.engaged ? 1 : 0;
    const step = seconds / FADE_SECONDS;
    const moving = this.playing || this.idling || this.mouth !== null || this.strength !== target;
    this.strength += Math.max(-step, Math.min(step, target - this.strength));
    if (this.idling) this.idle.advance(seconds);
    return moving;
  }

  /**
   * The face now.
   * @returns {{weights: Float32Array, gaze: number[], head: Float64Array, torso: Float64Array,
   *   angles: number[]}} head and torso are rigid transforms from the rest pose, in the head frame;
   *   gaze is left yaw, pitch, right yaw, pitch; angles are the head's yaw, pitch, roll.
   */
  face() {
    const weights = new Float32Array(this.rowCount);
    let gaze = [0, 0, 0, 0];
    let head = [0, 0, 0, 0, 0, 0], torso = null;
    let alive = 0; // how much the motion moves more than the mouth
    if (this.motion && this.strength > 0) {
      const { fps, frames, width, weights: shown, gaze: look, head: turn, torso: body } = this.motion;
      const position = Math.min(this.time * fps, frames - 1);
      const at = (track, size) => sample(track, size, position).map((v) => v * this.strength);
      weights.set(at(shown, width));
      if (look) gaze = at(look, 4);
      if (turn) head = at(turn, 6);
      if (body) torso = at(body, 6);
      if (turn) alive = this.strength;
    }
    if (this.mouth) this.mouth.forEach((value, row) => { weights[row] = Math.max(weights[row], value); });
    if (this.idling) {
      const rest = 1 - alive; // a whole motion has its own blinks and sway
      for (const name of ["eyeBlinkLeft", "eyeBlinkRight"]) {
        const row = this.names.indexOf(name);
        weights[row] = Math.max(weights[row], rest * this.idle.blink);
      }
      this.idle.gaze.forEach((value, i) => { gaze[i] += rest * value; gaze[i + 2] += rest * value; });
      this.idle.head.forEach((value, i) => { head[i] += rest * value; });
    }
    for (const [row, value] of this.expression) weights[row] = value;
    GAZE_AXES.forEach((axis, i) => {
      if (axis in this.gaze) gaze[i] = gaze[i + 2] = this.gaze[axis];
    });
    return { weights, gaze, ...this.#place(head, torso) };
  }

  /** Angles set by hand replace those of the motion; the shoulders then follow by prediction. */
  #place(head, torso) {
    let transform = rigidFromVector(head);
    const angles = anglesFromRigid(transform);
    const held = POSE_AXES.filter((axis) => axis in this.pose);
    for (const axis of held) angles[POSE_AXES.indexOf(axis)] = this.pose[axis];
    if (held.length) {
      const turned = rotationAbout(yawPitchRoll(...angles));
      turned.set([head[3]], 3);
      turned.set([head[4]], 7);
      turned.set([head[5]], 11);
      transform = turned;
    }
    if (held.length || !torso) torso = this.#predictTorso(vectorFromRigid(transform));
    return { head: transform, torso: rigidFromVector(torso), angles };
  }

  /** avatar3d.avatar.torso.predict_torso for a head that has been still for half a second. */
  #predictTorso(head) {
    const { torso_map, torso_limit } = this.arrays; // (12, 6): now, then the average around now
    return head.map((_, column) => {
      const moved = head.reduce((sum, value, row) =>
        sum + value * (torso_map[6 * row + column] + torso_map[6 * (row + 6) + column]), 0);
      return Math.min(Math.max(moved, -torso_limit[column]), torso_limit[column]);
    });
  }
}

/**
 * A motion as avatar3d.motion.Motion has it, with nested lists for arrays: expression (T, 52),
 * head_pose and torso_pose (T, 4, 4), gaze (T, 2, 2); all but fps and one track may be missing.
 * @param {MotionData} data
 * @returns {Track}
 */
function trackFromMotion(data) {
  const { format, version, fps, expression, head_pose, torso_pose, gaze } = data;
  if (format !== undefined && (format !== MOTION_FORMAT || version !== MOTION_VERSION)) {
    throw new RangeError("This motion is of another version than this viewer; export it again.");
  }
  const frames = (expression ?? head_pose ?? gaze)?.length;
  if (!(fps > 0) || !frames) throw new RangeError("A motion needs fps and a track with frames.");
  const flat = (name, track, size) => {
    if (!track) return null;
    const values = Float32Array.from(track.flat(2));
    if (values.length !== frames * size || !values.every(Number.isFinite)) {
      throw new RangeError(`The track ${name} is not ${frames} frames of ${size} numbers.`);
    }
    return values;
  };
  const rigid = (name, track) => {
    const all = flat(name, track, 16);
    return all && Float32Array.from({ length: 6 * frames }, (_, i) =>
      vectorFromRigid(all.subarray(16 * Math.floor(i / 6), 16 * Math.floor(i / 6) + 12))[i % 6]);
  };
  return {
    fps, frames, width: 52,
    weights: flat("expression", expression, 52) ?? new Float32Array(52 * frames),
    head: rigid("head_pose", head_pose), torso: rigid("torso_pose", torso_pose),
    gaze: flat("gaze", gaze, 4),
  };
}

/** Blinks, small glances and a slow sway, so that the head looks alive while nothing plays. */
class Idle {
  constructor() {
    this.time = 0;
    this.nextBlink = 1.5;
    this.nextGlance = 1;
    this.blink = 0;
    this.gaze = [0, 0];
    this.target = [0, 0];
    this.head = [0, 0, 0, 0, 0, 0];
  }

  advance(seconds) {
    this.time += seconds;
    const sinceBlink = this.time - this.nextBlink;
    if (sinceBlink > 0.3) this.nextBlink = this.time + 2 + 4 * Math.random();
    // 80 ms down, a short hold, 150 ms up.
    this.blink = sinceBlink < 0 ? 0 : smooth(sinceBlink / 0.08) * (1 - smooth((sinceBlink - 0.13) / 0.15));
    if (this.time > this.nextGlance) {
      this.nextGlance = this.time + 0.6 + 2 * Math.random();
      this.target = [0.06 * (Math.random() - 0.5), 0.04 * (Math.random() - 0.5)];
    }
    const pull = 1 - Math.exp(-seconds / 0.03);
    this.gaze = this.gaze.map((value, i) => value + pull * (this.target[i] - value));
    const sway = (period, phase) => Math.sin((2 * Math.PI * this.time) / period + phase);
    this.head = [
      0.008 * sway(7, 0), 0.012 * sway(11, 1), 0.005 * sway(9, 2), 0, 0.0004 * sway(4.2, 0), 0,
    ];
  }
}

function smooth(t) {
  const x = Math.max(0, Math.min(1, t));
  return x * x * (3 - 2 * x);
}

/** Row of a (T, width) track at a fractional position. */
function sample(track, width, position) {
  const low = Math.floor(position), last = track.length / width - 1;
  const high = Math.min(low + 1, last), mix = position - low;
  return Array.from({ length: width }, (_, i) =>
    track[low * width + i] * (1 - mix) + track[high * width + i] * mix);
}

function assign(target, axes, values) {
  for (const [axis, value] of Object.entries(values)) {
    if (!axes.includes(axis)) throw new RangeError(`There is no angle named ${axis}.`);
    if (value === null) delete target[axis];
    else target[axis] = finite(value);
  }
}

function finite(value) {
  const number = Number(value);
  if (!Number.isFinite(number)) throw new RangeError(`${value} is not a number.`);
  return number;
}
