/**
 * Small matrices. A rigid transform is a Float64Array of 12: three rows of (rotation | translation).
 * Conventions as in avatar3d/geometry: metres, radians, OpenCV camera axes, head frame with x to the
 * person's left, y up and z out of the face.
 */

const IDENTITY = Float64Array.of(1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0);

/** Rigid transform of nested rows, (3 or 4) x 4. */
function rigidFromRows(rows) {
  return Float64Array.from(rows.slice(0, 3).flat());
}

/** The transform that applies `b` first, then `a`. */
function compose(a, b) {
  const out = new Float64Array(12);
  for (let row = 0; row < 3; row++) {
    for (let column = 0; column < 4; column++) {
      let sum = column === 3 ? a[4 * row + 3] : 0;
      for (let k = 0; k < 3; k++) sum += a[4 * row + k] * b[4 * k + column];
      out[4 * row + column] = sum;
    }
  }
  return out;
}

/** Rigid transform from a rotation of nine numbers, row major, about the point `center`. */
function rotationAbout(r, center = [0, 0, 0]) {
  const [x, y, z] = center;
  const out = new Float64Array(12);
  for (let row = 0; row < 3; row++) {
    const [a, b, c] = [r[3 * row], r[3 * row + 1], r[3 * row + 2]];
    out.set([a, b, c, center[row] - (a * x + b * y + c * z)], 4 * row);
  }
  return out;
}

function multiply3(a, b) {
  const out = new Float64Array(9);
  for (let row = 0; row < 3; row++) {
    for (let column = 0; column < 3; column++) {
      for (let k = 0; k < 3; k++) out[3 * row + column] += a[3 * row + k] * b[3 * k + column];
    }
  }
  return out;
}

function rotationX(angle) {
  const c = Math.cos(angle), s = Math.sin(angle);
  return [1, 0, 0, 0, c, -s, 0, s, c];
}

function rotationY(angle) {
  const c = Math.cos(angle), s = Math.sin(angle);
  return [c, 0, s, 0, 1, 0, -s, 0, c];
}

function rotationZ(angle) {
  const c = Math.cos(angle), s = Math.sin(angle);
  return [c, -s, 0, s, c, 0, 0, 0, 1];
}

/**
 * Head rotation: positive yaw turns the face to the person's left, positive pitch raises it,
 * positive roll tilts the crown to the person's left.
 */
function yawPitchRoll(yaw, pitch, roll) {
  return multiply3(multiply3(rotationY(yaw), rotationX(-pitch)), rotationZ(-roll));
}

/** Eyeball rotation: yaw to the person's left, then pitch up. */
function eyeRotation(yaw, pitch) {
  return multiply3(rotationY(yaw), rotationX(-pitch));
}

/** Rodrigues: rigid transform from (rotation vector, translation), six numbers. */
function rigidFromVector(v) {
  const [x, y, z, tx, ty, tz] = v;
  const angle = Math.hypot(x, y, z);
  const a = angle < 1e-6 ? 1 : Math.sin(angle) / angle;
  const b = angle < 1e-6 ? 0.5 : (1 - Math.cos(angle)) / (angle * angle);
  const diagonal = 1 - b * angle * angle;
  return Float64Array.of(
    diagonal + b * x * x, b * x * y - a * z, b * x * z + a * y, tx,
    b * x * y + a * z, diagonal + b * y * y, b * y * z - a * x, ty,
    b * x * z - a * y, b * y * z + a * x, diagonal + b * z * z, tz,
  );
}

/** Inverse of `rigidFromVector` for angles below pi. */
function vectorFromRigid(m) {
  const sine = [m[9] - m[6], m[2] - m[8], m[4] - m[1]];
  const norm = Math.hypot(...sine) / 2;
  const angle = Math.atan2(norm, (m[0] + m[5] + m[10] - 1) / 2);
  const factor = norm < 1e-9 ? 0.5 : angle / (2 * norm);
  return [factor * sine[0], factor * sine[1], factor * sine[2], m[3], m[7], m[11]];
}

/** The (yaw, pitch, roll) that `yawPitchRoll` turns into the rotation of `m`. */
function anglesFromRigid(m) {
  const pitch = Math.asin(Math.max(-1, Math.min(1, m[6])));
  return [Math.atan2(m[2], m[10]), pitch, -Math.atan2(m[4], m[5])];
}
