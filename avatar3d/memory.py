"""Memory that the allocator keeps although nothing needs it any more."""

import ctypes
import functools
from collections.abc import Callable

__all__ = ["give_memory_back"]


def give_memory_back() -> None:
    """Return the C library's free memory to the system, where it has a way to (glibc's).

    Frames, decoders' buffers and tensors are freed by several threads in another order than they
    were taken. The allocator keeps the gaps, and what a process holds wanders by a tenth from one
    video to the next. A trim takes milliseconds: for the end of long work, not for loops.
    """
    if trim := _trimmer():
        trim(0)


@functools.cache
def _trimmer() -> Callable[[int], int] | None:
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # no such library to open: Windows
        return None
