#!/usr/bin/env python3
"""Kill trainings, exports and renderings at random moments; the same command must finish each.

    python tools/kill_runs.py SUBJECT AVATAR [--kills 40] [--seed 0] [key=value ...]

The settings are those of the training. After every kill all final files must be readable and the
newest checkpoint no older than 15 s of work; at the end nothing half-written may be left. Captures:
`kill_capture.py`. Exit code 0 if all is well.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PROGRAM = "from avatar3d.cli import main; main()"
_LOST_SECONDS = 15.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("subject", type=Path)
    parser.add_argument("avatar", type=Path, help="any avatar, for exporting and rendering")
    parser.add_argument("--kills", type=int, default=40, help="half in training, half elsewhere")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("settings", nargs="*", help="of training, as key=value")
    options = parser.parse_intermixed_args()
    rng, problems = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory(prefix="avatar3d-kill-") as name:
        folder = Path(name)
        train = ["train", str(options.subject), "-o", str(folder / "a.a3d"), *options.settings]
        problems += killed(train, folder / "a.a3d", options.kills // 2, rng)
        others = [["export", str(options.avatar), "-o", f"{folder}/b.{s}"] for s in _SUFFIXES]
        others.append(
            ["render", str(options.avatar), "--motion", "captured", "-o", f"{folder}/b.mp4"]
        )
        for command in others:
            target = Path(command[-1])
            problems += killed(command, target, options.kills // 2 // len(others), rng)
        left = list(folder.rglob("*.partial-*"))
        print(f"left behind at the end: {left or 'nothing'}; {problems} problems")
    return 1 if problems or left else 0


_SUFFIXES = ("html", "ply", "glb")


def killed(arguments: list[str], target: Path, kills: int, rng: random.Random) -> int:
    """Run once to the end for its duration, then with kills, then to the end; count problems."""
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    begun = time.monotonic()
    if target.suffix != ".a3d":  # a training would be finished by it
        subprocess.run(command, check=True, **quiet)
    duration = time.monotonic() - begun if target.suffix != ".a3d" else 30.0
    problems = 0
    for number in range(kills):
        process = subprocess.Popen(command, **quiet)
        started = time.time()
        pause = rng.uniform(0.3, 1.0) * duration
        try:
            process.wait(pause)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        wrong = unreadable(target) or lost(target, started)
        problems += bool(wrong)
        print(
            f"{target.name}: kill {number + 1} after {pause:.1f} s: {wrong or 'sound'}", flush=True
        )
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not target.exists():
        print(f"{target.name} could not be finished: {done.stderr[-400:]}")
        return problems + 1
    return problems + bool(unreadable(target))


def unreadable(target: Path) -> str:
    """What is wrong with the final file and the checkpoints; empty if nothing is."""
    from avatar3d.provenance import verify

    if target.exists() and verify(target).state != "valid":
        return f"{target.name} is {verify(target).state}"
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    for path in target.with_suffix(".run").rglob("checkpoint-*.safetensors"):
        try:
            load_file(path)
        except (SafetensorError, OSError) as error:
            return f"{path.name}: {error}"
    return ""


def lost(target: Path, started: float) -> str:
    """Whether more work was lost than allowed: since the last checkpoint, or since the start."""
    if target.suffix != ".a3d" or target.exists():
        return ""
    saved = [p.stat().st_mtime for p in target.with_suffix(".run").rglob("checkpoint-*")]
    age = time.time() - max([started, *saved])
    # A process that has not saved yet was still reading, which is done again in seconds.
    return (
        f"{age:.0f} s of work lost"
        if age > _LOST_SECONDS and max(saved, default=0) > started
        else ""
    )


if __name__ == "__main__":
    sys.exit(main())
