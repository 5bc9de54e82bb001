"""Kill jobs and Ray workers at random while a library is made; every row must come out once.

    python tools/kill_batch.py CLIP... [key=value] -o LIBRARY [--bad CLIP...] [--engine ray]
        [--kills 6] [--every 8]

Only processes that descend from this one are killed. Prints what was killed, and per row its
status; exits with 1 where a row is missing or there without having been asked for, one of `--bad`
is not refused by capture or another is not done, the exit code or the index says otherwise, or
anything half-written or hidden is left.
"""

import argparse
import json
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
    parser.add_argument("--bad", nargs="*", default=[], help="clips that capture has to refuse")
    parser.add_argument("--engine", default="ray")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--every", type=float, default=8.0, help="mean seconds between kills")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, start = random.Random(given.seed), time.monotonic()
    program = "from avatar3d.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        program,
        "batch",
        *given.sources,
        *given.bad,
        "-o",
        str(given.output),
    ]
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
    print(f"{killed} kills in {time.monotonic() - start:.0f} s, exit code {process.returncode}")
    sources = [source for source in given.sources if "=" not in source]
    return judge(given.output, sources, given.bad, process.returncode)


def judge(library: Path, good: list[str], bad: list[str], code: int) -> int:
    """Compare what there is with what has to be; 1 where it is something else."""
    from avatar3d.batch import Library
    from avatar3d.batch.record import Record

    records = Library(library).records()
    for record in records:
        print(f"{record.name:<10} {record.status:<7} {record.stage} {record.sentence}")
    expected = {Path(source).stem: ("done", "") for source in good}
    expected |= {Path(source).stem: ("failed", "capture") for source in bad}
    index = json.loads((library / "library.json").read_bytes())["rows"]
    faults = [f"{path} is left over" for path in leftovers(library)]
    for what, rows in (("row.json", records), ("library.json", map(Record.model_validate, index))):
        found = [(row.name, (row.status, row.stage)) for row in rows]
        if sorted(found) != sorted(expected.items()):
            wrong = sorted(set(found) ^ set(expected.items()))
            faults.append(f"{what}: not as expected are {wrong or 'rows that are there twice'}")
    if code != (3 if bad else 0):
        faults.append(f"exit code {code}")
    for record in records:
        files = [library / file for file in record.files]
        if record.status == "done" and not (files and all(file.is_file() for file in files)):
            faults.append(f"{record.name} lacks some of {record.files}")
    print("\n".join(faults) or "Every row is there once and as expected; nothing is left over.")
    return 1 if faults else 0


def leftovers(library: Path) -> list[Path]:
    """Hidden files and folders but locks, which stay, and what capture keeps to go on from."""
    return [
        path
        for path in library.rglob(".*")
        if not (path.name.startswith(".lock-") and path.stat().st_size == 0)
        and not (path.name == ".capture" and path.parent.suffix == ".subject")
    ]


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
