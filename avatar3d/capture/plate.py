"""The empty background behind the person."""

from collections.abc import Iterable

import numpy as np

__all__ = ["background_plate"]

_ROWS = 32


def background_plate(
    samples: Iterable[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Median of what shows beside the person over the clip; the rest painted in from around it.

    Args:
        samples: some (picture (H, W, 3) uint8, alpha (H, W) uint8), spread over the clip.

    Returns:
        (H, W, 3) uint8 plate and (H, W) bool, where it was seen at all.
    """
    import cv2

    kernel = np.ones((9, 9), np.uint8)
    pictures, covers = [], []
    for picture, matte in samples:
        pictures.append(picture)
        covers.append(cv2.dilate(matte, kernel) < 8)
    frames, empty = np.stack(pictures), np.stack(covers)
    height, width = frames.shape[1:3]
    plate = np.zeros((height, width, 3), np.uint8)
    for top in range(0, height, _ROWS):
        rows = slice(top, top + _ROWS)
        plate[rows] = _masked_median(frames[:, rows], empty[:, rows])
    seen = empty.sum(0) >= min(3, len(frames))
    if not seen.any():
        return np.full_like(plate, 127), seen
    return _paint_in(plate, seen), seen


def _masked_median(frames: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Per-pixel median (H, W, 3) of frames (N, H, W, 3) where empty (N, H, W); 0 where never."""
    values = np.ascontiguousarray(np.moveaxis(np.where(empty[..., None], frames, 255), 0, -1))
    values.sort(-1)  # pixels covered by the person sort to the end, behind all others
    amount = empty.sum(0)[..., None]
    middle = np.maximum(amount - 1, 0) // 2
    return np.take_along_axis(values, middle[..., None], -1)[..., 0] * (amount > 0)


def _paint_in(plate: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Fill the unseen part smoothly from its border, coarse to fine (push-pull)."""
    import cv2

    # Right beside the person, hair and shadow tint what is seen: take the fill from further out.
    margin = max(3, round(0.03 * max(seen.shape))) | 1
    clean = cv2.erode(seen.astype(np.uint8), np.ones((margin, margin), np.uint8), borderValue=1)
    weight = np.where(seen, 0.02, 0) + clean
    levels = []
    color, weight = plate * weight[..., None].astype(np.float32), weight.astype(np.float32)
    while min(weight.shape) > 2:
        levels.append((color, weight))
        size = ((color.shape[1] + 1) // 2, (color.shape[0] + 1) // 2)
        color = cv2.resize(color, size, interpolation=cv2.INTER_AREA)
        weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    filled = color / np.maximum(weight, 1e-6)[..., None]
    for color, weight in reversed(levels):
        coarse = cv2.resize(filled, color.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        known = color / np.maximum(weight, 1e-6)[..., None]
        filled = np.where((weight > 1e-3)[..., None], known, coarse)
    return np.where(seen[..., None], plate, np.clip(filled + 0.5, 0, 255).astype(np.uint8))
