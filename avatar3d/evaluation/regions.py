"""Parts of a frame that figures are about, from its parsing labels."""

import math

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter, maximum_filter

from avatar3d.subject import PARSING_LABELS

__all__ = [
    "HEAD_LABELS",
    "contrast",
    "error_at_contrast",
    "face_interior",
    "head_mask",
    "seam_band",
]

_BODY = ("neck", "clothes")
_OUTSIDE = ("background", *_BODY)
HEAD_LABELS = tuple(i for i, name in enumerate(PARSING_LABELS) if name not in _OUTSIDE)
"""Indices into `PARSING_LABELS` of what moves with the skull: face, hair and ears."""

_OUTLINE = 2  # pixels next to the background, which are partly background
_BINS = 32
_BODY_LABELS = [PARSING_LABELS.index(name) for name in _BODY]
_HAIRY = [PARSING_LABELS.index(name) for name in ("hair", "ears")]


def head_mask(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool: face, hair and ears."""
    return np.isin(labels, HEAD_LABELS)


def seam_band(labels: np.ndarray, width: int = 12) -> np.ndarray:
    """(H, W) bool: the band along the line between head and neck or clothes.

    Its ends stop short of the person's outline, which is a border with the background.

    Args:
        labels: (H, W) indices into `PARSING_LABELS`.
        width: of the band in pixels, half of them on each side of the line.
    """
    head, body = head_mask(labels), np.isin(labels, _BODY_LABELS)
    band = np.zeros(labels.shape, bool)
    both = _common(head, body, math.ceil(width / 2) + _OUTLINE)
    if both is None:
        return band
    person = (head | body)[both]
    head, body = head[both], body[both]
    reach = _disc(width / 2)
    near = (head & binary_dilation(body, reach)) | (body & binary_dilation(head, reach))
    inside = binary_erosion(person, _disc(_OUTLINE), border_value=1)
    band[both] = near & inside
    return band


def face_interior(labels: np.ndarray, width: int = 12) -> np.ndarray:
    """(H, W) bool: the face without hair and ears, at least half of `width` inside its edge."""
    face = head_mask(labels) & ~np.isin(labels, _HAIRY)
    return binary_erosion(face, _disc(width / 2))


def contrast(image: np.ndarray) -> np.ndarray:
    """(H, W) steepest change of brightness within a pixel of each, per pixel, for (H, W, 3)."""
    down, right = np.gradient(
        gaussian_filter(np.einsum("hwc->hw", image, dtype=np.float64) / image.shape[-1], 0.7)
    )
    return maximum_filter(np.hypot(down, right), 3)


def error_at_contrast(
    error: np.ndarray, contrast: np.ndarray, region: np.ndarray, elsewhere: np.ndarray
) -> float:
    """What the error inside a region would be, were it that of equally contrasted pixels elsewhere.

    A picture that is a little soft errs more at a white collar than on a cheek, which is no seam.

    Args:
        error, contrast: (H, W); see `contrast`.
        region, elsewhere: (H, W) bool.

    Returns:
        Mean error; NaN where either has no pixels. What has more contrast than nearly all of
        `elsewhere` is taken to err like the most contrasted part of that, so it is rather too low.
    """
    if not region.any() or not elsewhere.any():
        return float("nan")
    bounds = np.quantile(contrast[elsewhere], np.linspace(0, 1, _BINS + 1)[1:-1])
    there = np.digitize(contrast[elsewhere], bounds)
    count = np.bincount(there, minlength=_BINS)
    mean = np.bincount(there, error[elsewhere], minlength=_BINS) / np.maximum(count, 1)
    filled = np.flatnonzero(count)
    mean = mean[filled[np.searchsorted(filled, np.arange(_BINS), "right").clip(1) - 1]]
    return float(mean[np.digitize(contrast[region], bounds)].mean())


def _common(first: np.ndarray, second: np.ndarray, reach: int) -> tuple[slice, slice] | None:
    """The part of the picture that is within `reach` of both regions (H, W) bool; None for none."""
    slices = []
    for axis in (0, 1):
        places = [np.flatnonzero(region.any(1 - axis)) for region in (first, second)]
        if not all(map(len, places)):
            return None
        start = max(place[0] for place in places) - reach
        stop = min(place[-1] for place in places) + reach + 1
        if start >= stop:
            return None
        slices.append(slice(max(int(start), 0), int(stop)))
    return slices[0], slices[1]


def _disc(radius: float) -> np.ndarray:
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return x**2 + y**2 <= radius**2
