"""What the machine could do at best, measured, and what it is."""

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from avatar3d import kernels
from avatar3d.kernels._backend import native

__all__ = ["Peak", "describe", "measure_peak", "use_threads"]


@dataclass
class Peak:
    """Rates that no kernel can exceed.

    Attributes:
        flops: multiply-adds in registers, operations a second (two for each multiply-add).
        flops_by: how that was measured.
        bytes: copying a large array, bytes read plus bytes written a second.
    """

    flops: float
    flops_by: str
    bytes: float


def use_threads(threads: int) -> None:
    """For the kernels and for torch."""
    kernels.set_num_threads(threads)
    torch.set_num_threads(threads)


def measure_peak(device: str) -> Peak:
    """Of the threads in use; the best of several tries."""
    if device == "cpu" and kernels.backend_info()["native"]:
        flops = max(native().fma_rate() for _ in range(8))
        by = "multiply-adds in registers"
    else:
        side = 4096 if device == "cuda" else 1024
        a = torch.rand(side, side, device=device)
        flops, by = 2 * side**3 / _fastest(lambda: a @ a, device), f"torch float32 {side} matmul"
    source = torch.rand(1 << 25, device=device)
    target = torch.empty_like(source)
    seconds = _fastest(lambda: target.copy_(source), device)
    return Peak(flops, by, 2 * 4 * source.numel() / seconds)


def _fastest(run: Callable[[], Any], device: str) -> float:
    times = []
    for _ in range(6):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def describe(device: str, peaks: dict[int, Peak]) -> dict[str, Any]:
    """For the table's title and the JSON file."""
    info = {
        "processor": _processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernels": kernels.backend_info(),
        "device": device,
        "peak": {str(threads): asdict(peak) for threads, peak in peaks.items()},
    }
    if device == "cuda":
        info["gpu"] = torch.cuda.get_device_name()
        info["compute_capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
    return info


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
