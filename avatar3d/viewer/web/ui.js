/** The controls beside the picture. They read and write a `Performer` and a `ViewCamera`. */

const DEGREE = Math.PI / 180;
/** @type {[string, RegExp][]} */
const GROUPS = [
  ["Jaw", /^jaw/], ["Mouth", /^mouth/], ["Tongue", /^tongue/], ["Eyes", /^eye/],
  ["Brows", /^brow/], ["Cheeks and nose", /^(cheek|nose)/],
];
const OPEN_AT_FIRST = ["Head", "Jaw"];

class Panel {
  /**
   * @param {Performer} performer
   * @param {Arrays} arrays of `loadPayload`, for the ranges seen in the recording.
   * @param {() => void} changed called after the person has set something.
   */
  constructor(performer, arrays, changed) {
    this.performer = performer;
    this.controls = [];
    const parent = document.getElementById("controls");
    const group = (title, specs) => parent.append(this.#group(title, specs, changed));
    group("Head", POSE_AXES.map((axis) => ({
      name: axis, label: { yaw: "Turn (yaw)", pitch: "Nod (pitch)", roll: "Tilt (roll)" }[axis],
      ...degreeScale(40),
      set: (value) => performer.setPose({ [axis]: value }),
      held: () => axis in performer.pose,
      read: (face) => face.angles[POSE_AXES.indexOf(axis)],
    })));
    group("Gaze", GAZE_AXES.map((axis, i) => ({
      name: `gaze ${axis}`, label: { yaw: "Look left or right", pitch: "Look up or down" }[axis],
      ...degreeScale(30),
      set: (value) => performer.setGaze({ [axis]: value }),
      held: () => axis in performer.gaze,
      read: (face) => (face.gaze[i] + face.gaze[i + 2]) / 2,
    })));
    for (const [title, pattern] of GROUPS) {
      const names = performer.names.filter((name) => pattern.test(name));
      group(title, names.map((name) => {
        const row = performer.names.indexOf(name);
        return {
          name, label: readable(name), low: 0, high: 1, unit: 1, digits: 2, suffix: "",
          seen: [arrays.signal_min[row], arrays.signal_max[row]],
          set: (value) => performer.setExpression(name, value),
          held: () => performer.expression.has(row),
          read: (face) => face.weights[row],
        };
      }));
    }
    const search = /** @type {HTMLInputElement} */ (document.getElementById("search"));
    search.addEventListener("input", () => this.#filter(search.value));
  }

  /** Show the values of `face` in every control that is not being dragged. */
  show(face) {
    for (const { spec, input, output, row } of this.controls) {
      const value = spec.read(face) / spec.unit;
      input.value = value;
      output.textContent = fixed(value, spec.digits) + spec.suffix;
      row.classList.toggle("held", spec.held());
    }
  }

  #group(title, specs, changed) {
    const details = element("details", { open: OPEN_AT_FIRST.includes(title) });
    details.append(element("summary", { textContent: title }));
    for (const spec of specs) details.append(this.#control(spec, changed));
    return details;
  }

  #control(spec, changed) {
    const id = `control-${spec.name.replace(/\W/g, "-")}`;
    const row = element("div", { className: "control", title: spec.name });
    row.dataset.search = `${spec.name} ${spec.label}`.toLowerCase();
    const label = element("label", { htmlFor: id, textContent: spec.label });
    const output = element("output", { htmlFor: id });
    const input = element("input", {
      id, type: "range", min: spec.low, max: spec.high, step: 0.01, value: 0,
    });
    const release = element("button", { type: "button", textContent: "×" });
    release.setAttribute("aria-label", `Reset ${spec.label}`);
    input.addEventListener("input", () => { spec.set(input.value * spec.unit); changed(); });
    release.addEventListener("click", () => { spec.set(null); changed(); input.focus(); });
    row.append(label, output, release, input);
    if (spec.seen) {
      const bar = element("div", { className: "seen", ariaHidden: "true" });
      const [from, to] = spec.seen.map((v) => `${100 * clamp(v, 0, 1)}%`);
      bar.style.setProperty("--from", from);
      bar.style.setProperty("--to", to);
      bar.title = `In the recording: ${spec.seen.map((v) => v.toFixed(2)).join(" to ")}`;
      row.append(bar);
    }
    this.controls.push({ spec, input, output, row });
    return row;
  }

  /** Hide what does not match; open every group while something is being looked for. */
  #filter(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    /** @type {NodeListOf<HTMLDetailsElement>} */
    const groups = document.querySelectorAll("#controls details");
    for (const details of groups) {
      /** @type {HTMLElement[]} */
      const rows = Array.from(details.querySelectorAll(".control"));
      for (const row of rows) row.hidden = !words.every((word) => row.dataset.search.includes(word));
      details.hidden = rows.every((row) => row.hidden);
      if (words.length) details.open = true;
    }
  }
}

/**
 * Let the pointer, the wheel and the keys on `canvas` change `camera`.
 * @param {HTMLCanvasElement} canvas
 * @param {ViewCamera} camera
 * @param {() => void} changed
 * @param {Object<string, () => void>} keys what further keys do, wherever the focus is.
 */
function steer(canvas, camera, changed, keys) {
  const pointers = new Map();
  const spread = () => {
    const [a, b] = [...pointers.values()];
    return { distance: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  };
  const inPicture = (x, y) => {
    const box = canvas.getBoundingClientRect();
    return [(x - box.left) / box.width, (y - box.top) / box.height];
  };
  const shift = (dx, dy) => {
    camera.shift[0] += (dx * camera.width) / canvas.clientWidth;
    camera.shift[1] += (dy * camera.height) / canvas.clientHeight;
  };
  const orbit = (dx, dy) => camera.orbit(camera.azimuth - dx, camera.elevation + dy);

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  canvas.addEventListener("pointermove", (event) => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const before = pointers.size === 2 ? spread() : null;
    const dx = event.clientX - last.x, dy = event.clientY - last.y;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (before) {
      const after = spread();
      camera.zoomBy(after.distance / Math.max(before.distance, 1), ...inPicture(after.x, after.y));
      shift(after.x - before.x, after.y - before.y);
    } else if (event.shiftKey || event.buttons & 6) shift(dx, dy);
    else orbit(dx / 200, dy / 200);
    changed();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (/** @type {any} */ event) => pointers.delete(event.pointerId));
  }
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    camera.zoomBy(Math.exp(-pixels / 500), ...inPicture(event.clientX, event.clientY));
    changed();
  }, { passive: false });
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [dx, dy] = arrows[event.key] ?? [];
    if (dx !== undefined && event.shiftKey) shift(20 * dx, 20 * dy);
    else if (dx !== undefined) orbit(0.05 * dx, 0.05 * dy);
    else if ("+=".includes(event.key)) camera.zoomBy(1.15);
    else if (event.key === "-") camera.zoomBy(1 / 1.15);
    else return;
    event.preventDefault();
    changed();
  });
  addEventListener("keydown", (/** @type {any} */ event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const action = keys[event.key];
    // Controls keep the keys that work them.
    if (!action || event.target.closest?.("input, select, button, summary, textarea")) return;
    event.preventDefault();
    action();
  });
}

function degreeScale(degrees) {
  return { low: -degrees, high: degrees, unit: DEGREE, digits: 0, suffix: "°" };
}

/** `value.toFixed(digits)` without a minus before zero. */
function fixed(value, digits) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : text;
}

/** "mouthSmileLeft" to "Mouth smile left". */
function readable(name) {
  const words = name.replace(/([A-Z])/g, " $1").toLowerCase();
  return words[0].toUpperCase() + words.slice(1);
}

function element(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}
