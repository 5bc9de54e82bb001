/** What is heard: the sound that goes with a motion, and the microphone. */

/** Sound of a Blob, an element that keeps the time. */
class Sound {
  /** @param {Blob} blob */
  constructor(blob) {
    this.url = URL.createObjectURL(blob);
    this.element = new Audio(this.url);
    this.element.preload = "auto";
    this.usable = true; // until the browser refuses to play it
  }

  /** @param {number} seconds where to begin. */
  play(seconds) {
    this.element.currentTime = seconds;
    this.element.play().catch(() => { this.usable = false; }); // e.g. before the first click
  }

  pause() {
    this.element.pause();
  }

  seek(seconds) {
    this.element.currentTime = seconds;
  }

  /** Seconds into the sound while it sounds, otherwise null. */
  get time() {
    return this.usable && !this.element.paused ? this.element.currentTime : null;
  }

  /** Tracks for a recorder, whether it sounds already or not. */
  tracks() {
    if (!this.stream) {
      const context = new AudioContext();
      const source = context.createMediaElementSource(this.element);
      const out = context.createMediaStreamDestination();
      source.connect(out);
      source.connect(context.destination);
      context.resume();
      this.stream = out.stream;
    }
    return this.stream.getAudioTracks();
  }

  release() {
    this.pause();
    URL.revokeObjectURL(this.url);
  }
}

/** The last moments that the microphone has heard. */
class Microphone {
  /** Asks the person for permission. @returns {Promise<Microphone>} */
  static async open() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new ViewerError(
        "This page may not use the microphone; open it from disk or over https.");
    }
    try {
      return new Microphone(await navigator.mediaDevices.getUserMedia({ audio: true }));
    } catch (error) {
      throw new ViewerError(error.name === "NotFoundError"
        ? "There is no microphone." : "The microphone was not allowed; allow it for this page.");
    }
  }

  /** @param {MediaStream} stream */
  constructor(stream) {
    this.stream = stream;
    this.context = new AudioContext();
    this.listener = this.context.createAnalyser();
    this.listener.fftSize = 16384; // at least 0.34 s
    this.context.createMediaStreamSource(stream).connect(this.listener);
    this.samples = new Float32Array(this.listener.fftSize);
  }

  /** Float32Array at 16 kHz. */
  recent() {
    this.listener.getFloatTimeDomainData(this.samples);
    return resampled(this.samples, this.context.sampleRate, SPEECH_RATE);
  }

  tracks() {
    return this.stream.getAudioTracks();
  }

  close() {
    for (const track of this.stream.getTracks()) track.stop();
    this.context.close();
  }
}

/** A film of a canvas, with sound if there is any. */
class Recorder {
  /** @param {HTMLCanvasElement} canvas @param {MediaStreamTrack[]} tracks of sound. */
  constructor(canvas, tracks) {
    const type = ["video/webm;codecs=vp9,opus", "video/webm;codecs=vp8,opus", "video/webm", "video/mp4"]
      .find((kind) => globalThis.MediaRecorder?.isTypeSupported(kind));
    if (!type || !canvas.captureStream) throw new ViewerError("This browser cannot record video.");
    const stream = canvas.captureStream(30);
    for (const track of tracks) stream.addTrack(track);
    this.pieces = [];
    this.recorder = new MediaRecorder(stream, { mimeType: type, videoBitsPerSecond: 8e6 });
    this.recorder.ondataavailable = ({ data }) => this.pieces.push(data);
    this.recorder.start(500);
  }

  /** @returns {Promise<Blob>} the whole film. */
  stop() {
    return new Promise((done) => {
      this.recorder.onstop = () => done(new Blob(this.pieces, { type: this.recorder.mimeType }));
      this.recorder.stop();
    });
  }
}
