"""What a face does while it does nothing: blinks, glances, small head motion."""

from dataclasses import replace

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion.motion import Motion
from avatar3d.motion.paths import head_rotations

__all__ = ["MOUTH_COLUMNS", "blinks", "glances", "idle"]

MOUTH_COLUMNS = np.array(
    [
        index
        for index, name in enumerate(ARKIT_52)
        if name.startswith(("jaw", "mouth", "tongue", "cheekPuff"))
    ]
)
"""Columns of the expression that speech owns."""

_CLOSE, _HOLD, _OPEN = 0.09, 0.03, 0.16  # seconds of a spontaneous blink
_SACCADE = 0.04  # seconds
_SWAY = np.radians([1.3, 0.9, 0.6])  # standard deviation of yaw, pitch and roll


def idle(seconds: float, fps: float = 25.0, seed: int = 0, base: Motion | None = None) -> Motion:
    """Blinks, gaze and head motion for any duration; the mouth stays neutral.

    Args:
        seconds: duration; frames per second `fps`.
        seed: the same seed gives the same motion.
        base: captured motion; its tracks are used, played forth and back, where it has them, but
            for the mouth. What it lacks is made up.
    """
    if not (0 < seconds <= 36_000 and 1 <= fps <= 1000):
        raise UserError(f"Idle motion must last up to 10 hours, got {seconds} s at {fps} fps.")
    count = max(1, int(np.ceil(seconds * fps - 1e-6)))
    rng = np.random.default_rng(seed)
    closed = blinks(count, fps, rng)
    expression = np.zeros((count, len(ARKIT_52)), np.float32)
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        expression[:, ARKIT_INDEX[name]] = closed
    sway = _sway(count, fps, rng) * _SWAY
    made_up = Motion(
        fps=fps,
        expression=expression,
        head_pose=head_rotations(*sway.T),
        gaze=glances(count, fps, rng),
        source="idle",
    )
    return made_up if base is None else _played(made_up, base)


def blinks(count: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """(T,) lid closure in [0, 1]; about 15 blinks a minute, never two within a second."""
    time = np.arange(count) / fps
    closed = np.zeros(count)
    start = rng.uniform(0.5, 3.0)
    while start < count / fps:
        t = time - start
        falling = np.clip(t / _CLOSE, 0, 1)
        rising = np.clip((t - _CLOSE - _HOLD) / _OPEN, 0, 1)
        closed = np.maximum(closed, _ease(falling) * (1 - _ease(rising)))
        # Gaps between blinks are skewed: many short ones, some long.
        start += 1.0 + float(np.clip(rng.lognormal(0.8, 0.6), 0.2, 9.0))
    return closed


def glances(count: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """(T, 2, 2) gaze: fixations of 0.5 to 3 s a few degrees around straight ahead."""
    time = np.arange(count) / fps
    gaze = np.zeros((count, 2))
    start, current = rng.uniform(0.4, 1.5), np.zeros(2)
    while start < count / fps:
        # Every other glance returns to the viewer.
        target = np.zeros(2) if current.any() else np.radians(rng.normal(0, (3.0, 1.5)))
        moved = _ease(np.clip((time - start) / _SACCADE, 0, 1))[:, None]
        gaze += moved * (target - current)
        current = target
        start += rng.uniform(0.5, 3.0)
    return np.repeat(gaze[:, None], 2, axis=1)


def _sway(count: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """(T, 3) smooth noise of unit variance below about 0.4 Hz, starting at zero."""
    from scipy.interpolate import CubicSpline

    knots = int(np.ceil(count / fps / 1.3)) + 4
    values = rng.normal(size=(knots, 3))
    values[0] = 0
    noise = CubicSpline(np.arange(knots) * 1.3, values)(np.arange(count) / fps)
    return noise - noise[0]


def _played(made_up: Motion, base: Motion) -> Motion:
    """`made_up` with the tracks that `base` has, but a neutral mouth."""
    # A residual track without columns carries the times, and takes everything else from base.
    times = Motion(fps=made_up.fps, residual=np.zeros((len(made_up), 0)))
    played = times.over(base)
    tracks = ("expression", "head_pose", "gaze", "torso_pose")
    own = {n: getattr(played, n) for n in tracks if getattr(played, n) is not None}
    if "expression" in own:
        own["expression"][:, MOUTH_COLUMNS] = 0
    return replace(made_up, **own)


def _ease(x: np.ndarray) -> np.ndarray:
    return x * x * (3 - 2 * x)
