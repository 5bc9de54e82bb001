"""How much of what a motion asks for was seen in training."""

import numpy as np

from avatar3d.avatar.rig import HeadArrays
from avatar3d.head.arkit import ARKIT_52
from avatar3d.motion.motion import Motion

__all__ = ["confidence", "furthest_beyond"]


def confidence(state: HeadArrays, motion: Motion) -> np.ndarray:
    """(T,) in [0, 1]: the share of each frame's departure from the mean that was filmed.

    1 - sum |x - clamp(x)| / sum |x - mean| over ARKit weights and gaze x, clamped to the range of
    the training frames. Blendshapes are driven by the clamped values; the rest of the way is the
    head model's alone.
    """
    x, mean, low, high = _signal(state, motion)
    beyond = np.abs(x - x.clip(low, high)).sum(1)
    asked = np.abs(x - mean).sum(1)
    return 1 - beyond / np.maximum(asked, 1e-9)


def furthest_beyond(state: HeadArrays, motion: Motion) -> tuple[str, float, float]:
    """Name of the ARKit weight that goes furthest past what was filmed, its value, the limit."""
    x, _, low, high = _signal(state, motion)
    excess = np.abs(x - x.clip(low, high))[:, : len(ARKIT_52)]
    frame, row = np.unravel_index(int(excess.argmax()), excess.shape)
    value = float(x[frame, row])
    return ARKIT_52[row], value, float(np.clip(value, low[row], high[row]))


def _signal(
    state: HeadArrays, motion: Motion
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """ARKit weights and gaze (T, 56), and the mean, least and largest of the training frames."""
    count, rows = len(motion), len(state.expression)
    own = np.r_[: len(ARKIT_52), rows : rows + 4]
    weights = np.zeros((count, len(ARKIT_52))) if motion.expression is None else motion.expression
    gaze = np.zeros((count, 4)) if motion.gaze is None else motion.gaze.reshape(count, 4)
    mean, low, high = (
        np.asarray(v, np.float64)[own] for v in (state.mean, state.signal_min, state.signal_max)
    )
    return np.concatenate([weights, gaze], 1).astype(np.float64), mean, low, high
