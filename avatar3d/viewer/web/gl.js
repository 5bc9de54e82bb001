/** WebGL2 in few words. Textures hold lists: texel i is at (i % TEXTURE_WIDTH, i / TEXTURE_WIDTH). */

/** A linked program that knows where its uniforms are and which texture unit each sampler has. */
class Program {
  /**
   * @param {WebGL2RenderingContext} gl
   * @param {string} vertexSource
   * @param {string} fragmentSource
   */
  constructor(gl, vertexSource, fragmentSource) {
    this.gl = gl;
    const program = this.program = gl.createProgram();
    for (const [type, source] of /** @type {[number, string][]} */ ([
      [gl.VERTEX_SHADER, vertexSource], [gl.FRAGMENT_SHADER, fragmentSource],
    ])) {
      const shader = gl.createShader(type);
      if (!shader) break; // the context is lost; it will be made anew
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new ViewerError(
        `The graphics driver refused the viewer: ${gl.getProgramInfoLog(program)}`);
    }
    this.places = new Map();
  }

  /** @param {string} name */
  at(name) {
    if (!this.places.has(name)) {
      this.places.set(name, this.gl.getUniformLocation(this.program, name));
    }
    return this.places.get(name);
  }

  /** Make this the current program, reading from these textures by sampler name. */
  use(textures) {
    const { gl } = this;
    gl.useProgram(this.program);
    Object.entries(textures).forEach(([name, texture], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      if (!this.sampling) gl.uniform1i(this.at(name), unit);
    });
    this.sampling = true;
    gl.activeTexture(gl.TEXTURE0 + 7); // uploads must not disturb these bindings
  }
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

/** @param {number} texels @returns {number} rows that a list of so many texels takes. */
function textureRows(texels) {
  return Math.max(1, Math.ceil(texels / TEXTURE_WIDTH));
}

/** A list of RGBA texels in a texture of its own: floats, int16 or int8. */
function listTexture(gl, values) {
  const [format, layout, type] = {
    Float32Array: [gl.RGBA32F, gl.RGBA, gl.FLOAT],
    Int16Array: [gl.RGBA16I, gl.RGBA_INTEGER, gl.SHORT],
    Int8Array: [gl.RGBA8I, gl.RGBA_INTEGER, gl.BYTE],
  }[values.constructor.name];
  const rows = textureRows(values.length / 4);
  if (rows > gl.getParameter(gl.MAX_TEXTURE_SIZE)) {
    throw new ViewerError("The avatar is too large for this graphics chip.");
  }
  const whole = new values.constructor(4 * TEXTURE_WIDTH * rows);
  whole.set(values);
  const texture = makeTexture(gl);
  gl.texImage2D(gl.TEXTURE_2D, 0, format, TEXTURE_WIDTH, rows, 0, layout, type, whole);
  return texture;
}

/** Framebuffer with `count` integer list textures of at least `texels` RGBA texels. */
function listTarget(gl, texels, count) {
  const rows = textureRows(texels);
  const framebuffer = gl.createFramebuffer();
  const textures = [], attachments = [];
  for (let i = 0; i < count; i++) {
    textures.push(makeTexture(gl));
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA32UI, TEXTURE_WIDTH, rows);
    attachments.push(gl.COLOR_ATTACHMENT0 + i);
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, attachments[i], gl.TEXTURE_2D, textures[i], 0);
  }
  gl.drawBuffers(attachments);
  return { framebuffer, textures, rows };
}

/** Rigid transform as the columns of a 4 x 4 matrix. */
function columns(m) {
  return Float32Array.of(
    m[0], m[4], m[8], 0, m[1], m[5], m[9], 0, m[2], m[6], m[10], 0, m[3], m[7], m[11], 1);
}
