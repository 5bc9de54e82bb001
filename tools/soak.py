#!/usr/bin/env python3
"""Whether rendering for hours in one process loses memory, or sound drifts from the picture.

    python tools/soak.py AVATAR [--minutes 120] [--seconds 20] [--csv memory.csv]

Renders the avatar's captured motion with sound into a temporary mp4, over and over. The memory
held is read every few seconds, and once after every video; a line through what comes after the
warm-up tells the growth of both: of what work takes, and of what is left when it is done. The
sound is a beep a second: decoded from each file, it must be where it was put, and picture k must be
shown at k over the frame rate. Exits with 1 if memory grows by more than 1 % or anything is more
than a frame away from its place, and with 2 if the time was too short to tell a growth of 1 %.
How much is taken during a video depends on how many frames wait for the encoder, and so on what
else the machine does; give it a quiet one.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np

_RATE = 48000
_BEEP = 0.02  # seconds
_MAX_GROWTH, _MAX_SKEW = 0.01, 1.0
_WARM = 0.25  # of the time: caches fill, threads start, the allocator settles
_STRETCHES = 24


class Memory(threading.Thread):
    """Seconds and resident bytes of this process: every `step` seconds, and whenever asked."""

    def __init__(self, step: float) -> None:
        super().__init__(daemon=True)
        self.step, self.done = step, threading.Event()
        self.working: list[tuple[float, int]] = []
        self.resting: list[tuple[float, int]] = []
        self.start_time = time.monotonic()

    def run(self) -> None:
        while not self.done.wait(self.step):
            self.working.append(self.now())

    def rest(self) -> None:
        """Note what is held now that a video is done."""
        self.resting.append(self.now())

    def now(self) -> tuple[float, int]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return time.monotonic() - self.start_time, pages * os.sysconf("SC_PAGE_SIZE")


def growth(samples: list[tuple[float, int]]) -> tuple[float, float]:
    """Share by which memory grew after the warm-up, by least squares, and its deviation.

    Neighbouring samples are of the same video and say nearly the same: taken for independent they
    would make the line look surer than it is. So it goes through the means of stretches of time.
    """
    table = np.array(samples, float)
    table = table[table[:, 0] > _WARM * table[-1, 0]]
    parts = np.array_split(table, min(_STRETCHES, len(table)))
    times, held = np.array([part.mean(0) for part in parts]).T
    span = table[-1, 0] - table[0, 0]
    (slope, _), covariance = np.polyfit(times - times.mean(), held / held.mean(), 1, cov=True)
    return float(slope * span), float(np.sqrt(covariance[0, 0]) * span)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seconds", type=float, default=20, help="of each video")
    parser.add_argument("--step", type=float, default=2, help="seconds between looks at memory")
    parser.add_argument("--csv", type=Path, help="where to write second,bytes")
    options = parser.parse_args()
    if options.minutes * 60 * (1 - _WARM) < 5 * options.step:
        parser.error("that is too short to tell a growth")
    memory = Memory(options.step)
    memory.start()
    skews = soak(options.avatar, options.minutes * 60, options.seconds, memory.rest)
    memory.done.set()
    memory.join()
    kinds = {"while rendering": memory.working, "after a video": memory.resting}
    if options.csv:
        rows = (f"{second:.1f},{held},{kind}\n" for kind in kinds for second, held in kinds[kind])
        options.csv.write_text("second,bytes,when\n" + "".join(rows))
    print(f"{len(skews)} videos in {memory.working[-1][0] / 60:.1f} min")
    worst = 0
    for kind, samples in kinds.items():
        grown, deviation = growth(samples)
        code, verdict = judged(grown, deviation)
        held = np.mean([held for _, held in samples]) / 1e6
        print(f"memory {kind}: {held:.0f} MB, {grown:+.2%} (+- {deviation:.2%}), {verdict}")
        worst = code if worst in (0, code) else 1
    print(f"largest skew: {max(skews):.2f} frames")
    return 1 if max(skews) > _MAX_SKEW else worst


def judged(growth: float, deviation: float) -> tuple[int, str]:
    """Exit code and verdict; a growth that is not known to the bar neither passes nor fails."""
    if not deviation <= _MAX_GROWTH:
        return 2, "too short to tell: not known to 1 %, render for longer"
    return (1, "failed: it grows") if growth > _MAX_GROWTH else (0, "passed")


def soak(path: Path, duration: float, seconds: float, rest: Callable[[], None]) -> list[float]:
    """Render until `duration` is over, `rest` after each; frames of skew in each video."""
    from avatar3d.avatar import load
    from avatar3d.memory import give_memory_back
    from avatar3d.rendering import render

    avatar = load(path)
    fps = avatar.idle_motion.fps
    motion = avatar.idle_motion.at(np.arange(round(seconds * fps)))
    skews: list[float] = []
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="avatar3d-soak-") as folder:
        sound, video = Path(folder) / "beeps.wav", Path(folder) / "video.mp4"
        write_beeps(sound, beeps(len(motion) / fps))
        while not skews or time.monotonic() - start < duration:
            render(avatar, motion, video, audio=sound)
            skews.append(skew(video, len(motion), fps))
            give_memory_back()  # the decoder's: it is of this measurement
            rest()
            since = time.monotonic() - start
            print(f"{since:8.0f} s  video {len(skews)}, skew {skews[-1]:.2f} frames", flush=True)
    return skews


def beeps(seconds: float) -> np.ndarray:
    """Where the beeps begin, in seconds: also close to the end, where a drift is largest."""
    return np.arange(0.5, seconds - 2 * _BEEP, 1.0)


def write_beeps(path: Path, starts: np.ndarray) -> None:
    samples = np.zeros(round((starts[-1] + 1) * _RATE), np.int16)
    tone = 20000 * np.sin(2 * np.pi * 1000 * np.arange(round(_BEEP * _RATE)) / _RATE)
    for start in starts:
        first = round(start * _RATE)
        samples[first : first + len(tone)] = tone
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes(samples.tobytes())


def skew(path: Path, count: int, fps: float) -> float:
    """Frames by which a picture or a beep is away from its place, at most."""
    import av

    with av.open(str(path)) as container:
        shown = sorted(
            float(packet.pts * packet.time_base)
            for packet in container.demux(video=0)
            if packet.pts is not None
        )
    with av.open(str(path)) as container:
        heard = np.zeros(round((count / fps + 1) * _RATE), np.float32)
        for frame in container.decode(audio=0):
            first, samples = round(frame.time * _RATE), frame.to_ndarray()[0]
            if frame.sample_rate != _RATE or first < 0:
                raise RuntimeError(f"{path}: {frame.sample_rate} Hz, from sample {first}")
            heard[first : first + len(samples)] = samples
    if len(shown) != count:
        raise RuntimeError(f"{path} has {len(shown)} of {count} pictures")
    late = [abs(time - place / fps) for place, time in enumerate(shown)]
    late += [abs(_onset(heard, start) - start) for start in beeps(count / fps)]
    return max(late) * fps


def _onset(heard: np.ndarray, expected: float) -> float:
    """Where the beep nearest to `expected` begins, to half a second."""
    first = round((expected - 0.5) * _RATE)
    loud = np.abs(heard[first : first + _RATE]) > 0.2
    return (first + int(loud.argmax())) / _RATE if loud.any() else np.inf


if __name__ == "__main__":
    sys.exit(main())
