"""How many processor cores this process may use."""

import os

__all__ = ["available_cores"]


def available_cores() -> int:
    """Cores for this process: OMP_NUM_THREADS where it is set, else what its affinity allows.

    A scheduler says with one or the other what a job was given; the processors of the whole machine
    are for others, too.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isascii() and told.isdecimal() and int(told) > 0:
        return int(told)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1
