/**
 * The mouth that goes with a sound: log-mel bands of 16 kHz sound, a small network that
 * tools/train_viewer_speech.py taught, and the ARKit weights of avatar3d/motion/articulation.py.
 */

const SPEECH_RATE = 16000, SPEECH_WINDOW = 800, SPEECH_FFT = 1024;
const SPEECH_BANDS = 20, SPEECH_FPS = 50;
/** Seconds around a moment that the network hears; the last is how late a live mouth is. */
const SPEECH_OFFSETS = [-0.16, -0.12, -0.08, -0.04, 0, 0.04, 0.08];
const SPEECH_FLOOR = 1e-6, LOUD = 0.1, MOST_GAIN = 100;
const BELOW_LOUD = 2.8 * Math.LN10; // 28 dB under the loud parts may still be speech
const GATE_LEAD = 0.1, GATE_TAIL = 0.14; // seconds

class SpeechMouth {
  /** @param {Arrays} arrays of `loadPayload`. @param {string[]} names of the expressions. */
  constructor(arrays, names) {
    this.arrays = arrays;
    this.names = names;
    this.window = Float32Array.from({ length: SPEECH_WINDOW },
      (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SPEECH_WINDOW));
    this.real = new Float32Array(SPEECH_FFT);
    this.imaginary = new Float32Array(SPEECH_FFT);
    this.forget();
  }

  /** Begin with another live voice. */
  forget() {
    this.live = { mean: this.arrays.speech_mean.slice(), heard: 2, loud: 0.02, open: 0 };
    this.live.square = this.arrays.speech_std.map((s, i) => s * s + this.live.mean[i] ** 2);
  }

  /**
   * The mouth for a whole sound.
   * @param {Float32Array} samples at 16 kHz.
   * @returns {{fps: number, frames: number, weights: Float32Array}} 52 weights a frame.
   */
  perform(samples) {
    const frames = Math.max(1, Math.ceil((samples.length / SPEECH_RATE) * SPEECH_FPS));
    const gain = Math.min(LOUD / Math.max(loudness(samples), 1e-9), MOST_GAIN);
    const rows = Array.from({ length: frames }, (_, i) =>
      this.#bands(samples, Math.round((i * SPEECH_RATE) / SPEECH_FPS), gain));
    const levels = rows.map((row) => level(row));
    const loud = quantile(levels, 0.95), quiet = quantile(levels, 0.05);
    const active = levels.map((value) => loud - quiet > 1.4 && value > loud - BELOW_LOUD);
    const open = gate(active, SPEECH_FPS);
    const { mean, std } = this.#statistics(rows.filter((_, i) => active[i]));
    const clean = rows.map((row) => normalise(row, mean, std));
    const weights = new Float32Array(52 * frames);
    for (let i = 0; i < frames; i++) {
      const around = SPEECH_OFFSETS.map((offset) => between(clean, i + offset * SPEECH_FPS));
      weights.set(this.#arkit(this.#curves(around).map((curve) => curve * open[i])), 52 * i);
    }
    return { fps: SPEECH_FPS, frames, weights };
  }

  /**
   * The mouth for the end of a sound that goes on, 0.1 s late.
   * @param {Float32Array} recent at least the last 0.3 s at 16 kHz.
   * @param {number} seconds since the last call.
   * @returns {Float32Array} 52 weights.
   */
  follow(recent, seconds) {
    const { live } = this;
    const now = recent.length - SPEECH_WINDOW / 2 - SPEECH_OFFSETS.at(-1) * SPEECH_RATE;
    const gain = Math.min(LOUD / live.loud, MOST_GAIN);
    const rows = SPEECH_OFFSETS.map((offset) =>
      this.#bands(recent, Math.round(now + offset * SPEECH_RATE), gain));
    const loud = loudness(recent.subarray(-SPEECH_RATE / 10));
    // Rises within a word, falls within ten seconds of silence.
    live.loud = Math.max(live.loud + (loud - live.loud) * (1 - Math.exp(-seconds / (loud > live.loud ? 0.2 : 10))), 0.003);
    const active = loud > live.loud / 8;
    const pull = Math.exp(-seconds / (active ? GATE_LEAD / 2 : GATE_TAIL / 2));
    live.open = live.open * pull + (active ? 1 - pull : 0);
    if (active) {
      const share = seconds / (live.heard = Math.min(live.heard + seconds, 10));
      rows.at(-1).forEach((value, i) => {
        live.mean[i] += share * (value - live.mean[i]);
        live.square[i] += share * (value * value - live.square[i]);
      });
    }
    const std = live.square.map((s, i) => Math.sqrt(Math.max(s - live.mean[i] ** 2, 1e-4)));
    const around = rows.map((row) => normalise(row, live.mean, std));
    return this.#arkit(this.#curves(around).map((curve) => curve * live.open));
  }

  /** Mean and deviation of spoken rows, with two seconds of those of the training mixed in. */
  #statistics(rows) {
    const { speech_mean, speech_std } = this.arrays, prior = 2 * SPEECH_FPS;
    const total = rows.length + prior;
    const mean = speech_mean.map((value, i) =>
      rows.reduce((sum, row) => sum + row[i], prior * value) / total);
    const std = speech_std.map((value, i) =>
      Math.sqrt(rows.reduce((sum, row) => sum + (row[i] - mean[i]) ** 2, prior * value * value) / total));
    return { mean, std };
  }

  /** Log power in the bands around sample `center`. */
  #bands(samples, center, gain) {
    const { real, imaginary, window } = this, { speech_filters } = this.arrays;
    real.fill(0);
    imaginary.fill(0);
    const first = center - SPEECH_WINDOW / 2;
    for (let i = 0; i < SPEECH_WINDOW; i++) {
      real[i] = (samples[first + i] ?? 0) * gain * window[i];
    }
    fft(real, imaginary);
    const bands = new Float32Array(SPEECH_BANDS).fill(SPEECH_FLOOR);
    for (let k = 0; k <= SPEECH_FFT / 2; k++) {
      const power = real[k] * real[k] + imaginary[k] * imaginary[k];
      for (let b = 0; b < SPEECH_BANDS; b++) bands[b] += power * speech_filters[SPEECH_BANDS * k + b];
    }
    return bands.map(Math.log);
  }

  /** Jaw, rounding, spreading, part, tongue, closed, tucked: rows heard around a moment. */
  #curves(around) {
    let values = Float32Array.from(around.flatMap((row) => [...row]));
    for (let layer = 0; layer < 3; layer++) {
      const weight = this.arrays[`speech_weight${layer}`], bias = this.arrays[`speech_bias${layer}`];
      values = bias.map((sum, unit) => {
        for (let i = 0, at = unit * values.length; i < values.length; i++, at++) {
          sum += weight[at] * values[i];
        }
        return layer < 2 ? Math.max(sum, 0) : 1 / (1 + Math.exp(-sum));
      });
    }
    const { speech_gain, speech_bias } = this.arrays;
    return [...values].map((value, i) => clamp(speech_gain[i] * value + speech_bias[i], 0, 1));
  }

  /** avatar3d.motion.articulation.to_arkit of one frame. @param {number[]} curves */
  #arkit(curves) {
    let [jaw, rounding, spreading, part, tongue, closed, tucked] = curves;
    const free = 1 - Math.max(closed, 0.85 * tucked);
    [rounding, spreading, part, tongue] = [rounding, spreading, part, tongue].map((c) => c * free);
    jaw *= 0.34 * (1 - 0.9 * Math.max(closed, 0.7 * tucked));
    const both = (name, value) => ({ [`${name}Left`]: value, [`${name}Right`]: value });
    const put = {
      jawOpen: jaw, mouthClose: jaw * closed, mouthRollLower: 0.06 * closed + 0.5 * tucked,
      mouthRollUpper: 0.06 * closed, mouthPucker: 0.6 * rounding ** 1.5,
      mouthFunnel: 0.15 * rounding, tongueOut: 0.12 * tongue,
      ...both("mouthPress", 0.2 * closed), ...both("mouthStretch", 0.22 * spreading),
      ...both("mouthSmile", 0.14 * spreading), ...both("mouthLowerDown", 0.25 * part),
      ...both("mouthUpperUp", 0.14 * part + 0.12 * tucked),
    };
    return Float32Array.from(this.names, (name) => clamp(put[name] ?? 0, 0, 1));
  }
}

/** Sound at 16 kHz in one channel of an encoded file. */
async function decodeSpeech(data) {
  const decoder = new OfflineAudioContext(1, 1, SPEECH_RATE); // decodes to its own rate
  const buffer = await decoder.decodeAudioData(data);
  const samples = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    buffer.getChannelData(channel).forEach((value, i) => {
      samples[i] += value / buffer.numberOfChannels;
    });
  }
  return samples;
}

/** Linear interpolation; enough for a microphone whose upper octaves do not matter. */
function resampled(samples, from, to) {
  const ratio = from / to, count = Math.floor(samples.length / ratio);
  const reach = Math.max(1, Math.round(ratio));
  return Float32Array.from({ length: count }, (_, i) => {
    const start = Math.floor(i * ratio);
    let sum = 0;
    for (let k = 0; k < reach; k++) sum += samples[start + k] ?? 0;
    return sum / reach;
  });
}

/** Root mean square of the loud parts: the 95th percentile over windows of 25 ms. */
function loudness(samples) {
  const size = SPEECH_RATE / 40, levels = [];
  for (let first = 0; first < samples.length; first += size) {
    const piece = samples.subarray(first, first + size);
    levels.push(Math.sqrt(piece.reduce((sum, v) => sum + v * v, 0) / piece.length));
  }
  return quantile(levels, 0.95);
}

function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  if (!sorted.length) return 0;
  const position = share * (sorted.length - 1), low = Math.floor(position);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (position - low) * (sorted[high] - sorted[low]);
}

/** Log power in the range of voices. */
function level(row) {
  const voice = row.subarray(1, 15);
  return Math.log(voice.reduce((sum, value) => sum + Math.exp(value), 0) / voice.length);
}

function normalise(row, mean, std) {
  return row.map((value, i) => clamp((value - mean[i]) / (std[i] + 1e-3), -5, 5));
}

/** 1 while speaking, easing from and to 0 around it; gaps under 0.25 s belong to speech. */
function gate(active, fps) {
  const away = new Float32Array(active.length);
  let since = Infinity;
  const spoken = active.slice();
  for (let i = 0, last = -1; i < active.length; i++) {
    if (!active[i]) continue;
    if (last >= 0 && i - last <= 0.25 * fps + 1) spoken.fill(true, last, i);
    last = i;
  }
  for (let i = 0; i < spoken.length; i++) {
    since = spoken[i] ? 0 : since + 1;
    away[i] = 1 - since / fps / GATE_TAIL;
  }
  since = Infinity;
  for (let i = spoken.length - 1; i >= 0; i--) {
    since = spoken[i] ? 0 : since + 1;
    away[i] = smooth(Math.max(away[i], 1 - since / fps / GATE_LEAD));
  }
  return away;
}

/** Row at a fractional position of a list of rows. */
function between(rows, position) {
  const inside = clamp(position, 0, rows.length - 1), low = Math.floor(inside);
  const high = Math.min(low + 1, rows.length - 1), mix = inside - low;
  return rows[low].map((value, i) => value * (1 - mix) + rows[high][i] * mix);
}

/** In place, radix 2. */
function fft(real, imaginary) {
  const count = real.length;
  for (let i = 1, j = 0; i < count; i++) {
    let bit = count >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let size = 2; size <= count; size *= 2) {
    const half = size / 2;
    for (let k = 0; k < half; k++) {
      const angle = (-2 * Math.PI * k) / size, c = Math.cos(angle), s = Math.sin(angle);
      for (let a = k; a < count; a += size) {
        const b = a + half;
        const x = real[b] * c - imaginary[b] * s, y = real[b] * s + imaginary[b] * c;
        real[b] = real[a] - x;
        imaginary[b] = imaginary[a] - y;
        real[a] += x;
        imaginary[a] += y;
      }
    }
  }
}
