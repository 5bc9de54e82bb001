"""One frame from named values, as sliders and keyframes give them."""

import difflib
from collections.abc import Mapping

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion.motion import Motion
from avatar3d.motion.paths import head_rotations

__all__ = ["columns_named", "expression_vector", "pose"]


def pose(
    expression: Mapping[str, float] | np.ndarray | None = None,
    yaw: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    gaze: tuple[float, float] | np.ndarray | None = None,
    fps: float = 25.0,
) -> Motion:
    """A motion of one frame.

    Args:
        expression: ARKit weights by name, e.g. {"jawOpen": 0.4}, or all 52; others are 0. A name
            without Left or Right, such as "mouthSmile", sets both sides.
        yaw, pitch, roll: radians from the rest pose; to the person's left, up, crown to the left.
        gaze: (yaw, pitch) of both eyes in radians, or (2, 2) per eye; default straight ahead.
        fps: nominal frame rate.

    Raises:
        UserError: an unknown expression name or values that are not finite.
    """
    look = np.zeros((2, 2)) if gaze is None else np.broadcast_to(np.asarray(gaze, float), (2, 2))
    angles = np.array([yaw, pitch, roll], float)
    if not np.isfinite(angles).all():
        raise UserError(f"The head pose must be finite angles in radians, got {angles.tolist()}.")
    return Motion(
        fps=fps,
        expression=expression_vector(expression)[None],
        head_pose=head_rotations(*angles[:, None]),
        gaze=look[None],
        source="sliders",
    )


def columns_named(name: str) -> list[int]:
    """Columns of an ARKit weight: one, or two for a name without its Left or Right.

    Raises:
        UserError: an unknown name, with the nearest known one.

    Example:
        >>> columns_named("jawOpen"), columns_named("eyeBlink")
        ([17], [0, 7])
    """
    if name in ARKIT_INDEX:
        return [ARKIT_INDEX[name]]
    both = [ARKIT_INDEX[f"{name}{s}"] for s in ("Left", "Right") if f"{name}{s}" in ARKIT_INDEX]
    # jawLeft and jawRight, mouthLeft and mouthRight are opposites: together they are nothing.
    if len(both) == 2 and name not in ("jaw", "mouth"):
        return both
    near = difflib.get_close_matches(str(name), ARKIT_52, 1, 0.3) or ["jawOpen"]
    raise UserError(f"There is no expression {name!r}; did you mean {near[0]!r}?")


def expression_vector(expression: Mapping[str, float] | np.ndarray | None) -> np.ndarray:
    """(52,) weights from names or from an array; clipped to [0, 1].

    Raises:
        UserError: an unknown name (with the nearest known one), a wrong length, or not finite.
    """
    vector = np.zeros(len(ARKIT_52), np.float32)
    if isinstance(expression, Mapping):
        for name, value in expression.items():
            vector[columns_named(name)] = value
    elif expression is not None:
        given = np.asarray(expression, np.float32)
        if given.shape != vector.shape:
            raise UserError(f"An expression has 52 ARKit weights, got an array of {given.shape}.")
        vector = given
    if not np.isfinite(vector).all():
        raise UserError("Expression weights must be finite numbers.")
    return np.clip(vector, 0, 1)
