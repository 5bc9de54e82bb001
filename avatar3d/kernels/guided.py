"""A mask's edges put on those of the picture."""

import numpy as np

from avatar3d.kernels import reference
from avatar3d.kernels._backend import Backend, native, use_native

__all__ = ["guided_filter"]


def guided_filter(
    image: np.ndarray, mask: np.ndarray, radius: int, eps: float, *, backend: Backend = "auto"
) -> np.ndarray:
    """The guided filter with a colour guide, worked out at half the size; on one thread.

    He, Sun and Tang, "Guided image filtering" (2010): in every window the mask is taken for a
    linear function of the colours.

    Args:
        image: (H, W, 3) uint8, at least 2 pixels a side.
        mask: (H, W) float32.
        radius: of the windows in pixels, at least 2.
        eps: variance of colours in [0, 1] below which a window counts as flat.

    Returns:
        (H, W) float32; may leave the range of the mask a little.

    Raises:
        ValueError: an argument has the wrong shape, dtype or range.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image is {image.dtype} {image.shape}, expected uint8 (H, W, 3).")
    if mask.shape != image.shape[:2] or mask.dtype != np.float32:
        raise ValueError(f"mask is {mask.dtype} {mask.shape}, expected float32 {image.shape[:2]}.")
    if min(mask.shape) < 2 or not 2 <= radius <= 1024 or not eps > 0:
        raise ValueError("the image needs 2 pixels a side, radius 2 to 1024 and eps above 0.")
    if not use_native(backend):
        return reference.guided_filter(image, mask, radius, eps)
    out = np.empty(mask.shape, np.float32)
    native().guided_filter(
        np.ascontiguousarray(image), np.ascontiguousarray(mask), radius, eps, out
    )
    return out
