"""Our kernels on an NVIDIA GPU: how they are compiled and launched is known here alone."""

from avatar3d.kernels.cuda.compiler import nvrtc_version
from avatar3d.kernels.cuda.modules import unusable

__all__ = ["nvrtc_version", "unusable"]
