"""Which implementation runs, and what is said when the native one is missing."""

import subprocess
import sys

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


def test_without_the_build_the_reference_runs_after_one_warning(monkeypatch):
    monkeypatch.setattr(_backend, "_load", lambda: (None, "not built"))
    _backend._warn_once.cache_clear()
    image = torch.rand(8, 8, 3)
    with pytest.warns(RuntimeWarning, match="native kernels are not available"):
        value = kernels.ssim(image, image)
    assert torch.allclose(value, torch.tensor(1.0))
    kernels.ssim(image, image)  # a second warning would be an error
    with pytest.raises(RuntimeError, match="not available: not built"):
        kernels.ssim(image, image, backend="native")
    assert kernels.backend_info()["native"] is False
    _backend._warn_once.cache_clear()
