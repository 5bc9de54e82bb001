"""Which part of the picture to keep."""

from pathlib import Path

import numpy as np

from avatar3d.capture.config import CaptureConfig

__all__ = ["MIN_FRAMES", "Crop", "choose_crop", "inside", "no_face"]

MIN_FRAMES = 10
"""Fewest frames that an avatar can be made of."""
_FACE_SHARE = 0.365
"""Height of the face, forehead to chin, as a share of the cropped square."""
_HAIR = 0.65
"""Heights of the face that are kept above it, where the picture has them."""
_TIGHTEST = 0.72
_INTRUDING = 0.02

Crop = tuple[int, int, int, int]
"""Left, top, width and height in pixels of the source picture."""


def choose_crop(
    boxes: np.ndarray, others: np.ndarray, width: int, height: int, config: CaptureConfig
) -> Crop:
    """The picture, or a square around head and shoulders that leaves other people out.

    Args:
        boxes: (N, 4) left, top, right, bottom of the main face over time.
        others: (M, 4) faces of other people that would disturb.
        width, height: of the picture.
    """
    whole = (0, 0, width, height)
    small = max(width, height) <= 1.25 * config.size
    squarish = max(width, height) <= 1.34 * min(width, height)
    if not len(boxes) or config.crop == "none":
        return whole
    if config.crop == "auto" and small and squarish and not _intrusion(whole, others):
        return whole
    face_height = float(np.median(boxes[:, 3] - boxes[:, 1]))
    left, top = np.percentile(boxes[:, :2], 3, axis=0)
    right, bottom = np.percentile(boxes[:, 2:], 97, axis=0)
    side = max(face_height / _FACE_SHARE, (right - left) * 1.8, (bottom - top) * 1.7)
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    best, least = whole, np.inf
    for factor in np.linspace(1, _TIGHTEST, 5) if len(others) else (1.0,):
        for shift in (0.0, -0.08, 0.08, -0.16, 0.16) if len(others) else (0.0,):
            crop = _square(
                middle + [shift * side, 0], side * factor, width, height, top - _HAIR * face_height
            )
            amount = _intrusion(crop, others)
            if amount < least:
                best, least = crop, amount
    return best


def inside(crop: Crop, box: np.ndarray) -> bool:
    """Whether more than a sliver of a box (4,) lies in the crop."""
    low = np.maximum(box[:2], crop[:2])
    high = np.minimum(box[2:], np.add(crop[:2], crop[2:]))
    area = float(np.prod(np.maximum(high - low, 0)))
    return area > 0.1 * float(np.prod(box[2:] - box[:2]))


def no_face(path: Path) -> str:
    """The sentence for a clip without anybody."""
    return (
        f"No face was found in {path}; use a clip that shows one person's face upright, well lit "
        "and from the front."
    )


def _intrusion(crop: Crop, others: np.ndarray) -> float:
    """Share of the other faces that lie in the crop; few count as none."""
    share = float(np.mean([inside(crop, box) for box in others])) if len(others) else 0.0
    return share if share > _INTRUDING else 0.0


def _square(middle: np.ndarray, side: float, width: int, height: int, highest: float) -> Crop:
    """A square with a little more below its middle, but not without what begins at `highest`."""
    size = int(min(round(side), width, height))
    x, y = middle[0] - size / 2, min(middle[1] - size / 2 + 0.06 * size, highest)
    return (
        int(np.clip(round(x), 0, width - size)), int(np.clip(round(y), 0, height - size)), size,
        size,
    )  # fmt: skip
