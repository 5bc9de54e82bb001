"""From the options of `avatar3d render` to a Motion and its sound."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avatar3d.errors import UserError
from avatar3d.progress import say

if TYPE_CHECKING:
    from avatar3d.avatar import SplatAvatar
    from avatar3d.motion import Motion
    from avatar3d.motion.config import MotionConfig

__all__ = ["motion_named", "performance"]

CAPTURED = "captured"


@contextmanager
def performance(
    avatar: "SplatAvatar",
    config: "MotionConfig",
    audio: Path | None,
    text: str | None,
    language: str,
    voice: str | None,
    motion: str | None,
    pose: str | None,
) -> Iterator[tuple["Motion", Path | None]]:
    """Yield what to perform and the sound file that goes with it, if any.

    Raises:
        UserError: not exactly one of audio, text and motion, or one that cannot be read.
    """
    if sum(given is not None for given in (audio, text, motion)) != 1:
        raise UserError(
            "Say what to perform with one of --audio FILE, --text TEXT or --motion FILE."
        )
    if motion is not None:
        yield _motion(avatar, motion, pose), None
    elif audio is not None:
        from avatar3d.audio import load_audio

        samples, _ = load_audio(audio)
        yield _speech(avatar, samples, config), audio
    else:
        from avatar3d.audio import save_wav
        from avatar3d.audio.tts import speak

        spoken = speak(text or "", language, voice)
        with tempfile.TemporaryDirectory(prefix="avatar3d-") as folder:
            sound = Path(folder) / "speech.wav"
            save_wav(sound, spoken.samples, spoken.rate)
            yield _speech(avatar, spoken.at_16k(), config), sound


def motion_named(avatar: "SplatAvatar", name: str) -> "Motion":
    """The motion of a file (.npz, or .csv of Live Link Face), or the avatar's `captured` one."""
    from avatar3d.motion import Motion

    return avatar.idle_motion if name == CAPTURED else Motion.load(name)


def _speech(avatar: "SplatAvatar", samples: np.ndarray, config: "MotionConfig") -> "Motion":
    from avatar3d.audio import SAMPLE_RATE
    from avatar3d.evaluation.metrics import mouth_opening, sound_agreement
    from avatar3d.motion.speech import motion_for_audio

    base = avatar.idle_motion
    result = motion_for_audio(avatar.driver, samples, base.fps, base, config)
    assert result.expression is not None
    opening = mouth_opening(result.expression)
    if len(opening) >= 2 * base.fps:
        found = sound_agreement(opening, base.fps, samples, SAMPLE_RATE)
        say(
            f"Mouth ({result.source}) against loudness: correlation {found['correlation']:.2f}, "
            f"open {found['speech']:.2f} in speech and {found['silence']:.2f} in silence."
        )
    return result


def _motion(avatar: "SplatAvatar", name: str, pose: str | None) -> "Motion":
    from avatar3d.motion import paths

    motion = motion_named(avatar, name)
    if pose is None or pose == CAPTURED:
        return motion
    make = {"orbit": paths.orbit, "nod": paths.nod, "shake": paths.shake, "still": paths.still}
    if pose not in make:
        raise UserError(
            f"--pose {pose} needs speech; with --motion it is one of {', '.join(make)}."
        )
    path = make[pose](motion.duration, motion.fps)
    return path.over(motion.without("head_pose", "torso_pose"))
