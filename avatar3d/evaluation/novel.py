"""How whole an avatar is from sides that no camera filmed, where there is no truth to compare."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_closing, binary_erosion, binary_fill_holes
from scipy.spatial import cKDTree

from avatar3d.avatar import Avatar
from avatar3d.avatar.opponent import to_opponent

__all__ = ["novel_views"]

_SOLID = 0.9  # alpha
_GAP, _EDGE = 0.012, 0.006  # of the height: gaps that count as holes; outline that does not count
_BAND = 0.015  # of the height, to both sides, whose colours a turned head may show
_FOREIGN = (0.04, 0.1, 0.04)  # departure in red - green, green, blue - green that is seen
_COMMON = 5  # pixels of a colour, for it to count as shown
_MOVED = 3 / 255
_EVERY = 3  # row of pixels is looked at


def novel_views(avatar: Avatar, degrees: Sequence[float] = (-35.0, 35.0)) -> dict[str, float]:
    """Holes and colours from nowhere with the head turned.

    Args:
        avatar: any; it is asked for pictures only.
        degrees: how far the head turns from rest, each in a picture of its own.

    Returns:
        `novel_holes`: share of the pixels inside the person's outline, small gaps closed, that are
        not solid. `novel_foreign`: share of the turned pixels whose colour the person does not show
        from the front at about the same height: turning a head about its vertical axis moves
        nothing up or down, so the wall's colour on a jaw is found, and an ear's is not.
    """
    front = _picture(avatar, 0.0)
    holes, inside, foreign, turned = 0, 0, 0, 0
    for angle in degrees:
        picture = _picture(avatar, math.radians(angle))
        body = _body(picture[..., 3])
        holes += int((body & (picture[..., 3] < _SOLID)).sum())
        inside += int(body.sum())
        moved = body & (np.abs(picture - front)[..., :3].max(-1) > _MOVED)
        moved[np.arange(len(moved)) % _EVERY > 0] = False
        foreign += _foreign(picture, front, moved)
        turned += int(moved.sum())
    return {
        "novel_holes": holes / max(inside, 1),
        "novel_foreign": foreign / max(turned, 1),
    }


def _picture(avatar: Avatar, yaw: float) -> np.ndarray:
    """(H, W, 4) in [0, 1]."""
    return avatar.render(yaw=yaw, transparent=True).astype(np.float32) / 255


def _body(alpha: np.ndarray) -> np.ndarray:
    """(H, W) bool: inside the outline, whatever it is like there."""
    gap, edge = (max(1, round(share * len(alpha))) for share in (_GAP, _EDGE))
    padded = np.pad(alpha > 0.5, gap, mode="edge")
    filled = binary_fill_holes(binary_closing(padded, iterations=gap))
    return binary_erosion(filled, iterations=edge, border_value=1)[gap:-gap, gap:-gap]


def _foreign(picture: np.ndarray, front: np.ndarray, where: np.ndarray) -> int:
    """Number of pixels there with a colour that the front shows nowhere near their height."""
    colors, palette = (to_opponent(image[..., :3]) / _FOREIGN for image in (picture, front))
    solid = binary_erosion(front[..., 3] >= _SOLID, iterations=max(1, round(_EDGE * len(front))))
    reach = max(1, round(_BAND * len(picture)))
    count = 0
    for row in np.flatnonzero(where.any(1)):
        near = slice(max(0, row - reach), row + reach + 1)
        shown = palette[near][solid[near]]
        asked = colors[row][where[row]]
        if len(shown) < _COMMON:
            count += len(asked)
            continue
        distance, _ = cKDTree(shown).query(asked, [_COMMON], distance_upper_bound=1.0, p=np.inf)
        count += int(np.isinf(distance).sum())
    return count
