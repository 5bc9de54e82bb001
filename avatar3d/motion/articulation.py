"""Articulation curves: the few things a speaking mouth does, and their ARKit weights."""

import numpy as np

from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX

__all__ = ["CURVES", "to_arkit"]

CURVES: tuple[str, ...] = (
    "jaw", "rounding", "spreading", "part", "tongue", "closed", "tucked",
)  # fmt: skip
"""Columns of articulation arrays (T, 7), all in [0, 1]; see `avatar3d.motion.phonetics.Mouth`."""

_JAW = 0.34  # jawOpen of a clearly spoken open vowel; 1 would be a yawn


def to_arkit(curves: np.ndarray, opening: float = 1.0) -> np.ndarray:
    """ARKit weights (T, 52) in [0, 1] of articulation curves (T, 7).

    Closed lips win over everything else and bring the jaw nearly up; all zero is the neutral,
    closed mouth.

    Args:
        curves: columns as `CURVES`.
        opening: scale of the jaw, 1 for ordinary speech.
    """
    jaw, rounding, spreading, part, tongue, closed, tucked = np.clip(curves, 0, 1).T
    free = 1 - np.maximum(closed, 0.85 * tucked)  # what closure leaves of everything else
    rounding, spreading, part, tongue = (c * free for c in (rounding, spreading, part, tongue))
    jaw = _JAW * opening * jaw * (1 - 0.9 * np.maximum(closed, 0.7 * tucked))
    weights = np.zeros((len(curves), len(ARKIT_52)))

    def put(value: np.ndarray, *names: str) -> None:
        for name in names:
            weights[:, ARKIT_INDEX[name]] += value

    put(jaw, "jawOpen")
    put(jaw * closed, "mouthClose")  # at equal weights the lips meet over an open jaw
    put(0.2 * closed, "mouthPressLeft", "mouthPressRight")
    put(0.06 * closed + 0.5 * tucked, "mouthRollLower")
    put(0.06 * closed, "mouthRollUpper")
    put(0.6 * rounding**1.5, "mouthPucker")
    put(0.15 * rounding, "mouthFunnel")
    put(0.22 * spreading, "mouthStretchLeft", "mouthStretchRight")
    put(0.14 * spreading, "mouthSmileLeft", "mouthSmileRight")
    put(0.25 * part, "mouthLowerDownLeft", "mouthLowerDownRight")
    put(0.14 * part + 0.12 * tucked, "mouthUpperUpLeft", "mouthUpperUpRight")
    put(0.12 * tongue, "tongueOut")
    return np.clip(weights, 0, 1).astype(np.float32)
