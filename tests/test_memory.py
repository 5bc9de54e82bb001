"""Memory is given back to the system."""

import ctypes
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from avatar3d.memory import give_memory_back

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.skipif("AVATAR3D_SANITIZED" in os.environ, reason="sanitizers keep freed memory"),
    pytest.mark.skipif(
        not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library has no malloc_trim"
    ),
]

BLOCK, COUNT = 50_000, 2_000  # each small enough to come from the heap and not from a mapping


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_gaps_are_given_back():
    blocks = [np.ones(BLOCK, np.uint8) for _ in range(COUNT)]
    kept = blocks[::40]  # the allocator alone gives back only what is behind the last of them
    full = resident()
    del blocks
    give_memory_back()
    assert full - resident() > 0.8 * (COUNT - len(kept)) * BLOCK


def test_a_library_without_a_trim_is_no_error(monkeypatch):
    from avatar3d import memory

    memory._trimmer.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    try:
        give_memory_back()
        assert memory._trimmer() is None
    finally:
        memory._trimmer.cache_clear()
