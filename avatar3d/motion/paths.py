"""Head motion on simple paths: orbit, nod, shake, still. All begin and end at the rest pose."""

import numpy as np

from avatar3d.errors import UserError
from avatar3d.motion.motion import Motion

__all__ = ["head_angles", "head_rotations", "nod", "orbit", "shake", "still"]

_PIVOT = np.array([0.0, -0.06, -0.015])
"""Metres in the head frame: about where the skull turns on the neck."""


def orbit(seconds: float, fps: float = 25.0, degrees: float = 25.0) -> Motion:
    """Turn to the left, to the right and back, rising and falling a little, so all sides show.

    Args:
        seconds: duration of one round.
        fps: frames per second.
        degrees: largest turn to either side; the head rises and falls by a third of it.
    """
    phase = 2 * np.pi * _fraction(seconds, fps)
    angle = np.radians(degrees)
    yaw, pitch = angle * np.sin(phase), angle / 3 * np.sin(2 * phase)
    return _motion(yaw, pitch, np.zeros_like(yaw), fps, "orbit")


def nod(seconds: float, fps: float = 25.0, degrees: float = 12.0, times: int = 2) -> Motion:
    """Nod `times` times, `degrees` down from the rest pose and a third of that up."""
    fraction = _fraction(seconds, fps)
    swing = np.sin(2 * np.pi * times * fraction) * _fade(fraction)
    pitch = -np.radians(degrees) * np.where(swing > 0, swing, swing / 3)
    return _motion(np.zeros_like(pitch), pitch, np.zeros_like(pitch), fps, "nod")


def shake(seconds: float, fps: float = 25.0, degrees: float = 15.0, times: int = 2) -> Motion:
    """Shake the head `times` times by `degrees` to either side."""
    fraction = _fraction(seconds, fps)
    yaw = np.radians(degrees) * np.sin(2 * np.pi * times * fraction) * _fade(fraction)
    return _motion(yaw, np.zeros_like(yaw), np.zeros_like(yaw), fps, "shake")


def still(seconds: float, fps: float = 25.0) -> Motion:
    """The rest pose."""
    zero = np.zeros(len(_fraction(seconds, fps)))
    return _motion(zero, zero, zero, fps, "still")


def head_rotations(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Head poses (T, 4, 4) relative to rest from angles (T,) in radians.

    Positive yaw turns to the person's left, positive pitch looks up, positive roll tilts the crown
    to the left (`avatar3d.geometry.yaw_pitch_roll`). The head turns about the top of the neck.
    """
    import torch

    from avatar3d.geometry import yaw_pitch_roll

    angles = (torch.as_tensor(np.asarray(a, np.float64)) for a in (yaw, pitch, roll))
    rotation = yaw_pitch_roll(*angles).numpy()
    pose = np.tile(np.eye(4), (len(rotation), 1, 1))
    pose[:, :3, :3] = rotation
    pose[:, :3, 3] = _PIVOT - rotation @ _PIVOT
    return pose


def head_angles(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Yaw, pitch and roll (T,) in radians of poses (T, 4, 4); the inverse of `head_rotations`."""
    rotation = poses[:, :3, :3]
    pitch = np.arcsin(np.clip(rotation[:, 1, 2], -1, 1))
    yaw = np.arctan2(rotation[:, 0, 2], rotation[:, 2, 2])
    roll = -np.arctan2(rotation[:, 1, 0], rotation[:, 1, 1])
    return yaw, pitch, roll


def _motion(
    yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray, fps: float, source: str
) -> Motion:
    return Motion(fps=fps, head_pose=head_rotations(yaw, pitch, roll), source=source)


def _fraction(seconds: float, fps: float) -> np.ndarray:
    """(T,) from 0 to 1 over the path."""
    if not (0 < seconds <= 36_000 and 1 <= fps <= 1000):
        raise UserError(
            f"A head path must last up to 10 hours at 1 to 1000 frames per second, got {seconds} s "
            f"at {fps}."
        )
    return np.linspace(0, 1, max(2, round(seconds * fps)))


def _fade(fraction: np.ndarray) -> np.ndarray:
    """Eases in and out over the outer eighths."""
    edge = np.clip(np.minimum(fraction, 1 - fraction) * 8, 0, 1)
    return edge * edge * (3 - 2 * edge)
