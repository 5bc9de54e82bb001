"""From the options of `avatar3d render` to a Motion and its sound."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avatar3d.errors import UserError
from avatar3d.progress import say

if TYPE_CHECKING:
    from avatar3d.audio.tts import Phoneme
    from avatar3d.avatar import PosedAvatar
    from avatar3d.motion import Motion
    from avatar3d.motion.config import MotionConfig

__all__ = ["Wish", "acted_motion", "motion_named", "performance"]

CAPTURED, IDLE = "captured", "idle"
_HELD = 3.0  # seconds of video made of a picture


@dataclass(frozen=True)
class Wish:
    """What the person asked the avatar to perform; one of the first four, and what goes with it."""

    audio: Path | None = None
    text: str | None = None
    motion: str | None = None
    performance: Path | None = None
    keyframes: Path | None = None
    language: str = "en"
    voice: str | None = None
    speed: float = 1.0


@contextmanager
def performance(
    avatar: "PosedAvatar", config: "MotionConfig", wish: Wish, pose: str | None
) -> Iterator[tuple["Motion", Path | None]]:
    """Yield what to perform and the sound file that goes with it, if any.

    Keyframes alone are performed; with anything else they are laid over it.

    Raises:
        UserError: nothing to perform, or too much, or something that cannot be read.
    """
    from avatar3d.motion.composition import layered
    from avatar3d.motion.keyframes import read_keyframes

    over = read_keyframes(wish.keyframes) if wish.keyframes else None
    with _performed(avatar, config, wish, over, pose) as (motion, sound):
        alone = not any((wish.audio, wish.text is not None, wish.motion, wish.performance))
        yield motion if over is None or alone else layered(motion, over), sound


@contextmanager
def _performed(
    avatar: "PosedAvatar",
    config: "MotionConfig",
    wish: Wish,
    over: "Motion | None",
    pose: str | None,
) -> Iterator[tuple["Motion", Path | None]]:
    moving = [name for name in ("motion", "performance") if getattr(wish, name) is not None]
    spoken = [name for name in ("audio", "text") if getattr(wish, name) is not None]
    if len(moving) > 1 or len(spoken) > 1 or (moving and "text" in spoken):
        raise UserError(
            f"--{(moving + spoken)[0]} and --{(moving + spoken)[1]} cannot be performed at once; "
            "`avatar3d motion compose` makes one motion of several."
        )
    if not (moving or spoken or over):
        raise UserError(
            "Say what to perform with one of --audio FILE, --text TEXT, --motion FILE, "
            "--performance CLIP or --keyframes FILE."
        )
    if wish.performance is not None:
        acted, sound = _acted(avatar, wish.performance)
        yield _finished(avatar, acted, config, pose), wish.audio or sound
    elif wish.motion is not None:
        yield _finished(avatar, motion_named(avatar, wish.motion), config, pose), wish.audio
    elif wish.audio is not None:
        from avatar3d.audio import load_audio

        samples, _ = load_audio(wish.audio)
        yield _speech(avatar, samples, config), wish.audio
    elif wish.text is not None:
        from avatar3d.audio import save_wav
        from avatar3d.audio.voices import say_text

        spoken_text = say_text(wish.text, wish.language, wish.voice, wish.speed)
        with tempfile.TemporaryDirectory(prefix="avatar3d-") as folder:
            file = Path(folder) / "speech.wav"
            save_wav(file, spoken_text.samples, spoken_text.rate)
            yield _speech(avatar, spoken_text.at_16k(), config, spoken_text.phonemes), file
    else:
        assert over is not None
        yield _finished(avatar, over, config, pose), None


def motion_named(avatar: "PosedAvatar | None", name: str) -> "Motion":
    """A motion by what a person types for it.

    A motion file (.npz), a recording of Live Link Face (.csv), keyframes (.yaml), a Subject folder
    (its performance as captured), an avatar file (.a3d, the performance kept in it), or `captured`
    for that of `avatar`.
    """
    from avatar3d.motion import Motion

    path = Path(name)
    if name == CAPTURED and avatar is not None:
        return avatar.idle_motion
    if not path.exists():
        raise UserError(
            f"There is no motion {name!r}; name a .npz, .csv or .yaml file, a subject folder or an "
            "avatar file."
        )
    if path.suffix.lower() in (".yaml", ".yml"):
        from avatar3d.motion.keyframes import read_keyframes

        return read_keyframes(path)
    if path.is_dir():
        from avatar3d.subject import Subject

        subject = Subject(path)
        return subject.tracking.motion(subject.fps)
    if path.suffix.lower() == ".a3d":
        from avatar3d.avatar import load

        return load(path).idle_motion
    return Motion.load(name)


def acted_motion(name: str, target: "Motion | None", match: float = 0.5) -> "Motion":
    """Somebody's performance, from a clip, a picture, a Subject or a motion, retargeted.

    Args:
        target: captured motion of who is to do it; None for plain ARKit weights.
    """
    from avatar3d.motion.retargeting import retarget

    path = Path(name)
    if path.is_file() and path.suffix.lower() in (".npz", ".csv", ".yaml", ".yml", ".a3d"):
        return retarget(motion_named(None, name), target, match=match)
    from avatar3d.capture.performance import track_performance

    acted = track_performance(path)
    return retarget(acted.motion, target, acted.effects, match=match)


def _acted(avatar: "PosedAvatar", path: Path) -> tuple["Motion", Path | None]:
    """The performance for this avatar, and the clip's sound if it has any."""
    motion = acted_motion(str(path), avatar.idle_motion)
    if path.is_dir():
        from avatar3d.subject import Subject

        return motion, Subject(path).audio_path
    if len(motion) == 1:  # a picture: its pose, held
        return motion.at(np.zeros(round(_HELD * motion.fps))), None
    if path.suffix.lower() in (".npz", ".csv", ".yaml", ".yml", ".a3d"):
        return motion, None
    from avatar3d.io.video import probe

    return motion, path if probe(path).has_audio else None


def _speech(
    avatar: "PosedAvatar",
    samples: np.ndarray,
    config: "MotionConfig",
    phonemes: "list[Phoneme] | None" = None,
) -> "Motion":
    from avatar3d.audio import SAMPLE_RATE
    from avatar3d.evaluation.metrics import mouth_opening, sound_agreement
    from avatar3d.motion.speech import motion_for_audio

    base = avatar.idle_motion
    result = motion_for_audio(avatar.driver, samples, base.fps, base, config, phonemes)
    assert result.expression is not None
    opening = mouth_opening(result.expression)
    if len(opening) >= 2 * base.fps:
        found = sound_agreement(opening, base.fps, samples, SAMPLE_RATE)
        say(
            f"Mouth ({result.source}) against loudness: correlation {found['correlation']:.2f}, "
            f"open {found['speech']:.2f} in speech and {found['silence']:.2f} in silence."
        )
    return result


def _finished(
    avatar: "PosedAvatar", motion: "Motion", config: "MotionConfig", pose: str | None
) -> "Motion":
    """A motion with the head motion, the eyes and the mood that were asked for."""
    from avatar3d.motion import compose, in_manner, paths
    from avatar3d.motion.emotions import with_emotion
    from avatar3d.motion.manner import speech_effort

    motion = with_emotion(motion, config.emotion, config.emotion_intensity)
    if IDLE in (pose, config.eyes):
        own = in_manner(
            avatar.idle_motion, motion.duration, motion.fps, config.seed, config.intensity,
            speech_effort(motion),
        )  # fmt: skip
        moves, looks = pose == IDLE, config.eyes == IDLE
        motion = compose(motion, own if moves else motion, own if looks else motion, fill="hold")
    if pose in (None, CAPTURED, IDLE):
        return motion
    make = {"orbit": paths.orbit, "nod": paths.nod, "shake": paths.shake, "still": paths.still}
    path = make[str(pose)](motion.duration, motion.fps)
    return path.over(motion.without("head_pose", "torso_pose"))
