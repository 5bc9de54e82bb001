"""Where a picture's fine detail matters."""

import numpy as np

from avatar3d.kernels.detail import PATCH

__all__ = ["face_region"]

_MARGIN = 0.2  # of the face's size, upwards and to the sides, for hair and ears


def face_region(landmarks: np.ndarray, height: int, width: int) -> tuple[slice, slice] | None:
    """Rows and columns of the face landmarks (478, 2) in pixels, with hair and ears around them.

    They end at the chin: what is below moves by itself, and is met less well. None for a face that
    is smaller than a patch or outside the picture.
    """
    low, high = landmarks[:468].min(0), landmarks[:468].max(0)
    margin = _MARGIN * (high - low)
    left, top = np.clip(np.floor(low - margin), 0, [width, height]).astype(int)
    right, bottom = np.clip(np.ceil(high + margin * [1, 0]), 0, [width, height]).astype(int)
    if min(right - left, bottom - top) <= PATCH:
        return None
    return slice(int(top), int(bottom)), slice(int(left), int(right))
