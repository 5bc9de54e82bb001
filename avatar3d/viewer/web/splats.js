/** Drawing the Gaussians of a `Head` with WebGL2. Needs no extension; uses half floats if it can. */

class Splats {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Head} head
   * @param {ImageBitmap | null} plate the picture behind the person.
   */
  constructor(canvas, head, plate) {
    const gl = canvas.getContext("webgl2", {
      alpha: true, antialias: false, depth: false, powerPreference: "high-performance",
    });
    if (!gl) {
      throw new ViewerError(
        "This browser offers no WebGL2, which the avatar needs; switch hardware acceleration on " +
        "or use a current Chrome, Edge, Firefox or Safari.");
    }
    this.gl = gl;
    this.head = head;
    this.sorting = 0; // milliseconds spent on it so far
    this.pictures = 0; // projected so far; an order belongs to one of them
    this.ordered = -1;
    this.deformer = new Deformer(gl, head);
    this.splatProgram = new Program(gl, SPLAT_VERTEX_SHADER, SPLAT_FRAGMENT_SHADER);
    this.screenProgram = new Program(gl, SCREEN_VERTEX_SHADER, SCREEN_FRAGMENT_SHADER);
    const half = gl.getExtension("EXT_color_buffer_float") ||
      gl.getExtension("EXT_color_buffer_half_float");
    this.accumulationFormat = half ? gl.RGBA16F : gl.RGBA8;
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    this.sorter = new Sorter(head.count);
    this.#makeGeometry();
    this.#makeTextures(plate);
  }

  /** Call after `Head.move`. */
  headChanged() {
    this.deformer.headChanged();
  }

  /**
   * Draw one frame. Its order may be that of a frame before; see `catchUp`.
   * @param {View} view
   * @param {WebGLFramebuffer | null} target null is the canvas.
   */
  draw(view, target = null) {
    const { gl, deformer } = this;
    deformer.run(view);
    this.pictures++;
    if (this.ordered < 0 || target) this.#order(deformer.read(), this.pictures);
    else if (!deformer.requested) this.#requestOrder();
    const [width, height] = view.size;
    this.#sizeAccumulation(width, height);
    gl.viewport(0, 0, width, height);
    this.#drawSplats(view);
    this.#drawScreen(view, target);
    deformer.mark();
  }

  /**
   * Take over depths that have arrived since the last frame.
   * @returns {boolean} whether the frame on the screen would now be drawn in a better order.
   */
  catchUp() {
    const found = this.deformer.readLater();
    if (!found) return false;
    this.#order(found, this.awaited);
    if (this.ordered === this.pictures) return true;
    this.#requestOrder(); // of the picture that was drawn meanwhile
    this.deformer.mark();
    return false;
  }

  /** Centres of the Gaussians, N x 3, in the camera frame of `view`. */
  centers(view) {
    this.deformer.run(view);
    this.pictures++;
    const found = this.deformer.read();
    const [fx, fy, cx, cy] = view.camera;
    const out = new Float32Array(3 * this.head.count);
    for (let i = 0; i < this.head.count; i++) {
      const [x, y, depth] = found.subarray(4 * i, 4 * i + 3);
      out.set([((x - cx) / fx) * depth, ((y - cy) / fy) * depth, depth], 3 * i);
    }
    return out;
  }

  /**
   * Draw one frame off screen.
   * @returns {Uint8ClampedArray} RGBA with straight alpha, width x height of `view.size`, top row
   *   first.
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
    for (let i = 0; i < pixels.length; i += 4) {
      const alpha = pixels[i + 3];
      if (alpha === 255 || alpha === 0) continue;
      for (let channel = i; channel < i + 3; channel++) pixels[channel] *= 255 / alpha;
    }
    return pixels;
  }

  #requestOrder() {
    this.deformer.requestRead();
    this.awaited = this.pictures;
  }

  /** Sort by the depths in `found` of the picture with that number. */
  #order(found, picture) {
    const { gl } = this;
    const start = performance.now();
    const order = this.sorter.sort(found);
    gl.bindTexture(gl.TEXTURE_2D, this.orderTexture);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, TEXTURE_WIDTH, order.length / TEXTURE_WIDTH,
                     gl.RED_INTEGER, this.orderType, order);
    this.ordered = picture;
    this.sorting += performance.now() - start;
  }

  #drawSplats(view) {
    const { gl, deformer, splatProgram: program } = this;
    const [spots, shapes] = deformer.gaussians.textures;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.accumulation);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    program.use({ u_order: this.orderTexture, u_spots: spots, u_shapes: shapes });
    gl.uniform2fv(program.at("u_size"), view.size);
    gl.bindVertexArray(this.splatArray);
    gl.drawElements(gl.TRIANGLES, 6 * this.head.count, gl.UNSIGNED_INT, 0);
  }

  #drawScreen(view, target) {
    const { gl, screenProgram: program } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, target);
    gl.disable(gl.BLEND);
    program.use({ u_splats: this.accumulated, u_plate: this.plateTexture });
    gl.uniform2fv(program.at("u_size"), view.size);
    gl.uniform4fv(program.at("u_plate_map"), view.plateMap);
    gl.uniform1f(program.at("u_plate_weight"), view.plateWeight);
    gl.uniform4fv(program.at("u_plain"), view.plain);
    gl.bindVertexArray(this.deformer.array);
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
    gl.bindVertexArray(null);
  }

  #makeTextures(plate) {
    const { gl, head } = this;
    const small = this.sorter.order instanceof Uint16Array;
    this.orderType = small ? gl.UNSIGNED_SHORT : gl.UNSIGNED_INT;
    this.orderTexture = makeTexture(gl);
    gl.texStorage2D(gl.TEXTURE_2D, 1, small ? gl.R16UI : gl.R32UI, TEXTURE_WIDTH,
                    textureRows(head.count));
    this.plateTexture = makeTexture(gl, gl.LINEAR);
    if (plate) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, plate);
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

/** Gaussian indices from far to near: a counting sort over 16 bits of depth. */
class Sorter {
  /** @param {number} count */
  constructor(count) {
    const levels = 65536;
    this.count = count;
    this.keys = new Uint16Array(count);
    this.starts = new Uint32Array(levels + 1);
    /** Padded to whole rows of a texture; indices after `count` mean nothing. */
    this.order = new (count <= levels ? Uint16Array : Uint32Array)(
      TEXTURE_WIDTH * textureRows(count));
  }

  /** @param {Float32Array} found as `Deformer.read` gives it: the third of four is the depth. */
  sort(found) {
    const { count, keys, starts, order } = this, levels = starts.length - 1;
    let near = Infinity, far = -Infinity;
    for (let i = 2; i < 4 * count; i += 4) {
      const depth = found[i];
      if (depth < near) near = depth;
      if (depth > far) far = depth;
    }
    const factor = (levels - 1) / Math.max(far - near, 1e-9);
    starts.fill(0);
    for (let i = 0; i < count; i++) {
      keys[i] = (far - found[4 * i + 2]) * factor;
      starts[keys[i] + 1]++;
    }
    for (let level = 0; level < levels; level++) starts[level + 1] += starts[level];
    // From the last to the first, so that of two at one depth the earlier ends up in front, as in
    // avatar3d.kernels.rasterize.
    for (let i = count - 1; i >= 0; i--) order[starts[keys[i]]++] = i;
    return order;
  }
}
