"""The mouth that follows the energy of any sound."""

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_INDEX
from avatar3d.motion.energy import from_audio_energy

RATE = 16_000


def babble(envelope: np.ndarray) -> np.ndarray:
    """A harmonic voice with formants of an open vowel, scaled by an envelope at 100 Hz."""
    seconds = len(envelope) / 100
    t = np.arange(int(seconds * RATE)) / RATE
    voice = np.zeros_like(t)
    for k in range(1, 33):
        hertz = 120 * k
        strength = sum(1 / (1 + ((hertz - f) / 120) ** 2) for f in (750, 1200, 2500))
        voice += strength * np.sin(2 * np.pi * hertz * t)
    return (0.05 * voice * np.interp(t, np.arange(len(envelope)) / 100, envelope)).astype("float32")


def jaw(samples: np.ndarray, fps: float = 25.0) -> np.ndarray:
    expression = from_audio_energy(samples, fps).expression
    assert expression is not None
    return expression[:, ARKIT_INDEX["jawOpen"]]


def test_the_jaw_follows_the_voice_without_lag() -> None:
    t = np.arange(600) / 100
    envelope = np.clip(np.sin(2 * np.pi * 1.2 * t), 0.003, 1)
    opened = jaw(babble(envelope), fps=100)
    level = np.log(envelope)
    assert np.corrcoef(opened, level)[0, 1] > 0.9
    lags = range(-15, 16)
    match = [np.corrcoef(np.roll(opened, -lag)[50:-50], level[50:-50])[0, 1] for lag in lags]
    assert abs(lags[int(np.argmax(match))]) <= 2


def test_silence_noise_and_pauses_leave_the_mouth_closed() -> None:
    rng = np.random.default_rng(0)
    assert jaw(np.zeros(RATE, np.float32)).max() == 0
    assert jaw(rng.normal(0, 0.05, 2 * RATE).astype(np.float32)).max() == 0
    envelope = np.zeros(600)
    envelope[200:350] = np.abs(np.sin(np.arange(150) / 8))
    noisy = babble(envelope) + rng.normal(0, 0.001, 6 * RATE).astype(np.float32)
    opened = jaw(noisy)
    time = np.arange(len(opened)) / 25
    assert opened[(time < 1.8) | (time > 3.8)].max() < 0.03 * opened.max()
    assert opened.max() > 0.15


@pytest.mark.parametrize("fps", [24.0, 29.97, 60.0])
def test_there_is_a_frame_for_every_moment(fps: float) -> None:
    assert len(jaw(np.zeros(RATE + 7, np.float32), fps)) == np.ceil((RATE + 7) / RATE * fps)


def test_bad_sound_is_refused() -> None:
    for samples in (np.zeros(0), np.full(100, np.nan), np.zeros((2, 100))):
        with pytest.raises(UserError):
            from_audio_energy(samples, 25)
