"""A talking face from sound: the mouth from a driver, the rest from a performance or made up."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from avatar3d.audio.files import SAMPLE_RATE, checked
from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_INDEX
from avatar3d.motion.audio_driver import PERSONAL, AudioDriver
from avatar3d.motion.config import MotionConfig
from avatar3d.motion.emotions import with_emotion
from avatar3d.motion.energy import from_audio_energy
from avatar3d.motion.idle import MOUTH_COLUMNS, idle
from avatar3d.motion.manner import in_manner, speech_effort
from avatar3d.motion.motion import Motion
from avatar3d.motion.paths import nod, orbit, shake, still
from avatar3d.motion.visemes import from_phonemes
from avatar3d.progress import say

__all__ = ["Phonemes", "around_mouth", "motion_for_audio", "mouth_for_audio"]

Phonemes = Sequence[tuple[str, float, float]]
"""(IPA, start, end) in seconds, as `avatar3d.audio.tts` gives them."""


def motion_for_audio(
    driver: AudioDriver | None,
    samples: np.ndarray,
    fps: float = 25.0,
    base: Motion | None = None,
    config: MotionConfig | None = None,
    phonemes: Phonemes | None = None,
) -> Motion:
    """A whole performance for sound (N,) at 16 kHz.

    Args:
        driver: the avatar's own driver; None when its clip had no speech.
        samples: speech of anybody in any language.
        fps: frames per second of the motion, ceil(duration * fps) frames.
        base: captured motion of the avatar for pose, gaze, brows and blinks.
        config: see `MotionConfig`.
        phonemes: what is said when, where that is known.

    Raises:
        UserError: empty or broken sound, or a driver that was asked for cannot be had.
    """
    config = config or MotionConfig()
    mouth = mouth_for_audio(driver, samples, fps, config, phonemes)
    return around_mouth(mouth, base, config)


def around_mouth(mouth: Motion, base: Motion | None, config: MotionConfig) -> Motion:
    """A whole face around a mouth: pose, gaze, brows and blinks, and the mood, as configured.

    Args:
        mouth: its mouth weights and residual rows are kept, and its source.
        base: captured motion of the avatar; None makes up a calm one.
    """
    assert mouth.expression is not None
    count, fps = len(mouth), mouth.fps
    own = None
    if base is not None and "idle" in (config.eyes, config.pose):
        effort = speech_effort(mouth)
        own = in_manner(base, count / fps, fps, config.seed, config.intensity, effort)
    if own is not None and config.eyes == "idle":
        around = own
    else:
        played = base if config.eyes == "captured" else None
        around = idle(count / fps, fps, config.seed, played)
    head_pose, torso_pose = _poses(config, count, fps, base, own)
    assert around.expression is not None
    expression = around.expression.copy()
    expression[:, MOUTH_COLUMNS] = mouth.expression[:, MOUTH_COLUMNS]
    if mouth.source != PERSONAL and base is not None and base.expression is not None:
        rest = _resting_mouth(base.expression)
        expression[:, MOUTH_COLUMNS] = np.clip(expression[:, MOUTH_COLUMNS] + rest, 0, 1)
    whole = replace(
        around,
        expression=expression,
        head_pose=head_pose,
        torso_pose=torso_pose,
        residual=mouth.residual,
        source=mouth.source,
    )
    return with_emotion(whole, config.emotion, config.emotion_intensity)


def mouth_for_audio(
    driver: AudioDriver | None,
    samples: np.ndarray,
    fps: float,
    config: MotionConfig,
    phonemes: Phonemes | None = None,
) -> Motion:
    """The mouth alone: the avatar's driver, which listens to phonemes that are known; without one
    their visemes, else the universal driver, else the energy."""
    samples = checked(samples)
    if not len(samples):
        raise UserError("The sound to speak is empty; give some speech.")
    said = phonemes or ()
    if said and (config.driver == "visemes" or (config.driver == "auto" and driver is None)):
        return from_phonemes(said, fps, len(samples) / SAMPLE_RATE, config.opening)
    if config.driver == "visemes":
        raise UserError(
            "Visemes need to know what is said when, as with --text and a voice of eSpeak NG; use "
            "driver=auto for any other sound."
        )
    if config.driver == "energy":
        return from_audio_energy(samples, fps, config.opening)
    if config.driver == "personal" and driver is None:
        raise UserError(
            "This avatar has no audio driver of its own, because its clip had too little speech; "
            "use driver=auto or driver=universal."
        )
    try:
        if driver is not None and config.driver != "universal":
            return driver.predict(samples, fps, said)
        from avatar3d.motion.universal import load_universal

        return load_universal().predict(samples, fps, config.opening)
    except UserError as error:
        if config.driver != "auto":
            raise
        if said:
            return from_phonemes(said, fps, len(samples) / SAMPLE_RATE, config.opening)
        say(f"The mouth follows the loudness of the sound only: {error}")
        return from_audio_energy(samples, fps, config.opening)


def _poses(
    config: MotionConfig, count: int, fps: float, base: Motion | None, own: Motion | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The head pose that was asked for, and the torso where it belongs to it."""
    if config.pose == "captured" and base is not None and base.head_pose is not None:
        played = Motion(fps=fps, residual=np.zeros((count, 0))).over(base)
        return played.head_pose, played.torso_pose
    if config.pose == "idle" and own is not None and own.head_pose is not None:
        return own.head_pose, own.torso_pose
    if config.pose in ("captured", "idle"):
        return idle(count / fps, fps, config.seed).head_pose, None
    rounds = {
        "orbit": (orbit, 8.0),
        "nod": (nod, 4.0),
        "shake": (shake, 4.0),
        "still": (still, 4.0),
    }
    make, seconds = rounds[config.pose]
    path = make(seconds, fps)  # begins where it ends, so it can go round and round
    index = np.mod(np.arange(count), len(path) - 1).astype(float)
    return path.at(index).head_pose, None


def _resting_mouth(captured: np.ndarray) -> np.ndarray:
    """Mouth weights (M,) of the closed mouth in captured expressions (T, 52); `MOUTH_COLUMNS`.

    The universal mouth knows only a neutral face; a person's closed mouth may smile or press a
    little, and the avatar has only been seen like that.
    """
    jaw = captured[:, ARKIT_INDEX["jawOpen"]]
    closed = captured[jaw <= np.quantile(jaw, 0.3)]
    rest = np.median(closed, axis=0)
    rest[[ARKIT_INDEX["jawOpen"], ARKIT_INDEX["mouthClose"]]] = 0
    return np.minimum(rest, 0.3)[MOUTH_COLUMNS]
