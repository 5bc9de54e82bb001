/**
 * What moves the head: expression weights, gaze and the weights of the blendshapes. These few
 * numbers are all that goes to the graphics chip in a frame; `Deformer` makes Gaussians of them.
 */

class Head {
  /**
   * @param {Arrays} arrays of `loadPayload`.
   * @param {number} limit of the blendshape weights.
   */
  constructor(arrays, limit) {
    this.arrays = arrays;
    this.limit = limit;
    this.vertexCount = arrays.vertices.length / 3;
    this.rowCount = arrays.expression_scale.length;
    this.count = arrays.position.length / 3;
    this.basisCount = arrays.basis_scale.length / 3;
    this.basisSize = arrays.bias.length;
    /** Expression weights times the step in which the displacements of their row are stored. */
    this.steps = new Float32Array(4 * Math.ceil(this.rowCount / 4));
    this.basisWeights = new Float32Array(4 * Math.max(1, Math.ceil(this.basisSize / 4)));
    /** Rotations of the left and the right eyeball, as columns. */
    this.eyes = new Float32Array(18);
    this.move(new Float32Array(this.rowCount), [0, 0, 0, 0]);
  }

  /**
   * Take on an expression.
   * @param {Float32Array} weights of all rows.
   * @param {number[]} gaze left yaw, pitch, right yaw, pitch in radians.
   */
  move(weights, gaze) {
    for (let row = 0; row < this.rowCount; row++) {
      this.steps[row] = weights[row] * this.arrays.expression_scale[row];
    }
    for (const side of [0, 1]) {
      const turn = eyeRotation(gaze[2 * side], gaze[2 * side + 1]);
      for (let i = 0; i < 9; i++) this.eyes[9 * side + 3 * (i % 3) + Math.floor(i / 3)] = turn[i];
    }
    this.#weighBasis(weights, gaze);
  }

  /** The formula of avatar3d/avatar/state.py. */
  #weighBasis(weights, gaze) {
    const { map, mean, bias, signal_min, signal_max } = this.arrays;
    const inputs = this.rowCount + 4;
    for (let k = 0; k < this.basisSize; k++) {
      let raw = bias[k];
      for (let i = 0; i < inputs; i++) {
        const value = i < this.rowCount ? weights[i] : gaze[i - this.rowCount];
        const seen = Math.min(Math.max(value, signal_min[i]), signal_max[i]);
        raw += map[k * inputs + i] * (seen - mean[i]);
      }
      this.basisWeights[k] = this.limit * Math.tanh(raw / this.limit);
    }
  }
}
