/**
 * The page. Another page may embed this one in a frame, or a script may drive it: `avatar3d` has
 * every method of `Player`, to be awaited, and `avatar3d.ready`.
 *
 *   await avatar3d.ready
 *   avatar3d.setExpression("jawOpen", 0.4)        // or an object of several; null releases
 *   avatar3d.setPose({ yaw: 0.2, pitch: 0, roll: 0 })
 *   avatar3d.speak(file)
 */

const METHODS = [
  "setExpression", "setPose", "setGaze", "setIdle", "setView", "resetView", "play", "pause", "seek",
  "playMotion", "speak", "listen", "record", "stopRecording", "reset", "snapshot", "picture",
  "gaussians", "statistics",
];
/** ARKit weights of avatar3d.motion.emotions; a name without a side means both. */
const PRESETS = {
  Neutral: {},
  Smile: {
    mouthSmile: 0.5, mouthDimple: 0.15, cheekSquint: 0.35, eyeSquint: 0.2, browOuterUp: 0.1,
    mouthUpperUp: 0.08,
  },
  Serious: {
    browDown: 0.6, eyeSquint: 0.25, mouthPress: 0.3, mouthFrown: 0.25, mouthShrugLower: 0.15,
  },
  Surprised: { browInnerUp: 0.7, browOuterUp: 0.6, eyeWide: 0.5, jawOpen: 0.1, mouthFunnel: 0.05 },
  "Eyes shut": { eyeBlink: 1 },
  Ah: { jawOpen: 0.35, mouthLowerDown: 0.2 },
  Oh: { jawOpen: 0.2, mouthFunnel: 0.35, mouthPucker: 0.35 },
};

/** Connects what `viewer.html` shows with a `Player`. */
class Page {
  /** @param {Player} player @param {Content} content */
  constructor(player, { header, arrays }) {
    this.player = player;
    this.name = header.name ?? "avatar";
    const { performer, camera, canvas } = player;
    this.panel = new Panel(performer, arrays, () => player.changed());
    player.onface = (face) => this.#showFace(face);
    player.onchange = () => this.#showState();
    const act = (id, action, event = "click") =>
      byId(id).addEventListener(event, () => this.#try(action));
    const playPause = () => (performer.playing ? player.pause() : player.play());
    act("play", playPause);
    byId("seek").addEventListener("input", () => player.seek(byId("seek").value));
    act("idle", () => player.setIdle(!performer.idling));
    act("view", () => player.resetView());
    act("reset", () => player.reset());
    act("picture", () => this.#savePicture());
    act("record", () => this.#record());
    act("microphone", () => player.listen(!player.microphone));
    act("sound", () => byId("file").click());
    act("file", () => this.#open(byId("file").files[0]), "change");
    for (const id of ["backdrop", "color"]) act(id, () => this.#setBackground(), "input");
    this.#addPresets();
    steer(canvas, camera, () => player.changed(), {
      " ": playPause, i: () => player.setIdle(!performer.idling), m: () => byId("microphone").click(),
      r: () => byId("record").click(), s: () => this.#savePicture(), "0": () => player.resetView(),
      Escape: () => player.reset(),
    });
    this.#acceptDrops();
    byId("backdrop").options[0].hidden = player.plate === null;
    byId("backdrop").value = player.plate === null ? "plain" : "plate";
    for (const id of ["sound", "microphone"]) byId(id).hidden = !player.speech;
    byId("record").hidden = !globalThis.MediaRecorder;
    this.#showState();
  }

  async #try(action) {
    try {
      this.tell("");
      await action();
    } catch (error) {
      this.tell(error.message);
    }
  }

  /** Say something to the person, without taking the picture away. */
  tell(text) {
    byId("note").textContent = text;
    byId("note").hidden = !text;
  }

  async #open(file) {
    byId("file").value = "";
    if (!file) return;
    if (!/\.json$/i.test(file.name)) return this.player.speak(file);
    let motion;
    try {
      motion = JSON.parse(await file.text());
    } catch {
      throw new ViewerError(`${file.name} is not a motion; choose one of avatar3d motion convert.`);
    }
    return this.player.playMotion(motion);
  }

  async #savePicture() {
    const { width, height } = this.player.canvas;
    save(await this.player.picture(width, height), `${this.name}.png`);
  }

  async #record() {
    if (!this.player.recorder) return this.player.record();
    const film = await this.player.stopRecording();
    if (film) save(film, `${this.name}.${film.type.includes("mp4") ? "mp4" : "webm"}`);
  }

  #setBackground() {
    const kind = byId("backdrop").value;
    byId("color").hidden = kind !== "color";
    this.player.canvas.classList.toggle("checked", kind === "transparent");
    this.player.setView({
      background: { plate: true, plain: false, color: byId("color").value }[kind] ?? kind,
    });
  }

  #addPresets() {
    const names = this.player.performer.names;
    for (const [title, weights] of Object.entries(PRESETS)) {
      const button = element("button", { type: "button", textContent: title });
      button.addEventListener("click", () => {
        const all = Object.fromEntries(names.map((name) => [name, null]));
        for (const [name, value] of Object.entries(weights)) {
          const sides = [name, `${name}Left`, `${name}Right`].filter((n) => names.includes(n));
          for (const side of sides) all[side] = value;
        }
        this.player.setExpression(all);
      });
      byId("presets").append(button);
    }
  }

  #acceptDrops() {
    addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dropping");
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dropping");
    });
    addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dropping");
      this.#try(() => this.#open(event.dataTransfer.files[0]));
    });
  }

  #showFace(face) {
    this.panel.show(face);
    const { time } = this.player.performer;
    byId("seek").value = time;
    const seconds = String(Math.floor(time % 60)).padStart(2, "0");
    byId("clock").textContent = `${Math.floor(time / 60)}:${seconds}`;
  }

  #showState() {
    const { performer, microphone, recorder } = this.player;
    byId("play").textContent = performer.playing ? "Pause" : "Play";
    byId("record").textContent = recorder ? "Stop filming" : "Film";
    press("play", performer.playing);
    press("idle", performer.idling);
    press("microphone", microphone !== null);
    press("record", recorder !== null);
    for (const id of ["play", "clock", "seek-label"]) byId(id).hidden = !performer.motion;
    byId("seek").max = performer.duration;
  }
}

/** @param {string} id @returns {any} */
function byId(id) {
  return document.getElementById(id);
}

function press(id, on) {
  byId(id).setAttribute("aria-pressed", String(on));
}

/** Hand a file to the person. */
function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

async function start() {
  const message = byId("message");
  try {
    const content = await contentOfPage();
    for (const id of ["panel", "bar", "badge"]) byId(id).hidden = false;
    const player = new Player(byId("frame"), byId("canvas"), content);
    new Page(player, content);
    message.hidden = true;
    return player;
  } catch (error) {
    message.setAttribute("role", "alert");
    message.textContent = error instanceof ViewerError ? error.message
      : `The avatar cannot be shown: ${error.message}`;
    throw error;
  }
}

const started = start();
/** @type {any} */ (window).avatar3d = {
  ready: started.then(() => undefined),
  ...Object.fromEntries(METHODS.map((name) =>
    [name, async (...parameters) => (await started)[name](...parameters)])),
};
