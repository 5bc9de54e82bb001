"""Our kernels on an NVIDIA GPU: how they are compiled and launched is known here alone."""

from avatar3d.kernels.cuda.availability import unusable
from avatar3d.kernels.cuda.report import report

__all__ = ["report", "unusable"]
