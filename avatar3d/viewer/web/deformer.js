/**
 * The moving head on the graphics chip: from the weights of a `Head` to every Gaussian as it appears
 * in a picture, in two textures that `Splats` draws from. Under 1 KB goes to the chip in a frame.
 */

class Deformer {
  /**
   * @param {WebGL2RenderingContext} gl
   * @param {Head} head
   */
  constructor(gl, head) {
    this.gl = gl;
    this.head = head;
    const { arrays, rowCount, basisSize, count, vertexCount } = head;
    if (basisSize > MAX_BASIS || rowCount > MAX_ROWS) {
      throw new ViewerError(
        `The avatar has more than ${MAX_BASIS} blendshapes or ${MAX_ROWS} expressions.`);
    }
    this.vertexProgram = new Program(gl, SCREEN_VERTEX_SHADER, VERTICES_SHADER);
    this.gaussianProgram = new Program(gl, SCREEN_VERTEX_SHADER, GAUSSIANS_SHADER);
    this.basisTexels = Math.ceil(basisSize / 4);
    const { rest, rows } = packVertices(arrays);
    this.restTexture = listTexture(gl, rest);
    this.rowTexture = listTexture(gl, rows);
    this.fixedTexture = listTexture(gl, packFixed(arrays));
    this.basisTexture = listTexture(gl, packBasis(head, this.basisTexels));
    this.vertices = listTarget(gl, vertexCount, 1);
    this.gaussians = listTarget(gl, count, 2);
    this.array = gl.createVertexArray(); // empty: corners of the screen are made of their numbers
    this.stale = true;
    this.requested = false; // what `requestRead` asked for has not been fetched
  }

  /** The head has moved. */
  headChanged() {
    this.stale = true;
  }

  /** Bring `gaussians.textures` up to the head and to `view`, as in `Splats.draw`. */
  run(view) {
    const { gl } = this;
    gl.disable(gl.BLEND);
    gl.bindVertexArray(this.array);
    if (this.stale) this.#moveVertices();
    this.stale = false;
    this.#moveGaussians(view);
  }

  /** Now, waiting for the chip: (count, 4) pixel x, y, depth, color bits of every Gaussian. */
  read() {
    this.#copy();
    return this.#fetch();
  }

  /** Ask for what `read` returns without waiting; call `mark` when all else is drawn. */
  requestRead() {
    this.#copy();
    this.requested = true;
  }

  /** After the last command of a frame: only when that is done is reading quick. */
  mark() {
    const { gl } = this;
    if (!this.requested || this.fence) return;
    this.fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
  }

  /** The answer to the last `requestRead`, once; null while it is not there. */
  readLater() {
    const { gl, fence } = this;
    if (!fence || gl.getSyncParameter(fence, gl.SYNC_STATUS) !== gl.SIGNALED) return null;
    return this.#fetch();
  }

  /** Have the chip copy the first target to where it can be read without disturbing it. */
  #copy() {
    const { gl, gaussians } = this;
    const bytes = 16 * TEXTURE_WIDTH * gaussians.rows;
    if (!this.pixelBuffer) {
      this.pixelBuffer = gl.createBuffer();
      this.pixels = new Float32Array(bytes / 4);
      gl.bindBuffer(gl.PIXEL_PACK_BUFFER, this.pixelBuffer);
      // Chromium keeps a second copy of buffers declared for reading and complains of every use.
      gl.bufferData(gl.PIXEL_PACK_BUFFER, bytes, gl.STREAM_COPY);
    }
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, this.pixelBuffer);
    gl.bindFramebuffer(gl.FRAMEBUFFER, gaussians.framebuffer);
    gl.readBuffer(gl.COLOR_ATTACHMENT0);
    gl.readPixels(0, 0, TEXTURE_WIDTH, gaussians.rows, gl.RGBA_INTEGER, gl.UNSIGNED_INT, 0);
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, null);
  }

  #fetch() {
    const { gl } = this;
    if (this.fence) gl.deleteSync(this.fence);
    this.fence = null;
    this.requested = false;
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, this.pixelBuffer);
    gl.getBufferSubData(gl.PIXEL_PACK_BUFFER, 0, this.pixels);
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, null);
    return this.pixels;
  }

  #moveVertices() {
    const { gl, head, vertexProgram: program } = this;
    program.use({ u_rest: this.restTexture, u_rows: this.rowTexture });
    gl.uniform4fv(program.at("u_steps"), head.steps);
    gl.uniformMatrix3fv(program.at("u_eyes"), false, head.eyes);
    gl.uniform3fv(program.at("u_eye_centers"), head.arrays.eye_centers);
    this.#fill(this.vertices);
  }

  #moveGaussians(view) {
    const { gl, head, gaussianProgram: program } = this;
    program.use({
      u_fixed: this.fixedTexture, u_vertices: this.vertices.textures[0], u_basis: this.basisTexture,
    });
    if (!this.counted) {
      gl.uniform1i(program.at("u_count"), head.count);
      gl.uniform1i(program.at("u_basis_count"), head.basisCount);
      gl.uniform1i(program.at("u_basis_texels"), this.basisTexels);
      this.counted = true;
    }
    gl.uniform4fv(program.at("u_basis_weights"), head.basisWeights);
    gl.uniformMatrix4fv(program.at("u_head"), false, columns(view.head));
    gl.uniformMatrix4fv(program.at("u_torso"), false, columns(view.torso));
    gl.uniform4fv(program.at("u_camera"), view.camera);
    gl.uniform2fv(program.at("u_size"), view.size);
    this.#fill(this.gaussians);
  }

  #fill(target) {
    const { gl } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.framebuffer);
    gl.viewport(0, 0, TEXTURE_WIDTH, target.rows);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }
}

/** Rest vertices with their eye and the span of their row entries, and those entries. */
function packVertices(arrays) {
  const { vertices, eye, expression_start, expression_index, expression_value } = arrays;
  const count = eye.length;
  const next = new Uint32Array(count + 1); // first entry of each vertex, then of the following one
  for (const vertex of expression_index) next[vertex + 1]++;
  for (let i = 0; i < count; i++) next[i + 1] += next[i];
  const rest = new Float32Array(8 * count);
  for (let i = 0; i < count; i++) {
    rest.set([...vertices.subarray(3 * i, 3 * i + 3), eye[i], next[i], next[i + 1]], 8 * i);
  }
  const rows = new Int16Array(4 * expression_index.length);
  for (let row = 0; row + 1 < expression_start.length; row++) {
    for (let i = expression_start[row]; i < expression_start[row + 1]; i++) {
      const entry = 4 * next[expression_index[i]]++;
      for (let axis = 0; axis < 3; axis++) rows[entry + axis] = expression_value[3 * i + axis];
      rows[entry + 3] = row;
    }
  }
  return { rest, rows };
}

/** What does not move, activated: see FIXED_TEXELS. */
function packFixed(arrays) {
  const { faces, face, bary, position, quat, log_scale, opacity, color, basis_scale, torso_weight } =
    arrays;
  const out = new Float32Array(4 * FIXED_TEXELS * face.length);
  for (let i = 0; i < face.length; i++) {
    const texels = out.subarray(4 * FIXED_TEXELS * i, 4 * FIXED_TEXELS * (i + 1));
    const free = face[i] < 0;
    texels.set(quat.subarray(4 * i, 4 * i + 4), 0);
    texels[7] = 1 / (1 + Math.exp(-opacity[i]));
    texels[11] = free ? 1 : 0; // torso weight
    for (let axis = 0; axis < 3; axis++) {
      const corner = free ? -1 : faces[3 * face[i] + axis];
      texels[4 + axis] = Math.exp(log_scale[3 * i + axis]);
      texels[8 + axis] = color[3 * i + axis];
      texels[12 + axis] = corner;
      texels[16 + axis] = bary[3 * i + axis];
      texels[20 + axis] = position[3 * i + axis];
      texels[15 + 4 * axis] = basis_scale[3 * i + axis] ?? 0;
      if (!free) texels[11] += bary[3 * i + axis] * torso_weight[corner];
    }
  }
  return out;
}

/** The blendshapes, each attribute padded to whole texels. */
function packBasis(head, texels) {
  const { basis } = head.arrays, size = head.basisSize;
  const out = new Int8Array(4 * texels * BASIS_ROWS * head.basisCount);
  for (let row = 0; row < BASIS_ROWS * head.basisCount; row++) {
    out.set(basis.subarray(row * size, (row + 1) * size), 4 * texels * row);
  }
  return out;
}
