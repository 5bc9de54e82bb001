#!/usr/bin/env python3
"""Kill trainings, exports and renderings at random moments; the same command must finish each.

    python tools/kill_runs.py SUBJECT AVATAR [--kills 70] [--seed 0] [key=value ...]

The settings are those of the training. Of the kills, two sevenths come at any moment of a training
and two while its result is being written; the rest are shared by exports and a rendering. After
each, all final files must be readable, no process may be left, and the newest checkpoint must be
no older than 15 s of work; at the end nothing half-written may be left. Captures:
`kill_capture.py`. Exit code 0 if all is well.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PROGRAM = "from avatar3d.cli import main; main()"
_LOST_SECONDS = 15.0
_SUFFIXES = ("html", "ply", "glb")
_QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
_WRITING = 0.06  # seconds that writing a small file takes
_MARK = "AVATAR3D_KILLED_BY"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("subject", type=Path)
    parser.add_argument("avatar", type=Path, help="any avatar, for exporting and rendering")
    parser.add_argument("--kills", type=int, default=70)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("settings", nargs="*", help="of training, as key=value")
    options = parser.parse_intermixed_args()
    rng, problems, share = random.Random(options.seed), 0, options.kills // 7
    with tempfile.TemporaryDirectory(prefix="avatar3d-kill-") as name:
        folder = Path(name)
        train = ["train", str(options.subject), "-o", str(folder / "a.a3d"), *options.settings]
        problems += killed(train, folder / "a.a3d", 2 * share, rng)
        save = ["train", str(options.subject), "-o", str(folder / "s.a3d"), *options.settings]
        problems += killed(save, folder / "s.a3d", 2 * share, rng, writing=True)
        others = [["export", str(options.avatar), "-o", f"{folder}/b.{s}"] for s in _SUFFIXES]
        others.append(
            ["render", str(options.avatar), "--motion", "captured", "-o", f"{folder}/b.mp4"]
        )
        rest = options.kills - 4 * share
        for number, command in enumerate(others):
            kills = rest // len(others) + (number < rest % len(others))
            problems += killed(command, Path(command[-1]), kills, rng)
        left = list(folder.rglob("*.partial-*"))
        print(f"left behind at the end: {left or 'nothing'}; {problems} problems")
    return 1 if problems or left else 0


def killed(
    arguments: list[str], target: Path, kills: int, rng: random.Random, writing: bool = False
) -> int:
    """Run once to the end for its duration, then with kills, then to the end; count problems."""
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    mark = f"{os.getpid()}-{target.name}"
    environment = os.environ | {_MARK: mark}
    begun = time.monotonic()
    subprocess.run(command, check=True, env=environment, **_QUIET)
    duration = time.monotonic() - begun
    problems = 0
    for number in range(kills):
        if target.suffix == ".a3d":  # a finished training has nothing left to do
            target.unlink(missing_ok=True)
            if number % 3 == 0:
                forget(target.with_suffix(".run"))
        started = time.time()
        process = subprocess.Popen(command, env=environment, **_QUIET)
        when = wait(process, target, rng, duration, writing)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wrong = unreadable(target) or lost(target, started) or orphans(mark)
        problems += bool(wrong)
        print(f"{target.name}: kill {number + 1} {when}: {wrong or 'sound'}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode or not target.exists():
        print(f"{target.name} could not be finished: {done.stderr[-400:]}")
        return problems + 1
    return problems + bool(unreadable(target))


def wait(
    process: "subprocess.Popen[bytes]",
    target: Path,
    rng: random.Random,
    duration: float,
    writing: bool,
) -> str:
    """Until the moment of the kill; says which it was."""
    begun = time.monotonic()
    if not writing:
        try:
            process.wait(rng.uniform(0.2, 1.0) * duration)
        except subprocess.TimeoutExpired:
            return f"after {time.monotonic() - begun:.1f} s"
        return "too late, it had finished"
    while process.poll() is None:
        if any(target.parent.glob(f".partial-*{target.name}")):
            pause = rng.uniform(0, _WRITING)
            time.sleep(pause)
            return f"{1000 * pause:.0f} ms into its writing"
        time.sleep(0.001)
    return "too late, it had finished"


def forget(run: Path) -> None:
    """Begin anew."""
    for path in run.rglob("checkpoint-*"):
        path.unlink()


def orphans(mark: str) -> str:
    """Processes that live on a second after the kill, by a word of their environment."""
    time.sleep(1.0)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{_MARK}={mark}".encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return f"processes {found} live on" if found else ""


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
