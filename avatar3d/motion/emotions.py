"""Moods to lay over any motion."""

import difflib

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_INDEX
from avatar3d.motion.composition import layered
from avatar3d.motion.motion import Motion
from avatar3d.motion.sliders import pose

__all__ = ["EMOTIONS", "emotion", "with_emotion"]

EMOTIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": {
        "mouthSmile": 0.5, "mouthDimple": 0.15, "cheekSquint": 0.35, "eyeSquint": 0.2,
        "browOuterUp": 0.1, "mouthUpperUp": 0.08,
    },
    "serious": {
        "browDown": 0.6, "eyeSquint": 0.25, "mouthPress": 0.3, "mouthFrown": 0.25,
        "mouthShrugLower": 0.15,
    },
    "surprised": {
        "browInnerUp": 0.7, "browOuterUp": 0.6, "eyeWide": 0.5, "jawOpen": 0.1,
        "mouthFunnel": 0.05,
    },
}  # fmt: skip
"""ARKit weights at intensity 1; a name without Left or Right means both sides."""

_LIPS_MEET = ("mouthClose", "mouthPressLeft", "mouthPressRight")
_MOST = 2.0


def emotion(name: str, intensity: float = 1.0) -> Motion:
    """A mood as a motion of one frame, for `layered`.

    Args:
        name: one of `EMOTIONS`; intensity: 0 (none) to 2.

    Raises:
        UserError: an unknown mood or intensity.
    """
    if name not in EMOTIONS:
        near = difflib.get_close_matches(name, EMOTIONS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(EMOTIONS)}."
        raise UserError(f"There is no emotion {name!r}; {hint}")
    if not 0 <= intensity <= _MOST:
        raise UserError(
            f"The intensity of an emotion must be within 0 to {_MOST:g}, got {intensity}."
        )
    return pose({key: intensity * value for key, value in EMOTIONS[name].items()})


def with_emotion(motion: Motion, name: str, intensity: float = 1.0, fade: float = 0.5) -> Motion:
    """`motion` in a mood, which comes up over the first `fade` seconds.

    Where the mouth speaks, what the mood does to jaw and lips yields to it by up to a half, so that
    a smile does not blur the vowels; brows, eyes and cheeks keep all of it.
    """
    mood = emotion(name, intensity)
    if not EMOTIONS[name]:
        return motion
    assert mood.expression is not None
    grown = np.clip((np.arange(len(motion)) + 1) / max(fade * motion.fps, 1), 0, 1)
    weights = mood.expression * (grown**2 * (3 - 2 * grown))[:, None]
    if motion.expression is not None:
        jaw = motion.expression[:, ARKIT_INDEX["jawOpen"]]
        shut = motion.expression[:, [ARKIT_INDEX[n] for n in _LIPS_MEET]].max(1)
        busy = np.clip(np.maximum(2 * jaw, 1.5 * shut), 0, 1)
        spoken = [i for n, i in ARKIT_INDEX.items() if n.startswith(("mouth", "jaw"))]
        weights[:, spoken] *= (1 - 0.5 * busy)[:, None]
        weights[:, ARKIT_INDEX["jawOpen"]] *= 1 - np.clip(2 * shut, 0, 1)
    return layered(motion, Motion(motion.fps, weights))
