"""Kill jobs and Ray workers at random while a library is made; every row must come out once.

    python tools/kill_batch.py CLIP... -o LIBRARY [--engine ray] [--kills 6] [--every 8] [key=value]

Only processes that descend from this one are killed. Prints what was killed, and per row its
status; exits with 1 where a row is missing or anything half-written is left.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--engine", default="ray")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--every", type=float, default=8.0, help="mean seconds between kills")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, start = random.Random(given.seed), time.monotonic()
    program = "from avatar3d.cli import main; main()"
    command = [sys.executable, "-c", program, "batch", *given.sources, "-o", str(given.output)]
    more = ["--engine", given.engine, "--attempts", "20", "--memory", "0"]
    process = subprocess.Popen([*command, *more])
    killed = 0
    while process.poll() is None:
        time.sleep(rng.uniform(0.5, 1.5) * given.every)
        victims = [pid for pid in descendants(process.pid) if victim(pid)]
        if killed < given.kills and victims:
            chosen = rng.choice(victims)
            print(f"{time.monotonic() - start:6.1f} s: kill -9 {chosen}: {title(chosen)[:60]}")
            os.kill(chosen, signal.SIGKILL)
            killed += 1
    return judge(given.output, killed, time.monotonic() - start, process.returncode)


def judge(library: Path, killed: int, seconds: float, code: int) -> int:
    from avatar3d.batch import Library

    records = Library(library).records()
    partial = [str(path) for path in library.rglob(".partial-*")]
    hidden = [str(path) for path in library.glob("*/.*.capture")]
    done = sum(record.status == "done" for record in records)
    print(f"{killed} kills in {seconds:.0f} s, exit code {code}: {done} of {len(records)} done")
    for record in records:
        print(f"{record.name:<10} {record.status:<7} {record.sentence}")
    print(f"Half-written: {partial + hidden or 'nothing'}")
    unfinished = [record for record in records if record.status == "waiting"]
    return 1 if partial or unfinished or not records else 0


def victim(pid: int) -> bool:
    told = title(pid)
    return "avatar3d.batch.job" in told or told.startswith("ray::_task")


def descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found[1:]


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
