/** Drawing the Gaussians of a `Head` with WebGL2. Needs no extension; uses half floats if it can. */

class Splats {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Head} head
   * @param {ImageBitmap | null} plate the picture behind the person.
   */
  constructor(canvas, head, plate) {
    const gl = canvas.getContext("webgl2", {
      alpha: false, antialias: false, depth: false, powerPreference: "high-performance",
    });
    if (!gl) {
      throw new ViewerError(
        "This browser offers no WebGL2, which the avatar needs; switch hardware acceleration on " +
        "or use a current Chrome, Edge, Firefox or Safari.");
    }
    this.gl = gl;
    this.head = head;
    this.scratch = {};
    this.splatProgram = linkProgram(gl, SPLAT_VERTEX_SHADER, SPLAT_FRAGMENT_SHADER);
    this.screenProgram = linkProgram(gl, SCREEN_VERTEX_SHADER, SCREEN_FRAGMENT_SHADER);
    const half = gl.getExtension("EXT_color_buffer_float") ||
      gl.getExtension("EXT_color_buffer_half_float");
    this.accumulationFormat = half ? gl.RGBA16F : gl.RGBA8;
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    this.#makeGeometry();
    this.#makeTextures(plate);
    this.headChanged();
  }

  /** Upload vertices and Gaussian centres after `Head.move`. */
  headChanged() {
    const { gl, head } = this;
    for (let i = 0; i < head.vertexCount; i++) {
      this.vertexTexels.set(head.vertices.subarray(3 * i, 3 * i + 3), 4 * i);
    }
    fillFloatTexture(gl, this.vertexTexture, this.vertexTexels);
    this.meanTexels.set(head.means);
    fillFloatTexture(gl, this.meanTexture, this.meanTexels);
  }

  /**
   * Draw one frame.
   * @param {object} view
   *   head, torso: rigid transforms to the view, Float64Array(12);
   *   camera: [fx, fy, cx, cy] and size: [width, height] in pixels;
   *   plateMap: [sx, sy, ox, oy] plate coordinates in [0, 1] of a pixel;
   *   plateWeight in [0, 1]; plain: [r, g, b] where the plate does not show.
   * @param {WebGLFramebuffer | null} target null is the canvas.
   */
  draw(view, target = null) {
    const { gl } = this;
    const [width, height] = view.size;
    this.#sizeAccumulation(width, height);
    gl.viewport(0, 0, width, height);
    this.#drawSplats(view);
    this.#drawScreen(view, target);
  }

  /**
   * Draw one frame off screen.
   * @returns {Uint8ClampedArray} RGBA, width x height of `view.size`, top row first.
   */
  pixels(view) {
    const { gl } = this;
    const [width, height] = view.size;
    const target = gl.createFramebuffer();
    const buffer = gl.createRenderbuffer();
    gl.bindRenderbuffer(gl.RENDERBUFFER, buffer);
    gl.renderbufferStorage(gl.RENDERBUFFER, gl.RGBA8, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target);
    gl.framebufferRenderbuffer(
      gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.RENDERBUFFER, buffer);
    this.draw(view, target);
    const upsideDown = new Uint8Array(4 * width * height);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, upsideDown);
    gl.deleteFramebuffer(target);
    gl.deleteRenderbuffer(buffer);
    const pixels = new Uint8ClampedArray(upsideDown.length);
    for (let row = 0; row < height; row++) {
      const source = 4 * width * (height - 1 - row);
      pixels.set(upsideDown.subarray(source, source + 4 * width), 4 * width * row);
    }
    return pixels;
  }

  #drawSplats(view) {
    const { gl, head, splatProgram: program } = this;
    const order = sortByDepth(head.means, view.head, view.torso, this.scratch);
    this.orderTexels.set(order);
    gl.bindTexture(gl.TEXTURE_2D, this.orderTexture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32UI, TEXTURE_WIDTH, this.orderTexels.length / TEXTURE_WIDTH,
                  0, gl.RED_INTEGER, gl.UNSIGNED_INT, this.orderTexels);

    gl.bindFramebuffer(gl.FRAMEBUFFER, this.accumulation);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.useProgram(program);
    bindTextures(gl, program, {
      u_order: this.orderTexture, u_fixed: this.fixedTexture, u_means: this.meanTexture,
      u_vertices: this.vertexTexture, u_basis: this.basisTexture,
    });
    const weights = new Float32Array(MAX_BASIS);
    weights.set(head.basisWeights);
    gl.uniform4fv(gl.getUniformLocation(program, "u_basis_weights"), weights);
    gl.uniform1i(gl.getUniformLocation(program, "u_basis_count"), this.basisCount);
    gl.uniform1i(gl.getUniformLocation(program, "u_basis_texels"), this.basisTexels);
    gl.uniformMatrix4fv(gl.getUniformLocation(program, "u_head"), false, columns(view.head));
    gl.uniformMatrix4fv(gl.getUniformLocation(program, "u_torso"), false, columns(view.torso));
    gl.uniform4fv(gl.getUniformLocation(program, "u_camera"), view.camera);
    gl.uniform2fv(gl.getUniformLocation(program, "u_size"), view.size);
    gl.bindVertexArray(this.splatArray);
    gl.drawElements(gl.TRIANGLES, 6 * order.length, gl.UNSIGNED_INT, 0);
  }

  #drawScreen(view, target) {
    const { gl, screenProgram: program } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, target);
    gl.disable(gl.BLEND);
    gl.useProgram(program);
    bindTextures(gl, program, { u_splats: this.accumulated, u_plate: this.plateTexture });
    gl.uniform2fv(gl.getUniformLocation(program, "u_size"), view.size);
    gl.uniform4fv(gl.getUniformLocation(program, "u_plate_map"), view.plateMap);
    gl.uniform1f(gl.getUniformLocation(program, "u_plate_weight"), view.plateWeight);
    gl.uniform3fv(gl.getUniformLocation(program, "u_plain"), view.plain);
    gl.bindVertexArray(this.screenArray);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  /**
   * Two triangles per Gaussian over vertices that exist only as numbers. Instancing would be
   * shorter, but with four vertices an instance it leaves most of a wide processor idle.
   */
  #makeGeometry() {
    const { gl, head } = this;
    const triangles = new Uint32Array(6 * head.count);
    for (let i = 0; i < head.count; i++) {
      triangles.set([4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 2, 4 * i + 1, 4 * i + 3], 6 * i);
    }
    this.splatArray = gl.createVertexArray();
    gl.bindVertexArray(this.splatArray);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, triangles, gl.STATIC_DRAW);
    this.screenArray = gl.createVertexArray();
    gl.bindVertexArray(null);
  }

  #makeTextures(plate) {
    const { gl, head } = this;
    if (head.basisSize > MAX_BASIS) {
      throw new ViewerError(`The avatar has more than ${MAX_BASIS} blendshapes.`);
    }
    this.basisCount = head.basisCount;
    this.basisTexels = Math.ceil(head.basisSize / 4);
    const perGaussian = Math.max(FIXED_TEXELS, 7 * this.basisTexels);
    if (head.count * perGaussian > TEXTURE_WIDTH * gl.getParameter(gl.MAX_TEXTURE_SIZE)) {
      throw new ViewerError("The avatar is too large for this graphics chip.");
    }
    const fixed = padded(Float32Array, 4 * FIXED_TEXELS * head.count);
    packFixed(head.arrays, fixed);
    this.fixedTexture = makeTexture(gl);
    fillFloatTexture(gl, this.fixedTexture, fixed);
    this.vertexTexels = padded(Float32Array, 4 * head.vertexCount);
    this.vertexTexture = makeTexture(gl);
    this.orderTexels = new Uint32Array(TEXTURE_WIDTH * Math.ceil(head.count / TEXTURE_WIDTH));
    this.orderTexture = makeTexture(gl);
    this.meanTexels = padded(Float32Array, 4 * head.count);
    this.meanTexture = makeTexture(gl);
    const basis = padded(Int8Array, 4 * 7 * this.basisTexels * this.basisCount);
    packBasis(head, this.basisTexels, basis);
    this.basisTexture = makeTexture(gl);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8I, TEXTURE_WIDTH, basis.length / TEXTURE_WIDTH / 4, 0,
                  gl.RGBA_INTEGER, gl.BYTE, basis);
    this.plateTexture = makeTexture(gl, gl.LINEAR);
    const format = [gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE];
    if (plate) gl.texImage2D(gl.TEXTURE_2D, 0, ...format, plate);
    else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
    this.accumulated = makeTexture(gl);
    this.accumulation = gl.createFramebuffer();
  }

  #sizeAccumulation(width, height) {
    if (this.accumulatedSize === `${width}x${height}`) return;
    this.accumulatedSize = `${width}x${height}`;
    const { gl, accumulationFormat: format } = this;
    const type = format === gl.RGBA8 ? gl.UNSIGNED_BYTE : gl.HALF_FLOAT;
    gl.bindTexture(gl.TEXTURE_2D, this.accumulated);
    gl.texImage2D(gl.TEXTURE_2D, 0, format, width, height, 0, gl.RGBA, type, null);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.accumulation);
    gl.framebufferTexture2D(
      gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.accumulated, 0);
  }
}

/** What does not move, activated: see FIXED_TEXELS. */
function packFixed(arrays, out) {
  const { faces, face, quat, log_scale, opacity, color, basis_scale } = arrays;
  for (let i = 0; i < face.length; i++) {
    const start = 4 * FIXED_TEXELS * i;
    out.set(quat.subarray(4 * i, 4 * i + 4), start);
    for (let axis = 0; axis < 3; axis++) {
      out[start + 4 + axis] = Math.exp(log_scale[3 * i + axis]);
      out[start + 8 + axis] = color[3 * i + axis];
      out[start + 12 + axis] = face[i] < 0 ? -1 : faces[3 * face[i] + axis];
    }
    out[start + 7] = 1 / (1 + Math.exp(-opacity[i]));
    if (3 * i < basis_scale.length) {
      out[start + 16] = basis_scale[3 * i + 1];
      out[start + 17] = basis_scale[3 * i + 2];
    }
  }
}

/** The rows for quat and color, each padded to whole texels; those for position stay on the CPU. */
function packBasis(head, texels, out) {
  const { basis } = head.arrays, size = head.basisSize;
  for (let i = 0; i < head.basisCount; i++) {
    for (let row = 3; row < BASIS_ROWS; row++) {
      const source = (i * BASIS_ROWS + row) * size;
      out.set(basis.subarray(source, source + size), 4 * texels * (7 * i + row - 3));
    }
  }
}

/** Array for a texture of whole rows, at least one. */
function padded(type, length) {
  return new type(4 * TEXTURE_WIDTH * Math.max(1, Math.ceil(length / 4 / TEXTURE_WIDTH)));
}

/** Rigid transform as the columns of a 4 x 4 matrix. */
function columns(m) {
  return Float32Array.of(
    m[0], m[4], m[8], 0, m[1], m[5], m[9], 0, m[2], m[6], m[10], 0, m[3], m[7], m[11], 1);
}

function makeTexture(gl, filter = gl.NEAREST) {
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  for (const [name, value] of [
    [gl.TEXTURE_MIN_FILTER, filter], [gl.TEXTURE_MAG_FILTER, filter],
    [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE],
  ]) gl.texParameteri(gl.TEXTURE_2D, name, value);
  return texture;
}

function fillFloatTexture(gl, texture, texels) {
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, TEXTURE_WIDTH, texels.length / TEXTURE_WIDTH / 4, 0,
                gl.RGBA, gl.FLOAT, texels);
}

function bindTextures(gl, program, textures) {
  Object.entries(textures).forEach(([name, texture], unit) => {
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.uniform1i(gl.getUniformLocation(program, name), unit);
  });
  gl.activeTexture(gl.TEXTURE0 + 7); // uploads must not disturb these bindings
}

function linkProgram(gl, vertexSource, fragmentSource) {
  const program = gl.createProgram();
  for (const [type, source] of [
    [gl.VERTEX_SHADER, vertexSource], [gl.FRAGMENT_SHADER, fragmentSource],
  ]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new ViewerError(`The graphics driver refused the viewer: ${gl.getProgramInfoLog(program)}`);
  }
  return program;
}
