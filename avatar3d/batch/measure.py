"""What a stage costs: time, processor time and memory."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cost", "measured"]


@dataclass
class Cost:
    """Seconds, seconds of all cores together, and bytes resident at most."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int = 0


@contextmanager
def measured() -> Iterator[Cost]:
    """Fill the yielded `Cost` with what the body took, its child processes included."""
    cost = Cost()
    _forget_peak()
    start, before = time.monotonic(), _cpu_seconds()
    try:
        yield cost
    finally:
        cost.seconds = round(time.monotonic() - start, 3)
        cost.cpu_seconds = round(_cpu_seconds() - before, 3)
        cost.peak_memory = _peak()


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def _forget_peak() -> None:
    with suppress(OSError):  # Linux alone can; elsewhere the peak is that of all stages so far
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
