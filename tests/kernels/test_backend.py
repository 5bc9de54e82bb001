"""Which implementation runs, and what is said when the native one is missing."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from avatar3d import kernels
from avatar3d.kernels import _backend


def test_doctor_can_tell_what_runs():
    info = kernels.backend_info()
    assert info["native"] is True
    assert info["simd"] == info["simd_available"][0]
    assert info["simd_available"][-1] == "plain"
    assert info["compiler"]


def test_threads_can_be_set():
    before = kernels.get_num_threads()
    kernels.set_num_threads(3)
    assert kernels.get_num_threads() == kernels.backend_info()["threads"] == 3
    kernels.set_num_threads(before)
    with pytest.raises(ValueError, match="threads is 0"):
        kernels.set_num_threads(0)


def test_the_first_import_takes_torchs_number_of_threads():
    code = (
        "import torch; torch.set_num_threads(1); from avatar3d import kernels;"
        "print(kernels.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_threads_work_on_in_a_forked_process():
    """The pool's threads do not survive a fork; data loaders fork."""
    code = """
import os, torch
from avatar3d import kernels
kernels.set_num_threads(3)
image = torch.rand(64, 64, 3)
here = kernels.ssim(image, image.flip(0))
child = os.fork()
if child == 0:
    same = torch.equal(here, kernels.ssim(image, image.flip(0)))
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
assert torch.equal(here, kernels.ssim(image, image.flip(0)))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_two_callers_at_once():
    """One has the pool, the other works alone; both get the same numbers."""
    images = [torch.rand(96, 96, 3, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    expected = [kernels.ssim(image, image.flip(0)) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = list(pool.map(lambda image: kernels.ssim(image, image.flip(0)), images))
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_without_the_build_the_reference_runs_after_one_warning(monkeypatch):
    monkeypatch.setattr(_backend, "_load", lambda: (None, "not built"))
    _backend.warn_once.cache_clear()
    image = torch.rand(8, 8, 3)
    with pytest.warns(RuntimeWarning, match="native kernels are not available"):
        value = kernels.ssim(image, image)
    assert torch.allclose(value, torch.tensor(1.0))
    kernels.ssim(image, image)  # a second warning would be an error
    with pytest.raises(RuntimeError, match="not available: not built"):
        kernels.ssim(image, image, backend="native")
    assert kernels.backend_info()["native"] is False
    _backend.warn_once.cache_clear()
