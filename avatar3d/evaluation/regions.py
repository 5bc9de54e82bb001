"""Parts of a frame that figures are about, from its parsing labels."""

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from avatar3d.subject import PARSING_LABELS

__all__ = ["HEAD_LABELS", "face_interior", "head_mask", "seam_band"]

_BODY = ("neck", "clothes")
_OUTSIDE = ("background", *_BODY)
HEAD_LABELS = tuple(i for i, name in enumerate(PARSING_LABELS) if name not in _OUTSIDE)
"""Indices into `PARSING_LABELS` of what moves with the skull: face, hair and ears."""

_BODY_LABELS = [PARSING_LABELS.index(name) for name in _BODY]
_HAIRY = [PARSING_LABELS.index(name) for name in ("hair", "ears")]


def head_mask(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool: face, hair and ears."""
    return np.isin(labels, HEAD_LABELS)


def seam_band(labels: np.ndarray, width: int = 12) -> np.ndarray:
    """(H, W) bool: the band along the line between head and neck or clothes.

    Args:
        labels: (H, W) indices into `PARSING_LABELS`.
        width: of the band in pixels, half of them on each side of the line.
    """
    head, body = head_mask(labels), np.isin(labels, _BODY_LABELS)
    reach = _disc(width / 2)
    return (head & binary_dilation(body, reach)) | (body & binary_dilation(head, reach))


def face_interior(labels: np.ndarray, width: int = 12) -> np.ndarray:
    """(H, W) bool: the face without hair and ears, at least half of `width` inside its edge."""
    face = head_mask(labels) & ~np.isin(labels, _HAIRY)
    return binary_erosion(face, _disc(width / 2))


def _disc(radius: float) -> np.ndarray:
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return x**2 + y**2 <= radius**2
