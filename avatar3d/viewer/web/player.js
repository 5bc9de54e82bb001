/**
 * An avatar in an element of a page, and everything that can be asked of it. Angles are in radians,
 * positive to the person's left, up, and with the crown to the left; times in seconds.
 */

class Player {
  /**
   * @param {HTMLElement} frame what the picture has to fit into; it watches its size.
   * @param {HTMLCanvasElement} canvas
   * @param {Content} content
   */
  constructor(frame, canvas, { header, arrays, plate, sound }) {
    this.frame = frame;
    this.canvas = canvas;
    this.plate = plate;
    this.head = new Head(arrays, header.limit);
    this.splats = new Splats(canvas, this.head, plate);
    this.performer = new Performer(header, arrays);
    this.speech = arrays.speech_mean ? new SpeechMouth(arrays, header.expression_names) : null;
    this.camera = new ViewCamera(header.camera);
    this.own = [...header.plain, 1]; // the mean colour of the plate
    this.camera.plain = this.own;
    this.camera.plate = plate !== null;
    /** @type {Sound | null} */
    this.sound = sound && new Sound(sound);
    /** @type {Microphone | null} */
    this.microphone = null;
    /** @type {Recorder | null} */
    this.recorder = null;
    /** Called with the face at most ten times a second, and when something else has changed. */
    this.onface = (face) => {};
    this.onchange = () => {};
    this.detail = 1; // fraction of the screen's resolution, lowered where drawing is slow
    this.dirty = true;
    this.shownAt = -Infinity;
    canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      this.lost = true;
    });
    canvas.addEventListener("webglcontextrestored", () => {
      this.splats = new Splats(canvas, this.head, this.plate);
      this.faceKey = null;
      this.lost = false;
      this.changed();
    });
    this.setIdle(!matchMedia("(prefers-reduced-motion: reduce)").matches);
    this.observer = new ResizeObserver(() => this.#resize());
    this.observer.observe(frame);
    this.#resize();
    this.#draw(performance.now());
    requestAnimationFrame((now) => this.#tick(now, now));
  }

  /** Set expressions by their ARKit names: one, or an object of several; null lets go. */
  setExpression(names, value) {
    const values = typeof names === "string" ? { [names]: value } : names;
    for (const [name, weight] of Object.entries(values)) this.performer.setExpression(name, weight);
    this.changed();
  }

  /** Set some of {yaw, pitch, roll}; null lets go. */
  setPose(angles) {
    this.performer.setPose(angles);
    this.changed();
  }

  /** Set {yaw, pitch} of both eyes; null lets go. */
  setGaze(angles) {
    this.performer.setGaze(angles);
    this.changed();
  }

  /** Blink, glance and sway a little while nothing else does. */
  setIdle(on) {
    this.performer.idling = Boolean(on);
    this.changed();
    this.onchange();
  }

  /**
   * @param {{azimuth?: number, elevation?: number, zoom?: number,
   *   background?: boolean | string}} view background: true is the recorded one, false its mean
   *   colour; or "transparent" or a colour as #rrggbb.
   */
  setView({ azimuth, elevation, zoom, background }) {
    const { camera } = this;
    camera.orbit(finite(azimuth ?? camera.azimuth), finite(elevation ?? camera.elevation));
    if (zoom !== undefined) camera.zoomBy(finite(zoom) / camera.zoom);
    if (background !== undefined) {
      camera.plate = background === true && this.plate !== null;
      camera.plain = typeof background === "string" ? plainColor(background) : this.own;
    }
    this.changed();
    this.onchange();
  }

  resetView() {
    this.camera.reset();
    this.changed();
  }

  /** Play the motion at hand, with its sound. */
  play() {
    const { performer } = this;
    if (!performer.motion) return;
    this.#closeMicrophone();
    if (performer.time >= performer.duration - 1e-3) performer.time = 0;
    performer.playing = performer.engaged = true;
    this.sound?.play(performer.time);
    this.#changedState();
  }

  pause() {
    this.performer.playing = false;
    this.sound?.pause();
    this.#changedState();
  }

  /** Go to a moment of the motion and show it. */
  seek(seconds) {
    const { performer } = this;
    performer.time = clamp(finite(seconds), 0, performer.duration);
    performer.engaged = performer.motion !== null;
    performer.strength = performer.engaged ? 1 : 0;
    this.sound?.seek(performer.time);
    this.changed();
  }

  /**
   * Play another motion.
   * @param {MotionData} motion as `avatar3d motion convert X -o X.json` writes it.
   * @param {Blob | ArrayBuffer | string | null} sound that goes with it; a string is an address.
   */
  async playMotion(motion, sound = null) {
    const track = trackFromMotion(motion);
    this.#exchange(track, sound && await fetched(sound));
    this.play();
  }

  /** Say a sound file. @param {Blob | ArrayBuffer | string} sound a string is an address. */
  async speak(sound) {
    if (!this.speech) throw new ViewerError("This avatar was exported without the speech network.");
    const blob = await fetched(sound);
    let samples;
    try {
      samples = await decodeSpeech(await blob.arrayBuffer());
    } catch {
      throw new ViewerError("That is not a sound this browser can read; try a WAV or MP3 file.");
    }
    const track = { ...this.speech.perform(samples), width: 52, head: null, torso: null, gaze: null };
    this.#exchange(track, blob);
    this.play();
  }

  /** Move the mouth with the microphone, or stop doing so. */
  async listen(on) {
    if (!on || this.microphone) this.#closeMicrophone();
    if (!on || !this.speech) return;
    this.pause();
    this.performer.engaged = false;
    this.speech.forget();
    this.microphone = await Microphone.open();
    this.#changedState();
  }

  /** Begin to film the picture, with what is heard. */
  record() {
    if (this.recorder) return;
    const tracks = [...(this.sound?.tracks() ?? []), ...(this.microphone?.tracks() ?? [])];
    this.recorder = new Recorder(this.canvas, tracks.slice(-1));
    this.changed();
    this.#changedState();
  }

  /** @returns {Promise<Blob | null>} the film since `record`, WebM in most browsers. */
  async stopRecording() {
    const { recorder } = this;
    this.recorder = null;
    const film = recorder && await recorder.stop();
    this.#changedState();
    return film;
  }

  /** Everything as at the start: rest pose, original view, nothing playing. */
  reset() {
    this.pause();
    this.#closeMicrophone();
    this.seek(0);
    this.performer.engaged = false;
    this.performer.strength = 0;
    this.performer.reset();
    this.camera.reset();
    this.changed();
  }

  /** @returns {{width: number, height: number, data: Uint8ClampedArray}} RGBA, top row first. */
  snapshot(width = this.camera.width, height = this.camera.height) {
    const face = this.#face();
    return { width, height, data: this.splats.pixels(this.camera.view(face, width, height)) };
  }

  /** @returns {Promise<Blob>} the picture as PNG. */
  async picture(width = this.camera.width, height = this.camera.height) {
    const data = /** @type {any} */ (this.snapshot(width, height).data);
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
    return canvas.convertToBlob();
  }

  /** Centres of the Gaussians now: N x 3, metres, camera frame. */
  gaussians() {
    return this.splats.centers(this.camera.view(this.#face(), this.camera.width, this.camera.height));
  }

  /** Frames drawn and milliseconds spent sorting since the start. */
  statistics() {
    const { pictures, sorting } = this.splats;
    return { gaussians: this.head.count, frames: pictures, sorting };
  }

  /** Stop for good and let go of everything. */
  destroy() {
    this.pause();
    this.#closeMicrophone();
    this.sound?.release();
    this.observer.disconnect();
    this.lost = this.ended = true;
    this.splats.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  changed() {
    this.dirty = true;
    this.shownAt = -Infinity;
  }

  #changedState() {
    this.changed();
    this.onchange();
  }

  #exchange(track, sound) {
    this.#closeMicrophone();
    this.sound?.release();
    this.sound = sound && new Sound(sound);
    this.performer.setMotion(track);
    this.#changedState();
  }

  #closeMicrophone() {
    this.microphone?.close();
    this.microphone = null;
    this.performer.mouth = null;
    this.onchange();
  }

  /** The face now, with the head's geometry brought up to it. */
  #face() {
    const face = this.performer.face();
    const key = `${face.weights.join()};${face.gaze.join()}`;
    if (key !== this.faceKey) {
      this.faceKey = key;
      this.head.move(face.weights, face.gaze);
      this.splats.headChanged();
    }
    return face;
  }

  #tick(before, now) {
    if (this.ended) return;
    const seconds = (now - before) / 1000, step = Math.min(seconds, 0.1);
    this.#keepTime(step);
    if (this.microphone && step > 0) {
      this.performer.mouth = this.speech.follow(this.microphone.recent(), step);
    }
    const moving = this.performer.advance(step) || this.recorder !== null;
    const reordered = !this.lost && this.splats.catchUp();
    if (moving || this.dirty || reordered) this.#draw(now);
    if (moving) this.#adapt(seconds);
    requestAnimationFrame((next) => this.#tick(now, next));
  }

  #keepTime(seconds) {
    const { performer, sound } = this;
    if (!performer.playing) return;
    performer.time = sound?.time ?? performer.time + seconds;
    if (performer.time < performer.duration && !sound?.element.ended) return;
    this.pause();
    performer.engaged = false;
  }

  #draw(now) {
    if (this.lost) return;
    const face = this.#face();
    this.splats.draw(this.camera.view(face, this.canvas.width, this.canvas.height));
    this.dirty = false;
    if (now - this.shownAt > 100) { // the numbers need not flicker with every frame
      this.shownAt = now;
      this.onface(face);
    }
  }

  /** Halve the resolution step by step where frames take long; not while filming. */
  #adapt(seconds) {
    this.slow = (this.slow ?? 0) * 0.95 + (seconds > 0.05 ? 0.05 : 0);
    if (this.slow < 0.6 || this.detail <= 0.5 || this.recorder) return;
    this.slow = 0;
    this.detail *= 0.7;
    this.#resize();
  }

  /** The largest canvas of the camera's shape that fits. */
  #resize() {
    const { frame, camera, canvas } = this;
    const scale = Math.min(frame.clientWidth / camera.width, frame.clientHeight / camera.height);
    const [width, height] = [camera.width * scale, camera.height * scale].map(Math.floor);
    if (width < 1 || height < 1) return;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const dense = Math.min(devicePixelRatio, 2) * this.detail;
    canvas.width = Math.max(1, Math.round(width * dense));
    canvas.height = Math.max(1, Math.round(height * dense));
    this.changed();
  }
}

/** Straight RGBA in [0, 1] of "transparent" or "#rrggbb". */
function plainColor(text) {
  if (text === "transparent") return [0, 0, 0, 0];
  if (!/^#[0-9a-f]{6}$/i.test(text)) throw new RangeError(`${text} is no colour like #rrggbb.`);
  return [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16) / 255).concat(1);
}

/** @param {Blob | ArrayBuffer | string} source */
async function fetched(source) {
  if (source instanceof Blob) return source;
  if (source instanceof ArrayBuffer) return new Blob([source]);
  const answer = await fetch(source);
  if (!answer.ok) throw new ViewerError(`${source} cannot be loaded: ${answer.status}.`);
  return answer.blob();
}
