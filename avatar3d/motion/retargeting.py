"""One person's performance on another person's face."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion.blinks import find_blinks, lid_closure
from avatar3d.motion.idle import MOUTH_COLUMNS
from avatar3d.motion.motion import Motion

if TYPE_CHECKING:
    from avatar3d.head.model import ShapedHead

__all__ = ["landmark_effects", "resting", "retarget", "simplest_weights"]

_FEW = 25  # frames; fewer do not show what is neutral
_ROWS = len(ARKIT_52)
_LIDS = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]
_EVIDENT = 0.15  # weight that both must reach before their ranges are compared
_GAINS = (0.7, 1.4)
_DEPTH = 0.5  # a single camera sees motion towards it half as well
_SPARSE = 0.02  # mm^2, mean over the landmarks; the cost of a weight of 1
_SPARSE_RESIDUAL = 0.03
_SWEEPS = 150


def retarget(
    source: Motion,
    target: Motion | None = None,
    effects: np.ndarray | None = None,
    neutral: np.ndarray | None = None,
    match: float = 0.5,
) -> Motion:
    """What `source` performs, for another face to do in its own way.

    What the source's face looks like at rest is taken away from all its weights and what the
    target's looks like is put in its place; how far each weight goes is brought nearer to how far
    it goes with the target; a blink that closes the source's eyes closes the target's. Head motion
    is relative to the rest pose and stays as it is; the shoulders are left to the avatar.

    An avatar has learnt what tracked weights look like, with their habit of sharing one movement
    among several rows, so they go to it as they are. Other programs expect each row to mean what
    its name says: for those, without a `target`, the simplest weights are found.

    Args:
        source: a performance, tracked or recorded.
        target: a captured motion of the avatar that is to do it; None gives plain ARKit weights
            over a neutral of 0, for any face.
        effects: (52 + R, P * 3) of the source's face from `landmark_effects`, used without a
            target only: the tracked weights, many of which look alike, are replaced by the
            simplest that move the landmarks the same (`simplest_weights`).
        neutral: (52,) or (52 + R,) weights of the source's face at rest; default found by
            `resting`, and 0 where the source is shorter than 25 frames.
        match: how far ranges are matched, from 0 (not at all) to 1.

    Raises:
        UserError: `source` has no expression.
    """
    if source.expression is None:
        raise UserError("The performance has no expression, so there is nothing to retarget.")
    if not 0 <= match <= 1:
        raise UserError(f"The ranges can be matched from 0 to 1, got {match}.")
    weights = _weights(source)
    rest = resting(weights) if neutral is None else np.zeros(weights.shape[1])
    if neutral is not None:
        rest[: len(neutral)] = neutral
    moved = weights - rest
    gaze = source.gaze
    if target is not None and target.expression is not None:
        own = _weights(target)
        if own.shape != (len(own), weights.shape[1]):  # rows of another head model
            own, moved = own[:, :_ROWS], moved[:, :_ROWS]
        own_rest = resting(own)
        moved[:, :_ROWS] *= _gains(moved[:, :_ROWS], (own - own_rest)[:, :_ROWS], source, match)
        moved += own_rest
        if gaze is not None and target.gaze is not None and len(source) >= _FEW:
            gaze = gaze - np.median(gaze, 0) + np.median(target.gaze, 0)
    elif effects is not None:
        lids = moved[:, _LIDS]
        moved = simplest_weights(moved, effects)
        moved[:, _LIDS] = np.maximum(moved[:, _LIDS], lids)
    moved = np.clip(moved, 0, 1)
    return replace(
        source,
        expression=moved[:, :_ROWS],
        residual=moved[:, _ROWS:] if moved.shape[1] > _ROWS else None,
        torso_pose=None,
        gaze=gaze,
        source=f"retargeted from {source.source or '?'}",
    )


def resting(weights: np.ndarray) -> np.ndarray:
    """(C,) weights of the face at rest in a performance (T, C), columns as `Motion`'s.

    The mouth's are medians over the tenth of the frames in which it is least open, the lids' a low
    quantile, as they are open more often than not, all others medians. 0 for performances of a few
    frames.
    """
    if len(weights) < _FEW:
        return np.zeros(weights.shape[1])
    rest = np.median(weights, axis=0)
    parted = weights[:, ARKIT_INDEX["jawOpen"]] - weights[:, ARKIT_INDEX["mouthClose"]]
    closed = weights[parted <= np.quantile(parted, 0.1)]
    mouth = np.r_[MOUTH_COLUMNS, np.arange(_ROWS, weights.shape[1])]
    rest[mouth] = np.median(closed, axis=0)[mouth]
    rest[_LIDS] = np.quantile(weights[:, _LIDS], 0.25, axis=0)
    return rest


def landmark_effects(head: "ShapedHead") -> np.ndarray:
    """(52 + R, 478 * 3) millimetres by which each row at weight 1 moves a person's landmarks.

    Depth counts by half, because one camera sees it badly.
    """
    rows = np.stack([head.model.landmarks_of(row) for row in head.expression])
    return (rows * (1e3, 1e3, 1e3 * _DEPTH)).reshape(len(rows), -1)


def simplest_weights(weights: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """The sparsest weights in [0, 1] that move the landmarks about as (T, C) `weights` do.

    Minimises |(w - weights) effects|^2 / (2 P) + cost * w by coordinate descent. `weights` may be
    negative, as differences from a neutral face are: an opposite row then explains them.

    Args:
        weights: (T, C); effects: (C, P * 3) in millimetres.
    """
    gram = (effects @ effects.T / (effects.shape[1] / 3)).astype(np.float64)
    cost = np.full(len(gram), _SPARSE)
    cost[_ROWS:] = _SPARSE_RESIDUAL
    step = 1 / (np.diag(gram) + 1e-9)
    result = np.zeros_like(weights, np.float64)
    left = weights @ gram
    for _ in range(_SWEEPS):
        largest = 0.0
        for row in range(len(gram)):
            new = np.clip(result[:, row] + (left[:, row] - cost[row]) * step[row], 0, 1)
            change = new - result[:, row]
            size = float(np.abs(change).max(initial=0))
            if size > 1e-5:
                result[:, row] = new
                left -= change[:, None] * gram[row]
                largest = max(largest, size)
        if largest < 2e-4:
            break
    return result


def _weights(motion: Motion) -> np.ndarray:
    """(T, 52 + R)."""
    assert motion.expression is not None
    parts: list[Any] = [motion.expression]
    if motion.residual is not None:
        parts.append(motion.residual)
    return np.concatenate(parts, 1).astype(np.float64)


def _gains(ours: np.ndarray, theirs: np.ndarray, source: Motion, match: float) -> np.ndarray:
    """(52,) factors from the source's range (T, 52) to the target's (N, 52), about 1."""
    gains = np.ones(_ROWS)
    if len(ours) < _FEW or len(theirs) < _FEW:
        return gains
    high, wide = np.quantile(ours, 0.98, axis=0), np.quantile(theirs, 0.98, axis=0)
    evident = (high > _EVIDENT) & (wide > _EVIDENT)
    gains[evident] = np.clip(wide[evident] / high[evident], *_GAINS) ** match
    blinks = find_blinks(lid_closure(source), source.fps)
    shut = [ours[blink.peak, _LIDS].mean() for blink in blinks]
    # Blinks close the eyes whoever blinks: their peaks decide, in full.
    gains[_LIDS] = np.clip(0.95 / np.median(shut), *_GAINS) if len(shut) else 1.0
    return gains
