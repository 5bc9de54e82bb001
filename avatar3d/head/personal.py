"""Expression rows of one person: a blink must close these eyes, however far they are open."""

from typing import TYPE_CHECKING

import numpy as np

from avatar3d.head.arkit import ARKIT_INDEX
from avatar3d.head.landmarks import SLITS

if TYPE_CHECKING:
    from avatar3d.head.model import HeadModel

__all__ = ["personal_rows"]

_SOFTNESS = 1e-3  # metres; near the corners of the eye the gap says little
_FACTORS = (0.5, 1.6)


def personal_rows(model: "HeadModel", vertices: np.ndarray) -> np.ndarray:
    """(E, V, 3) rows of `model`, with the blinks scaled to where the lids of `vertices` meet.

    A model's blink closes its mean eyes; wider ones would stay open by up to a third. The factor
    varies along the lids, so that they meet from corner to corner.

    Args:
        model: any; vertices: (V, 3) neutral head of one person, metres.
    """
    rows = model.expression
    neutral = model.landmarks_of(vertices)
    changed = {}
    for side in ("Left", "Right"):
        index = ARKIT_INDEX[f"eyeBlink{side}"]
        _, _, upper, lower = SLITS[side]
        before = _gaps(neutral, upper, lower)
        closed = before - _gaps(neutral + model.landmarks_of(rows[index]), upper, lower)
        if before.sum() <= 0 or closed.sum() <= 0.3 * before.sum():
            continue  # no blink to speak of
        usual = before.sum() / closed.sum()
        factors = (before + _SOFTNESS * usual) / (np.maximum(closed, 0) + _SOFTNESS)
        along = neutral[list(upper), 0]
        order = np.argsort(along)
        here = np.interp(vertices[:, 0], along[order], np.clip(factors, *_FACTORS)[order])
        changed[index] = rows[index] * here[:, None].astype(rows.dtype)
    if changed:
        rows = rows.copy()
        for index, row in changed.items():
            rows[index] = row
    return rows


def _gaps(marks: np.ndarray, upper: tuple[int, ...], lower: tuple[int, ...]) -> np.ndarray:
    """Heights of the upper lid's landmarks over the line through the lower lid's."""
    line = marks[list(lower)]
    order = np.argsort(line[:, 0])
    below = np.interp(marks[list(upper), 0], line[order, 0], line[order, 1])
    return marks[list(upper), 1] - below
