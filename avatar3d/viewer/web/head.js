/**
 * The moving head: expression weights and gaze to vertices, and vertices to Gaussian centres, as
 * documented in avatar3d/avatar/state.py and computed in avatar3d/avatar/deform.py.
 */

const BASIS_ROWS = 10; // position 3, quat 4, color 3

class Head {
  /**
   * @param {object} arrays of `loadPayload`.
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
    this.vertices = new Float32Array(3 * this.vertexCount);
    /** Gaussian centres in the head frame, x y z and the skinning weight to the torso. */
    this.means = new Float32Array(4 * this.count);
    this.basisWeights = new Float32Array(this.basisSize);
    this.eyes = [1, 2].map((side) => indicesWhere(arrays.eye, side));
    this.#fillTorsoWeights();
    this.move(new Float32Array(this.rowCount), [0, 0, 0, 0]);
  }

  /** Take on an expression: weights of all rows, gaze (left yaw, pitch, right yaw, pitch). */
  move(weights, gaze) {
    this.#moveVertices(weights, gaze);
    this.#weighBasis(weights, gaze);
    this.#moveMeans();
  }

  #moveVertices(weights, gaze) {
    const { vertices, expression_start, expression_index, expression_value, expression_scale } =
      this.arrays;
    this.vertices.set(vertices);
    for (let row = 0; row < this.rowCount; row++) {
      const factor = weights[row] * expression_scale[row];
      if (factor === 0) continue;
      for (let i = expression_start[row]; i < expression_start[row + 1]; i++) {
        const target = 3 * expression_index[i];
        this.vertices[target] += factor * expression_value[3 * i];
        this.vertices[target + 1] += factor * expression_value[3 * i + 1];
        this.vertices[target + 2] += factor * expression_value[3 * i + 2];
      }
    }
    this.eyes.forEach((indices, side) => {
      const center = this.arrays.eye_centers.subarray(3 * side, 3 * side + 3);
      const turn = rotationAbout(eyeRotation(gaze[2 * side], gaze[2 * side + 1]), center);
      for (const index of indices) {
        const [x, y, z] = this.vertices.subarray(3 * index, 3 * index + 3);
        for (let axis = 0; axis < 3; axis++) {
          this.vertices[3 * index + axis] = turn[4 * axis] * x + turn[4 * axis + 1] * y +
            turn[4 * axis + 2] * z + turn[4 * axis + 3];
        }
      }
    });
  }

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

  /** Barycentric anchor plus the displacement in the triangle's frame; free ones stay in place. */
  #moveMeans() {
    const { faces, face, bary, position } = this.arrays;
    const { vertices: v, means } = this;
    const shift = [0, 0, 0];
    for (let i = 0; i < this.count; i++) {
      this.#shift(i, shift);
      const px = position[3 * i] + shift[0];
      const py = position[3 * i + 1] + shift[1];
      const pz = position[3 * i + 2] + shift[2];
      if (face[i] < 0) {
        means[4 * i] = px;
        means[4 * i + 1] = py;
        means[4 * i + 2] = pz;
        continue;
      }
      const a = 3 * faces[3 * face[i]], b = 3 * faces[3 * face[i] + 1], c = 3 * faces[3 * face[i] + 2];
      let ux = v[b] - v[a], uy = v[b + 1] - v[a + 1], uz = v[b + 2] - v[a + 2];
      const wx = v[c] - v[a], wy = v[c + 1] - v[a + 1], wz = v[c + 2] - v[a + 2];
      let scale = 1 / Math.max(Math.sqrt(ux * ux + uy * uy + uz * uz), 1e-12);
      ux *= scale; uy *= scale; uz *= scale;
      let nx = uy * wz - uz * wy, ny = uz * wx - ux * wz, nz = ux * wy - uy * wx;
      scale = 1 / Math.max(Math.sqrt(nx * nx + ny * ny + nz * nz), 1e-12);
      nx *= scale; ny *= scale; nz *= scale;
      const ex = ny * uz - nz * uy, ey = nz * ux - nx * uz, ez = nx * uy - ny * ux;
      const s = bary[3 * i], t = bary[3 * i + 1], r = bary[3 * i + 2];
      means[4 * i] = s * v[a] + t * v[b] + r * v[c] + ux * px + ex * py + nx * pz;
      means[4 * i + 1] = s * v[a + 1] + t * v[b + 1] + r * v[c + 1] + uy * px + ey * py + ny * pz;
      means[4 * i + 2] = s * v[a + 2] + t * v[b + 2] + r * v[c + 2] + uz * px + ez * py + nz * pz;
    }
  }

  /** Displacement of Gaussian i by the blendshapes, into `out`. */
  #shift(i, out) {
    out[0] = out[1] = out[2] = 0;
    if (i >= this.basisCount) return;
    const { basis, basis_scale } = this.arrays;
    const size = this.basisSize, start = i * BASIS_ROWS * size;
    for (let axis = 0; axis < 3; axis++) {
      let sum = 0;
      for (let k = 0; k < size; k++) sum += basis[start + axis * size + k] * this.basisWeights[k];
      out[axis] = sum * basis_scale[3 * i];
    }
  }

  #fillTorsoWeights() {
    const { faces, face, bary, torso_weight } = this.arrays;
    for (let i = 0; i < this.count; i++) {
      let weight = 1;
      if (face[i] >= 0) {
        weight = 0;
        for (let corner = 0; corner < 3; corner++) {
          weight += bary[3 * i + corner] * torso_weight[faces[3 * face[i] + corner]];
        }
      }
      this.means[4 * i + 3] = weight;
    }
  }
}

function indicesWhere(values, wanted) {
  const indices = [];
  values.forEach((value, index) => value === wanted && indices.push(index));
  return indices;
}

/**
 * Gaussian indices from far to near.
 * @param {Float32Array} means N x 4, as in `Head`.
 * @param {Float64Array} head, torso: rigid transforms from the head frame to the view.
 * @param {object} scratch reused between calls; pass the same empty object.
 */
function sortByDepth(means, head, torso, scratch) {
  const count = means.length / 4, levels = 65536;
  if (scratch.order?.length !== count) {
    scratch.depths = new Float32Array(count);
    scratch.keys = new Uint16Array(count);
    scratch.starts = new Uint32Array(levels + 1);
    scratch.order = new Uint32Array(count);
  }
  const { depths, keys, starts, order } = scratch;
  let near = Infinity, far = -Infinity;
  for (let i = 0; i < count; i++) {
    const x = means[4 * i], y = means[4 * i + 1], z = means[4 * i + 2], w = means[4 * i + 3];
    const byHead = head[8] * x + head[9] * y + head[10] * z + head[11];
    const byTorso = torso[8] * x + torso[9] * y + torso[10] * z + torso[11];
    const depth = depths[i] = byHead + w * (byTorso - byHead);
    if (depth < near) near = depth;
    if (depth > far) far = depth;
  }
  const factor = (levels - 1) / Math.max(far - near, 1e-9);
  starts.fill(0);
  for (let i = 0; i < count; i++) {
    keys[i] = (far - depths[i]) * factor;
    starts[keys[i] + 1]++;
  }
  for (let level = 0; level < levels; level++) starts[level + 1] += starts[level];
  // From the last to the first, so that of two at one depth the earlier ends up in front, as in
  // avatar3d.kernels.rasterize.
  for (let i = count - 1; i >= 0; i--) order[starts[keys[i]]++] = i;
  return order;
}
