"""Which colours a Gaussian may learn, given how the clip showed the place where it sits.

Skin that the clip shows only edge-on covers a pixel or two at the person's outline. It would rather
take the colour of the background there than fade, and shows it as soon as the head turns. So it
keeps close to the colour it started with, which comes from skin that faced the camera, here or on
the other side, and to the common ones around it. Fading and shrinking are the ways left to show the
background. Hair is all outline; it keeps to the colours of the hair around it.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from avatar3d.avatar.canonical import canonical_cloud
from avatar3d.avatar.opponent import from_opponent, to_opponent
from avatar3d.avatar.state import SplatState
from avatar3d.avatar.views import Shown

__all__ = ["Gamut", "freedom", "learnable_colors"]

_EDGE_ON, _FACING = 0.15, 0.5  # cosine between normal and view, at best
_TIGHT = np.array([0.025, 0.12, 0.025])  # of the colour range, how far what was seen edge-on may go
_EASED = np.array([0.15, 0.5, 0.15])  # farther, what was seen nearly well enough
_FURTHEST = (0.04, 0.2, 0.04)  # that colours shown around widen the range of others
_SKIN_NEIGHBOURS, _SKIN_RARE = 40, 0.1
_STEADY = 0.67  # of freedom, below which a colour does not follow the expression
_HAIR_NEIGHBOURS, _HAIR_RARE = 120, 0.02
_HAIR_MARGIN = np.array([0.015, 0.05, 0.015])
_GUESSED = np.array([0.015, 0.04, 0.015])  # how far hair that no frame shows may go


@dataclass(frozen=True)
class Gamut:
    """Bounds of N Gaussians' colours.

    Attributes:
        low, high: (N, 3), in the coordinates of `to_opponent`.
        steady: (N,) bool, colours that must not change with the expression either.
    """

    low: np.ndarray
    high: np.ndarray
    steady: np.ndarray

    @classmethod
    def unlimited(cls, count: int) -> "Gamut":
        """All of sRGB for everyone."""
        low = np.tile([-1.0, 0.0, -1.0], (count, 1))
        return cls(low, np.ones((count, 3)), np.zeros(count, bool))


def freedom(facing: np.ndarray) -> np.ndarray:
    """From 0 for what was seen edge-on at best to 1 for what has faced the camera.

    Args:
        facing: cosine between normal and view in the best frame, -1 if none saw it.
    """
    return np.clip((facing - _EDGE_ON) / (_FACING - _EDGE_ON), 0, 1)


def learnable_colors(state: SplatState, shown: Shown, guessed: np.ndarray | None = None) -> Gamut:
    """The gamut of a state before training; its hair is given colours inside it.

    Args:
        shown: what the clip shows of the first Gaussians, those on the mesh.
        guessed: indices of hair and scalp that no frame shows. They are seen through the hair
            before them, and would learn whatever that lacks.
    """
    count, skin = len(shown.facing), state.part == SplatState.PARTS.index("skin")
    free = np.ones(len(state))
    free[:count] = freedom(shown.facing)
    free[~skin] = 1
    reach = np.where(free[:, None] < 1, _TIGHT + _EASED * free[:, None] ** 2, 2)
    tint = to_opponent(state.color)
    low, high = tint - reach, tint + reach
    points = canonical_cloud(state).means
    known = np.flatnonzero(shown.bare & skin[:count])
    limited = np.flatnonzero(free < 1)
    if len(limited) and len(known):
        around = tint[known][_neighbours(points[limited], points[known], _SKIN_NEIGHBOURS)]
        common = np.quantile(around, [_SKIN_RARE, 1 - _SKIN_RARE], axis=1)
        most = np.maximum(reach[limited], _FURTHEST)
        low[limited] = np.minimum(low[limited], np.maximum(common[0], tint[limited] - most))
        high[limited] = np.maximum(high[limited], np.minimum(common[1], tint[limited] + most))
    hair = np.flatnonzero(state.part == SplatState.PARTS.index("hair"))
    if len(hair):
        around = tint[hair][_neighbours(points[hair], points[hair], _HAIR_NEIGHBOURS)]
        common = np.quantile(around, [_HAIR_RARE, 1 - _HAIR_RARE], axis=1)
        low[hair], high[hair] = common[0] - _HAIR_MARGIN, common[1] + _HAIR_MARGIN
        tint[hair] = np.clip(tint[hair], low[hair], high[hair])
        state.color[hair] = from_opponent(tint[hair]).clip(0, 1)
    if guessed is not None:
        low[guessed], high[guessed] = tint[guessed] - _GUESSED, tint[guessed] + _GUESSED
    return Gamut(low, high, free < _STEADY)


def _neighbours(points: np.ndarray, others: np.ndarray, most: int) -> np.ndarray:
    """(n, k) the nearest of `others` for each of the points, k at most `most`."""
    count = min(most, len(others))
    _, nearest = cKDTree(others).query(points, count)
    return np.asarray(nearest).reshape(len(points), count)
