"""Speech-like motion with known values: syllables, blinks, glances, nods."""

from dataclasses import dataclass

import numpy as np
import torch

from avatar3d.geometry import yaw_pitch_roll
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.synth.spoken import Spoken

__all__ = ["Performance", "perform"]

_SYLLABLE_SECONDS = (0.14, 0.26)
_PHRASE_SYLLABLES = (4, 9)
_PAUSE_SECONDS = (0.25, 0.6)
_BLINK_SECONDS = 0.16

# Mouth shapes of vowels: weights at full loudness.
_VOWELS: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.45, "mouthLowerDownLeft": 0.25, "mouthLowerDownRight": 0.25},
    {"jawOpen": 0.22, "mouthStretchLeft": 0.35, "mouthStretchRight": 0.35, "mouthSmileLeft": 0.15,
     "mouthSmileRight": 0.15},
    {"jawOpen": 0.25, "mouthFunnel": 0.55},
    {"jawOpen": 0.14, "mouthPucker": 0.6},
    {"jawOpen": 0.30, "mouthUpperUpLeft": 0.3, "mouthUpperUpRight": 0.3},
)  # fmt: skip


@dataclass(frozen=True)
class Performance:
    """T frames. Angles in radians, lengths in metres.

    Attributes:
        expression: (T, 52) ARKit weights; gaze: (T, 2, 2).
        head: (T, 4, 4) motion of the head from rest, in the head frame; torso: (T, 4, 4) likewise.
        loudness: (T,) in [0, 1], how far the mouth of the sound is open.
        vowel: (T,) index of the vowel, for the colour of the sound; 0 where words are spoken.
    """

    expression: np.ndarray
    gaze: np.ndarray
    head: np.ndarray
    torso: np.ndarray
    loudness: np.ndarray
    vowel: np.ndarray


def perform(
    rng: np.random.Generator, frames: int, fps: float, spoken: Spoken | None = None
) -> Performance:
    """A person talking for a while, with pauses: the given words, else a babble of vowels."""
    time = np.arange(frames) / fps
    if spoken is not None:
        expression, loudness = spoken.expression.copy(), spoken.loudness
        vowel = np.zeros(frames, int)
    else:
        loudness, mouth, vowel = _speech(rng, time)
        expression = np.zeros((frames, len(ARKIT_52)), np.float32)
        for index, shape in enumerate(_VOWELS):
            for name, weight in shape.items():
                expression[:, ARKIT_INDEX[name]] += weight * mouth[:, index]
    blink = _blinks(rng, time)
    brow = 0.5 * np.clip(_drift(rng, time, 0.35), 0, 1)
    smile = 0.25 * np.clip(_drift(rng, time, 0.2), 0, 1)
    for side in ("Left", "Right"):
        expression[:, ARKIT_INDEX[f"eyeBlink{side}"]] = blink
        expression[:, ARKIT_INDEX[f"browOuterUp{side}"]] = 0.6 * brow
        expression[:, ARKIT_INDEX[f"mouthSmile{side}"]] += smile
    expression[:, ARKIT_INDEX["browInnerUp"]] = brow
    gaze = _glances(rng, time)
    pitch = gaze[:, :, 1].mean(1)
    for side in ("Left", "Right"):  # the lids go with the eyes
        expression[:, ARKIT_INDEX[f"eyeLookDown{side}"]] = np.clip(-pitch / 0.5, 0, 1) * (1 - blink)
        expression[:, ARKIT_INDEX[f"eyeLookUp{side}"]] = np.clip(pitch / 0.5, 0, 1) * (1 - blink)

    yaw, nod, roll = (_drift(rng, time, rate) for rate in (0.25, 0.45, 0.2))
    angles = np.stack([0.22 * yaw, 0.10 * nod + 0.03 * loudness, 0.06 * roll], 1)
    shift = np.stack([_drift(rng, time, 0.2) for _ in range(3)], 1) * [0.006, 0.004, 0.008]
    sway = np.stack([_drift(rng, time, 0.2) for _ in range(3)], 1)
    return Performance(
        expression=np.clip(expression, 0, 1),
        gaze=gaze.astype(np.float32),
        head=_poses(angles, shift),
        torso=_poses(sway * [0.03, 0.015, 0.012], shift * 0.5),
        loudness=loudness,
        vowel=vowel,
    )


def _speech(
    rng: np.random.Generator, time: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loudness (T,), weight of every vowel's mouth shape (T, 5) and the vowel sounding (T,)."""
    loudness = np.zeros(len(time))
    mouth = np.zeros((len(time), len(_VOWELS)))
    vowel = np.zeros(len(time), int)
    now = rng.uniform(0.15, 0.3)
    while now < time[-1]:
        for _ in range(rng.integers(*_PHRASE_SYLLABLES)):
            length = rng.uniform(*_SYLLABLE_SECONDS)
            which, strength = rng.integers(len(_VOWELS)), rng.uniform(0.55, 1.0)
            phase = (time - now) / length
            sounding = (phase >= 0) & (phase < 1)
            bump = np.where(sounding, np.sin(np.pi * np.clip(phase, 0, 1)) ** 2, 0)
            loudness += strength * bump
            mouth[:, which] += strength * bump
            vowel[sounding] = which
            now += 0.85 * length
        now += rng.uniform(*_PAUSE_SECONDS)
    return np.clip(loudness, 0, 1), np.clip(mouth, 0, 1), vowel


def _blinks(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    blink = np.zeros(len(time))
    now = rng.uniform(0.4, 1.2)
    while now < time[-1]:
        phase = np.clip((time - now) / _BLINK_SECONDS, 0, 1)
        blink = np.maximum(blink, np.clip(1.6 * np.sin(np.pi * phase), 0, 1))
        now += rng.uniform(1.2, 3.0)
    return blink


def _glances(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """(T, 2, 2): both eyes jump together, and rest in between."""
    gaze = np.zeros((len(time), 2))
    now, target = 0.0, np.zeros(2)
    while now <= time[-1]:
        moved = np.clip((time - now) / 0.05, 0, 1)[:, None]
        gaze = np.where(time[:, None] >= now, gaze * (1 - moved) + target * moved, gaze)
        now += rng.uniform(0.5, 1.4)
        target = rng.uniform([-0.22, -0.12], [0.22, 0.12])
    return np.repeat(gaze[:, None], 2, 1)


def _drift(rng: np.random.Generator, time: np.ndarray, rate: float) -> np.ndarray:
    """A smooth wander in about [-1, 1] with frequencies around `rate` hertz, 0 at the start."""
    frequency = rate * rng.uniform(0.6, 1.6, 3)
    phase = rng.uniform(0, 2 * np.pi, 3)
    waves = np.sin(2 * np.pi * time[:, None] * frequency + phase) - np.sin(phase)
    return (waves * [0.5, 0.35, 0.25]).sum(1)


def _poses(angles: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(T, 4, 4) from yaw, pitch, roll (T, 3) about the origin and translations (T, 3)."""
    pose = np.tile(np.eye(4), (len(angles), 1, 1))
    columns = [torch.from_numpy(np.ascontiguousarray(column)) for column in angles.T]
    pose[:, :3, :3] = yaw_pitch_roll(*columns).numpy()
    pose[:, :3, 3] = shift
    return pose
