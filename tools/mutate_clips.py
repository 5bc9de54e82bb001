#!/usr/bin/env python3
"""Damage a clip in many ways and containers, and see that the check never crashes over it.

    python tools/mutate_clips.py VIDEO [--count 200] [--seed 0] [--capture 0] [--keep FOLDER]

Each damaged file must give a verdict or one sentence within a minute and 3 GB, and nothing may be
left behind. With `--capture N`, N of the files are captured as well. Exit code 0 if all is well.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

_KINDS = {
    "mp4": ("libx264", "aac", {"movflags": "+faststart"}),
    "mov": ("mjpeg", "pcm_s16le", {}),  # its tables are at the end
    "mkv": ("libx264", "libopus", {}),
    "webm": ("libvpx", "libopus", {}),
    "avi": ("mpeg4", "libmp3lame", {}),
    "ts": ("mpeg2video", "mp2", {}),
}
"""Container to codecs of picture and sound, and options of the container."""
_SECONDS, _GIGABYTES = 60, 3.0
_BATCH = 16
_TABLES = 4000
_PROGRAM = """
import faulthandler, json, resource, sys, time
from pathlib import Path
from avatar3d.capture import CaptureConfig, capture, check
from avatar3d.errors import UserError
faulthandler.enable()
seconds, captures, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
config = CaptureConfig(size=128, identity_frames=10, chunk=32, detector="solutions")
for number, path in enumerate(map(Path, sys.argv[4:])):
    started = time.monotonic()
    faulthandler.dump_traceback_later(seconds * (1 if number >= captures else 5), exit=True)
    try:
        if number < captures:
            capture(path, folder / "subject", config)
            said = "captured"
        else:
            said = check(path, config, folder / "page.html").verdict
    except UserError as error:
        said = str(error)
    faulthandler.cancel_dump_traceback_later()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps([path.name, said, time.monotonic() - started, peak]), flush=True)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("video", type=Path, help="a short clip of a face, with sound")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--capture", type=int, default=0, help="how many to capture as well")
    parser.add_argument("--keep", type=Path, help="folder for files that did harm")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="avatar3d-mutants-") as name:
        folder = Path(name)
        files = mutants(options.video, folder, options.count, options.seed)
        answers, harm = examine(files, options.capture)
        for path in files:
            if path.name in harm and options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, options.keep)
    return summary(answers, harm)


def mutants(video: Path, folder: Path, count: int, seed: int) -> list[Path]:
    """`count` damaged copies, after one whole copy in each container."""
    whole = [encoded(video, folder / f"whole.{suffix}") for suffix in _KINDS]
    rng = np.random.default_rng(seed)
    files = list(whole)
    for number in range(count):
        source = whole[number % len(whole)]
        name, damage = _DAMAGES[number // len(whole) % len(_DAMAGES)]
        path = folder / f"{number:04d}-{name}{source.suffix}"
        path.write_bytes(damage(np.fromfile(source, np.uint8), rng).tobytes())
        files.append(path)
    return files


def encoded(video: Path, path: Path) -> Path:
    """The clip in another container, by PyAV alone."""
    import av

    picture_codec, sound_codec, options = _KINDS[path.suffix[1:]]
    with av.open(str(video)) as source, av.open(str(path), "w", options=options) as target:
        given = source.streams.video[0]
        picture = target.add_stream(picture_codec, rate=Fraction(given.average_rate))
        picture.width, picture.height = given.width, given.height
        picture.pix_fmt = "yuvj420p" if picture_codec == "mjpeg" else "yuv420p"
        sound = target.add_stream(sound_codec, rate=48000, layout="mono")
        resampler = av.AudioResampler(sound.format, "mono", 48000, sound.frame_size or None)
        for frame in source.decode(video=0):
            frame.pict_type = 0
            target.mux(picture.encode(frame.reformat(format=picture.pix_fmt)))
        target.mux(picture.encode(None))
        source.seek(0)
        for piece in [*source.decode(audio=0), None]:
            for frame in resampler.resample(piece):
                target.mux(sound.encode(frame))
        target.mux(sound.encode(None))
    return path


def examine(files: list[Path], captures: int) -> tuple[dict[str, Any], dict[str, str]]:
    """What was said about each file, and what is wrong with that, both by name.

    Processes of their own look at a few files each: one that dies is replaced.
    """
    answers: dict[str, Any] = {}
    harm: dict[str, str] = {}
    left = list(files)
    while left:
        batch, scratch = left[:_BATCH], files[0].parent / "scratch"
        scratch.mkdir()
        captured = sum(1 for path in batch if files.index(path) < captures)
        command = [sys.executable, "-c", _PROGRAM, str(_SECONDS), str(captured), str(scratch)]
        done = subprocess.run([*command, *map(str, batch)], capture_output=True, text=True)
        told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        for name, said, seconds, peak in told:
            answers[name] = said
            if problem := _problem(name, said, seconds, peak):
                harm[name] = problem
        if done.returncode and len(told) < len(batch):
            name = batch[len(told)].name
            harm[name] = f"exit code {done.returncode}: {done.stderr[-1500:]}"
        stray = {path.name for path in scratch.iterdir()} - {"page.html", "subject"}
        if stray:
            harm[batch[0].name] = f"this one or one soon after left {sorted(stray)} behind"
        shutil.rmtree(scratch)
        left = left[len(told) + bool(done.returncode and len(told) < len(batch)) :]
        print(f"{len(files) - len(left)} of {len(files)}, {len(harm)} harmful", flush=True)
    return answers, harm


def _problem(name: str, said: str, seconds: float, peak: float) -> str:
    sentence = name in said and said.endswith(".") and "\n" not in said and len(said) < 400
    if said not in ("good", "limits", "fail", "captured") and not sentence:
        return f"said {said!r}"
    if name.startswith("whole") and said not in ("good", "limits", "captured"):
        return f"is whole, but {said!r}"
    return f"took {peak:.1f} GB" if peak > _GIGABYTES else ""


def summary(answers: dict[str, str], harm: dict[str, str]) -> int:
    """Print how often what was said; 0 if nothing was wrong."""
    kinds: Counter[str] = Counter()
    for name, said in answers.items():
        folders = [word for word in said.split() if name in word]
        kinds[said.replace(folders[0], "FILE") if folders else said] += 1
    for said, count in kinds.most_common():
        print(f"{count:5d}  {said}")
    for name, problem in harm.items():
        print(f"HARM   {name}: {problem}")
    return 1 if harm else 0


def _cut(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return data[: rng.integers(16, len(data))]


def _flip(data: np.ndarray, rng: np.random.Generator, places: np.ndarray) -> np.ndarray:
    data[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
    return data


def _flip_anywhere(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _flip(data, rng, rng.integers(0, len(data), int(10 ** rng.uniform(0, 3))))


def _flip_head(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    places = rng.integers(0, min(_TABLES, len(data)), int(10 ** rng.uniform(0, 2)))
    return _flip(data, rng, places)


def _flip_tail(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    places = len(data) - rng.integers(1, min(_TABLES, len(data)), int(10 ** rng.uniform(0, 2)))
    return _flip(data, rng, places)


def _blank(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    first, length = rng.integers(0, len(data)), int(10 ** rng.uniform(1, 4.5))
    data[first : first + length] = rng.integers(0, 2) * 255
    return data


def _lose(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    first, length = rng.integers(0, len(data)), int(10 ** rng.uniform(0, 4.5))
    return np.delete(data, slice(first, first + length))


def _repeat(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    first, length = rng.integers(0, len(data)), int(10 ** rng.uniform(0, 4.5))
    return np.insert(data, first, data[first : first + length])


def _noise(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    first, length = rng.integers(0, len(data)), int(10 ** rng.uniform(0, 4))
    data[first : first + length] = rng.integers(0, 256, len(data[first : first + length]))
    return data


_DAMAGES: tuple[tuple[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]], ...] = (
    ("cut", _cut), ("head", _flip_head), ("flips", _flip_anywhere), ("tail", _flip_tail),
    ("blank", _blank), ("lost", _lose), ("twice", _repeat), ("noise", _noise),
)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
