"""What there is of CUDA on this machine, for `avatar3d doctor`."""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from avatar3d.kernels.cuda.availability import unusable
from avatar3d.kernels.cuda.compiler import nvrtc_version

__all__ = ["report"]

_DRIVER = Path("/proc/driver/nvidia/version")


def report() -> dict[str, Any]:
    """Compiles the kernels where there is a GPU, so that their first use need not.

    Returns:
        device (name of the GPU that torch uses, or ""), architecture ("sm_90"), driver (version, or
        ""), nvrtc and cuda_core (versions, or ""), unusable (why our kernels do not run, or "").
    """
    available = torch.cuda.is_available()
    major, minor = torch.cuda.get_device_capability() if available else (0, 0)
    return {
        "device": torch.cuda.get_device_name() if available else "",
        "architecture": f"sm_{major}{minor}" if available else "",
        "driver": _driver(),
        "nvrtc": _nvrtc(),
        "cuda_core": _version("cuda-core"),
        "unusable": unusable(torch.cuda.current_device() if available else 0),
    }


def _driver() -> str:
    try:
        found = re.search(r"\d{3,}\.\d+(\.\d+)?", _DRIVER.read_text("utf-8"))
    except OSError:
        return ""
    return found.group() if found else ""


def _nvrtc() -> str:
    try:
        return nvrtc_version()
    except Exception:  # not installed, or a library that does not load, in whatever words
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
