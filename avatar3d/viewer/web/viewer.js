/**
 * The page. Another page may embed this one in a frame, or a script may drive it:
 *
 *   await avatar3d.ready
 *   avatar3d.setExpression("jawOpen", 0.4)        // or an object of several; null releases
 *   avatar3d.setPose({ yaw: 0.2, pitch: 0, roll: 0 })   // radians, to the person's left, up, left
 *   avatar3d.setGaze({ yaw: 0.1, pitch: 0 })
 *   avatar3d.setView({ azimuth: 0.3, elevation: 0, zoom: 1.5, background: true })
 *   avatar3d.setIdle(false);  avatar3d.play();  avatar3d.pause();  avatar3d.seek(1.2)
 *   avatar3d.reset()
 *   avatar3d.snapshot(512, 512)                   // {width, height, data}: RGBA, top row first
 *   avatar3d.gaussians()                          // centres now: Float32Array N x 3, camera frame
 */

class Viewer {
  constructor(header, arrays, plate, sound) {
    this.header = header;
    this.plate = plate;
    this.sound = sound;
    this.canvas = document.getElementById("canvas");
    this.head = new Head(arrays, header.limit);
    this.splats = new Splats(this.canvas, this.head, plate);
    this.performer = new Performer(header, arrays);
    this.camera = new ViewCamera(header.camera);
    this.camera.plain = [...header.plain, 1];
    this.camera.plate = plate !== null;
    this.panel = new Panel(this.performer, arrays, () => this.changed());
    this.detail = 1; // fraction of the screen's resolution, lowered where drawing is slow
    this.dirty = true;
    this.shownAt = -Infinity;
    this.#connect();
    this.setIdle(!matchMedia("(prefers-reduced-motion: reduce)").matches);
    new ResizeObserver(() => this.#resize()).observe(document.getElementById("frame"));
    this.#resize();
    this.#draw(performance.now());
    requestAnimationFrame((now) => this.#tick(now, now));
  }

  changed() {
    this.dirty = true;
    this.shownAt = -Infinity;
  }

  play() {
    const { performer, sound } = this;
    if (!performer.motion) return;
    if (performer.time >= performer.duration - 1e-3) performer.time = 0;
    performer.playing = performer.engaged = true;
    if (sound) {
      sound.currentTime = performer.time;
      sound.play().catch(() => { this.sound = null; }); // e.g. refused before the first click
    }
    this.#showPlaying();
  }

  pause() {
    this.performer.playing = false;
    this.sound?.pause();
    this.#showPlaying();
  }

  /** Go to a moment of the motion, in seconds, and show it. */
  seek(seconds) {
    const { performer } = this;
    performer.time = clamp(finite(seconds), 0, performer.duration);
    performer.engaged = performer.motion !== null;
    performer.strength = performer.engaged ? 1 : 0;
    if (this.sound) this.sound.currentTime = performer.time;
    this.changed();
  }

  setIdle(on) {
    this.performer.idling = Boolean(on);
    press("idle", this.performer.idling);
    this.changed();
  }

  setView({ azimuth, elevation, zoom, background }) {
    const { camera } = this;
    camera.orbit(finite(azimuth ?? camera.azimuth), finite(elevation ?? camera.elevation));
    if (zoom !== undefined) camera.zoomBy(finite(zoom) / camera.zoom);
    if (background !== undefined) camera.plate = Boolean(background) && this.plate !== null;
    press("background", camera.plate);
    this.changed();
  }

  /** Everything as at the start: rest pose, original view, nothing playing. */
  reset() {
    this.pause();
    this.seek(0);
    this.performer.engaged = false;
    this.performer.strength = 0;
    this.performer.reset();
    this.camera.reset();
    this.changed();
  }

  snapshot(width = this.camera.width, height = this.camera.height) {
    const face = this.#face();
    return { width, height, data: this.splats.pixels(this.camera.view(face, width, height)) };
  }

  gaussians() {
    return this.splats.centers(this.camera.view(this.#face(), this.camera.width, this.camera.height));
  }

  /** Frames drawn and milliseconds spent sorting since the start. */
  statistics() {
    const { pictures, sorting } = this.splats;
    return { gaussians: this.head.count, frames: pictures, sorting };
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
    const seconds = (now - before) / 1000;
    this.#keepTime(Math.min(seconds, 0.1));
    const moving = this.performer.advance(Math.min(seconds, 0.1));
    const reordered = !this.lost && this.splats.catchUp();
    if (moving || this.dirty || reordered) this.#draw(now);
    if (moving) this.#adapt(seconds);
    requestAnimationFrame((next) => this.#tick(now, next));
  }

  #keepTime(seconds) {
    const { performer, sound } = this;
    if (!performer.playing) return;
    performer.time = sound && !sound.paused ? sound.currentTime : performer.time + seconds;
    if (performer.time < performer.duration) return;
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
      this.panel.show(face);
      this.#showTime();
    }
  }

  /** Halve the resolution step by step where frames take long. */
  #adapt(seconds) {
    this.slow = (this.slow ?? 0) * 0.95 + (seconds > 0.05 ? 0.05 : 0);
    if (this.slow < 0.6 || this.detail <= 0.5) return;
    this.slow = 0;
    this.detail *= 0.7;
    this.#resize();
  }

  /** The largest canvas of the camera's shape that fits. */
  #resize() {
    const frame = document.getElementById("frame"), { camera, canvas } = this;
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

  #connect() {
    const { performer, camera, canvas } = this;
    const on = (id, name, action) => document.getElementById(id).addEventListener(name, action);
    const playPause = () => (performer.playing ? this.pause() : this.play());
    on("play", "click", playPause);
    on("seek", "input", (event) => this.seek(event.target.value));
    on("idle", "click", () => this.setIdle(!performer.idling));
    on("background", "click", () => this.setView({ background: !camera.plate }));
    on("view", "click", () => { camera.reset(); this.changed(); });
    on("reset", "click", () => this.reset());
    steer(canvas, camera, () => this.changed(), playPause);
    canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      this.lost = true;
    });
    canvas.addEventListener("webglcontextrestored", () => {
      this.splats = new Splats(canvas, this.head, this.plate);
      this.lost = false;
      this.changed();
    });
    document.getElementById("background").hidden = this.plate === null;
    for (const id of ["play", "clock"]) document.getElementById(id).hidden = !performer.motion;
    document.querySelector(".seek").hidden = !performer.motion;
    const seek = document.getElementById("seek");
    seek.max = performer.duration;
  }

  #showTime() {
    const { time } = this.performer;
    document.getElementById("seek").value = time;
    const seconds = String(Math.floor(time % 60)).padStart(2, "0");
    document.getElementById("clock").textContent = `${Math.floor(time / 60)}:${seconds}`;
  }

  #showPlaying() {
    const { playing } = this.performer;
    document.getElementById("play").textContent = playing ? "Pause" : "Play";
    press("play", playing);
    this.changed();
  }
}

function press(id, on) {
  document.getElementById(id).setAttribute("aria-pressed", String(on));
}

async function start() {
  const message = document.getElementById("message");
  try {
    const { header, arrays } = await loadPayload();
    const picture = embeddedBlob("avatar-plate");
    const plate = picture && await createImageBitmap(picture, { colorSpaceConversion: "none" });
    const voice = embeddedBlob("avatar-sound");
    const sound = voice && new Audio(URL.createObjectURL(voice));
    for (const id of ["panel", "bar", "badge"]) document.getElementById(id).hidden = false;
    const viewer = new Viewer(header, arrays, plate, sound);
    message.hidden = true;
    return viewer;
  } catch (error) {
    message.setAttribute("role", "alert");
    message.textContent = error instanceof ViewerError ? error.message
      : `The avatar cannot be shown: ${error.message}`;
    throw error;
  }
}

const started = start();
window.avatar3d = {
  ready: started.then(() => undefined),
  setExpression: async (names, value) => {
    const viewer = await started;
    const values = typeof names === "string" ? { [names]: value } : names;
    for (const [name, weight] of Object.entries(values)) viewer.performer.setExpression(name, weight);
    viewer.changed();
  },
  setPose: async (angles) => { const v = await started; v.performer.setPose(angles); v.changed(); },
  setGaze: async (angles) => { const v = await started; v.performer.setGaze(angles); v.changed(); },
};
for (const name of ["setView", "setIdle", "play", "pause", "seek", "reset", "snapshot", "gaussians", "statistics"]) {
  window.avatar3d[name] = async (...parameters) => (await started)[name](...parameters);
}
