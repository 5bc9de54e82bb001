"""What the report tools share: a command run in a process of its own, and what it cost."""

import os
import sys
import time
from pathlib import Path

__all__ = ["run_avatar3d"]


def run_avatar3d(arguments: list[str], log: Path) -> dict[str, float]:
    """Run `avatar3d ARGUMENTS...`, its output into `log`; the cost, start-up and all.

    Returns:
        `seconds` by the clock, `cpu_seconds` of all threads, `peak_gb` of memory.
    """
    code = "from avatar3d.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    start = time.monotonic()
    with open(log, "wb") as handle:
        child = os.posix_spawn(
            sys.executable, command, os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, handle.fileno(), 1),
                          (os.POSIX_SPAWN_DUP2, handle.fileno(), 2)],
        )  # fmt: skip
        _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"avatar3d {' '.join(arguments)} failed; see {log}")
    return {
        "seconds": time.monotonic() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_gb": usage.ru_maxrss / 1e6,
    }
