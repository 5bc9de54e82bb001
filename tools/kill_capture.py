#!/usr/bin/env python3
"""Kill a capture again and again at random moments, let it finish, compare with one undisturbed.

    python tools/kill_capture.py VIDEO [--kills 20] [--seed 0] [key=value ...]

Exit code 0 if every file of both subjects is the same, but for times.
"""

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_PROGRAM = "from avatar3d.cli import main; main()"
_TELLS_TIME = {"subject.json", "state.json"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("settings", nargs="*", help="of capture, as key=value")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="avatar3d-kill-") as name:
        return compare(Path(name), options)


def compare(folder: Path, options: argparse.Namespace) -> int:
    """Capture once undisturbed, then killed after random times until done; 0 if all are the same.

    A capture that was finished in spite of the kills is compared, and the next one begun.
    """
    command = [sys.executable, "-c", _PROGRAM, "capture", str(options.video), *options.settings]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = time.monotonic()
    subprocess.run([*command, "-o", str(folder / "whole")], check=True, **quiet)
    duration = time.monotonic() - start
    expected = contents(folder / "whole")
    rng, killed, output = random.Random(options.seed), 0, folder / "killed"
    while killed < options.kills or output.with_name(".killed.capture").exists():
        process = subprocess.Popen([*command, "-o", str(output)], **quiet)
        last = killed >= options.kills
        pause = rng.uniform(0.05, 1.0) * duration
        try:
            process.wait(None if last else pause)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            print(f"kill {killed} after {pause:.1f} s, in {stage(folder)}", flush=True)
        if output.exists() and not same(expected, contents(output), folder):
            return 1
        if output.exists():
            print("finished: the same in every file", flush=True)
            shutil.rmtree(output)
    return 0


def same(expected: dict[str, str], found: dict[str, str], folder: Path) -> bool:
    """Whether two captures have the same files, and nothing else lies about."""
    names = expected.keys() | found.keys()
    different = sorted(n for n in names if expected.get(n) != found.get(n))
    left = sorted(p.name for p in folder.iterdir() if p.name not in ("whole", "killed"))
    if different or left:
        print(f"different: {different or 'none'}; left behind: {left or 'none'}")
    return not different and not left


def stage(folder: Path) -> str:
    """The last stage that had begun."""
    try:
        state = json.loads((folder / ".killed.capture/.capture/state.json").read_text())
    except (OSError, ValueError):
        return "start-up"
    begun = [name for name in state["started"] if name not in state["done"]]
    return begun[-1] if begun else "between stages"


def contents(subject: Path) -> dict[str, str]:
    """A hash of every file by relative name; of arrays, the hash of their values."""
    found = {}
    for path in sorted(subject.rglob("*")):
        if not path.is_file() or path.name in _TELLS_TIME:
            continue
        digest = hashlib.sha256()
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                for name in sorted(arrays.files):
                    digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
        else:
            digest.update(path.read_bytes())
        found[str(path.relative_to(subject))] = digest.hexdigest()
    return found


if __name__ == "__main__":
    sys.exit(main())
