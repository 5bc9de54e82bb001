#!/usr/bin/env python3
"""Whether rendering for hours in one process loses memory, or sound drifts from the picture.

    python tools/soak.py AVATAR [--minutes 120] [--seconds 20] [--csv memory.csv]

Renders the avatar's captured motion with sound into a temporary mp4, over and over. The memory
held is read every few seconds; a line through what comes after the warm-up tells the growth. The
sound is a beep a second: decoded from each file, it must be where it was put, and picture k must be
shown at k over the frame rate. Exits with 1 if memory grows by more than 1 % or anything is more
than a frame away from its place, and with 2 if the time was too short to tell a growth of 1 %.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
import wave
from pathlib import Path

import numpy as np

_RATE = 48000
_BEEP = 0.02  # seconds
_MAX_GROWTH, _MAX_SKEW = 0.01, 1.0
_WARM = 0.25  # of the time: caches fill, threads start, the allocator settles


class Memory(threading.Thread):
    """Resident bytes of this process, every `step` seconds."""

    def __init__(self, step: float) -> None:
        super().__init__(daemon=True)
        self.step, self.samples, self.done = step, [], threading.Event()
        self.start_time = time.monotonic()

    def run(self) -> None:
        while not self.done.wait(self.step):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            since = time.monotonic() - self.start_time
            self.samples.append((since, pages * os.sysconf("SC_PAGE_SIZE")))

    def growth(self) -> tuple[float, float]:
        """Share by which memory grew after the warm-up, by least squares, and its deviation."""
        table = np.array(self.samples)
        table = table[table[:, 0] > _WARM * table[-1, 0]]
        times, held = table.T
        span = times[-1] - times[0]
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
    skews = soak(options.avatar, options.minutes * 60, options.seconds)
    memory.done.set()
    memory.join()
    if options.csv:
        rows = "".join(f"{second:.1f},{held}\n" for second, held in memory.samples)
        options.csv.write_text(f"second,bytes\n{rows}")
    growth, deviation = memory.growth()
    print(
        f"{len(skews)} videos in {memory.samples[-1][0] / 60:.1f} min: memory "
        f"{memory.samples[-1][1] / 1e6:.0f} MB, growth after warm-up {growth:+.2%} "
        f"(+- {deviation:.2%}), largest skew {max(skews):.2f} frames"
    )
    code, verdict = judged(growth, deviation, max(skews))
    print(verdict)
    return code


def judged(growth: float, deviation: float, skew: float) -> tuple[int, str]:
    """Exit code and verdict; a growth that is not known to the bar neither passes nor fails."""
    if skew > _MAX_SKEW:
        return 1, "failed: sound or picture is out of place"
    if not deviation <= _MAX_GROWTH:
        return 2, "too short to tell: the growth is not known to 1 %, render for longer"
    return (1, "failed: memory grows") if growth > _MAX_GROWTH else (0, "passed")


def soak(path: Path, duration: float, seconds: float) -> list[float]:
    """Render until `duration` is over; frames of skew in each video."""
    from avatar3d.avatar import load
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
