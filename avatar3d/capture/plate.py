"""The empty background behind the person."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from avatar3d.capture.parallel import parallel_map
from avatar3d.capture.workspace import spread

__all__ = ["Plate", "background_plate", "moving_pixels"]

_ROWS = 32
_MOVED = 14
"""Grey levels by which a background pixel departs from its median to count as moving."""
_OFTEN = 0.05
"""Share of the frames in which it must."""
_MOTION_FRAMES, _THUMB = 45, 64
_BESIDE = 0.022
"""Side, by that of the picture, of the square that must be empty for its middle to be seen."""
_TINTED = 0.06
"""The same for pixels that nothing of the person tints, hair and shadow neither."""
_LAST_RESORT = 5e-4
"""Weight of tinted pixels in the fill: too little to count where anything else is near."""
_PERSON_FRAMES = 12
_CONTRAST, _ALIKE = 50.0, 5.0
"""Distances in colour, of 255: of the person from the background for a tint to be told, and of a
colour from a mixture of both that counts as one."""


@dataclass(frozen=True)
class Plate:
    """The background without the person.

    Attributes:
        image: (H, W, 3) uint8; seen: (H, W) bool, where it was seen at all.
        moving: share of the background that does not stand still.
    """

    image: np.ndarray
    seen: np.ndarray
    moving: float


def background_plate(samples: Iterable[tuple[np.ndarray, np.ndarray]], workers: int = 1) -> Plate:
    """Median of what shows beside the person over the clip; the rest painted in from around it.

    Args:
        samples: some (picture (H, W, 3) uint8, alpha (H, W) uint8), spread over the clip.
        workers: threads.
    """
    import cv2

    pictures, mattes = zip(*samples, strict=True)
    frames = np.stack(pictures)
    side = max(3, round(_BESIDE * max(frames.shape[1:3]))) | 1
    empty = np.stack([cv2.dilate(matte, np.ones((side, side), np.uint8)) < 8 for matte in mattes])
    height, width = frames.shape[1:3]
    plate = np.zeros((height, width, 3), np.uint8)
    strips = [slice(top, top + _ROWS) for top in range(0, height, _ROWS)]
    medians = parallel_map(lambda s: _masked_median(frames[:, s], empty[:, s]), strips, workers)
    for strip, median in zip(strips, medians, strict=True):
        plate[strip] = median
    seen = empty.sum(0) >= min(3, len(frames))
    moving = _moving_share(frames, empty)
    if not seen.any():
        return Plate(np.full_like(plate, 127), seen, moving)
    margin = max(3, round(_TINTED * max(seen.shape))) | 1
    clean = cv2.erode(seen.astype(np.uint8), np.ones((margin, margin), np.uint8), borderValue=1) > 0
    fill = _fill(plate, np.where(clean, 1, _LAST_RESORT * seen).astype(np.float32))
    some = spread(len(frames), _PERSON_FRAMES)
    person = _mean_person(frames[some], np.stack(mattes)[some])
    ring = seen & ~clean
    plate[ring] = _untinted(plate[ring], fill[ring], person[ring])
    # Once more, so that it goes on from what is right beside it.
    fill = _fill(plate, seen.astype(np.float32))
    return Plate(np.where(seen[..., None], plate, fill), seen, moving)


def moving_pixels(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What moves of a background.

    Args:
        values: (N, P) float grey levels of P places in N frames, NaN where covered; no place in
            all of them.

    Returns:
        (N, P) bool, where a place departs from its median, and (P,) bool, which ones often do.
    """
    departed = np.abs(values - np.nanmedian(values, axis=0)) > _MOVED
    return departed, departed.sum(0) > _OFTEN * np.isfinite(values).sum(0)


def _moving_share(frames: np.ndarray, empty: np.ndarray) -> float:
    """Share of the background's places, at the size of the check's thumbnails, that move."""
    import cv2

    step = max(1, len(frames) // _MOTION_FRAMES)
    size = (_THUMB, _THUMB)
    greys = [cv2.resize(f, size, interpolation=cv2.INTER_AREA).mean(-1) for f in frames[::step]]
    bare = [
        cv2.resize(e.view(np.uint8), size, interpolation=cv2.INTER_AREA) > 0 for e in empty[::step]
    ]
    values = np.where(bare, greys, np.nan)
    known = np.sum(bare, 0) >= max(4, 0.3 * len(values))
    if known.mean() < 0.02:
        return 0.0
    return float(moving_pixels(values[:, known])[1].mean())


def _masked_median(frames: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Per-pixel median (H, W, 3) of frames (N, H, W, 3) where empty (N, H, W); 0 where never."""
    values = np.ascontiguousarray(np.moveaxis(np.where(empty[..., None], frames, 255), 0, -1))
    values.sort(-1)  # pixels covered by the person sort to the end, behind all others
    amount = empty.sum(0)[..., None]
    middle = np.maximum(amount - 1, 0) // 2
    return np.take_along_axis(values, middle[..., None], -1)[..., 0] * (amount > 0)


def _fill(plate: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: smooth everywhere and true where it is heavy, coarse to fine (push-pull)."""
    import cv2

    levels = []
    color = plate * weight[..., None]
    while min(weight.shape) > 2:
        levels.append((color, weight))
        size = ((color.shape[1] + 1) // 2, (color.shape[0] + 1) // 2)
        color = cv2.resize(color, size, interpolation=cv2.INTER_AREA)
        weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    filled = color / np.maximum(weight, 1e-6)[..., None]
    for color, weight in reversed(levels):
        coarse = cv2.resize(filled, color.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        known = color / np.maximum(weight, 1e-6)[..., None]
        filled = np.where((weight > 2 * _LAST_RESORT)[..., None], known, coarse)
    return np.clip(filled + 0.5, 0, 255).astype(np.uint8)


def _mean_person(frames: np.ndarray, mattes: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the colour of the person at or near each pixel."""
    total = np.zeros(frames.shape[1:], np.float32)
    weight = np.zeros(frames.shape[1:3], np.float32)
    for frame, matte in zip(frames, mattes, strict=True):
        solid = matte > 250
        total[solid] += frame[solid]
        weight += solid
    mean = (total / np.maximum(weight, 1)[..., None]).astype(np.uint8)
    return _fill(mean, (weight > 0).astype(np.float32))


def _untinted(color: np.ndarray, fill: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Colours (N, 3) seen right beside the person; the fill where it differs by a tint of theirs.

    Strands of hair and shadows that follow the person would stay behind as their outline.
    """
    own, base = color.astype(np.float32), fill.astype(np.float32)
    towards = person.astype(np.float32) - base
    length = (towards**2).sum(1)
    share = ((own - base) * towards).sum(1) / np.maximum(length, 1)
    rest = np.linalg.norm(own - base - share[:, None] * towards, axis=1)
    doubt = np.clip((share - 0.02) / 0.04, 0, 1) * np.clip(2 - rest / _ALIKE, 0, 1)
    doubt *= length > _CONTRAST**2
    return (own + doubt[:, None] * (base - own) + 0.5).astype(np.uint8)
