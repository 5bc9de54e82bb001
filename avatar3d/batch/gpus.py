"""Which GPUs there are, and how many small trainings fit on one."""

import os
import subprocess

__all__ = ["gpu_slots"]

_JOB_MIB = 6144  # of a training of 512 pixels and 25,000 Gaussians with its context, generously


def gpu_slots(jobs_per_gpu: int = 0) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each job that fits, devices in turn; none without NVIDIA's driver.

    Args:
        jobs_per_gpu: jobs on a device; 0 is as many as its memory has room for, at least one.
    """
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,memory.total", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=20, check=True,
        ).stdout  # fmt: skip
        devices = {
            index.strip(): int(mib) for index, mib in (x.split(",") for x in told.splitlines())
        }
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        devices = {name: devices.get(name, 0) for name in visible.split(",") if name.strip()}
    room = {name: jobs_per_gpu or max(1, mib // _JOB_MIB) for name, mib in devices.items()}
    return [
        name for turn in range(max(room.values(), default=0)) for name in room if turn < room[name]
    ]
