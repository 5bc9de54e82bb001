"""Arrays on a full disk."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from avatar3d.errors import UserError
from avatar3d.io.arrays import write_arrays
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
try:
    write_arrays(sys.argv[1], {"a": np.arange(10000)}, compressed=False)
except UserError as error:
    print(error)
"""


def test_a_full_disk_is_one_sentence_and_nothing_else(tmp_path):
    """numpy's own writing leaves an archive behind that complains when it is collected."""
    pytest.importorskip("resource")
    path = tmp_path / "a.npz"
    done = subprocess.run([sys.executable, "-c", PROGRAM, path], capture_output=True, text=True)
    assert done.stdout.startswith(f"Cannot write {path}: File too large")
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
