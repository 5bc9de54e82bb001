"""Which of the driving signals each group hears, and where in the head it has a say at first."""

import numpy as np
from scipy.spatial import cKDTree

from avatar3d.avatar.rig import HeadArrays
from avatar3d.head.arkit import ARKIT_52

__all__ = ["group_rows", "initial_gates", "mouth_rows"]

_EYES, _REST = ("eye",), ("brow", "cheekSquint", "nose")
_MOVED = 0.0025  # metres that a row moves a place at weight 1, for its group to have its half there
_SHARPNESS = 3.0  # logits for each doubling of that
_SOFTNESS, _FADING = 0.008, 0.01  # metres
_WIDEST = 4.0  # logits: gates start between 0.02 and 0.98
_MOST_POINTS = 50_000


def group_rows(expressions: int) -> np.ndarray:
    """(3, E + 4) bool: what mouth, eyes and the rest hear of expression weights and gaze.

    The mouth has all rows of the head model after the 52, which are its own.
    """
    eyes = np.array([name.startswith(_EYES) for name in ARKIT_52])
    rest = np.array([name.startswith(_REST) for name in ARKIT_52])
    rows = np.zeros((3, expressions + 4), bool)
    rows[0, : len(ARKIT_52)], rows[0, len(ARKIT_52) : expressions] = ~eyes & ~rest, True
    rows[1, : len(ARKIT_52)], rows[1, expressions:] = eyes, True
    rows[2, : len(ARKIT_52)] = rest
    return rows


def mouth_rows(expressions: int) -> np.ndarray:
    """(M,) indices of the expression rows that the mouth hears."""
    return np.flatnonzero(group_rows(expressions)[0])


def initial_gates(head: HeadArrays, points: np.ndarray) -> np.ndarray:
    """(n, 3) logits at points (n, 3) of the neutral head: open where a group's rows move it.

    The eyeballs themselves are not moved by any row, but belong to the eyes; teeth and tongue are
    reached through what lies around them.
    """
    moved = np.linalg.norm(head.expression, axis=2)  # (E, V)
    rows = group_rows(len(head.expression))[:, :-4]
    strength = np.stack([moved[row].max(0, initial=0) for row in rows], 1)  # (V, 3)
    strength[head.eye > 0, 1] = 4 * _MOVED
    tree = cKDTree(head.vertices)
    logits = np.empty((len(points), 3), np.float32)
    for first in range(0, len(points), _MOST_POINTS):
        some = points[first : first + _MOST_POINTS]
        distance, index = tree.query(some, min(12, tree.n))
        weight = np.exp(-(distance**2 - distance[:, :1] ** 2) / (2 * _SOFTNESS**2))
        near = (weight[..., None] * strength[index]).sum(1) / weight.sum(1, keepdims=True)
        near *= np.exp(-(np.maximum(distance[:, :1] - _SOFTNESS, 0) ** 2) / (2 * _FADING**2))
        logits[first : first + len(some)] = _SHARPNESS * np.log2(near / _MOVED + 1e-3)
    return logits.clip(-_WIDEST, _WIDEST)
