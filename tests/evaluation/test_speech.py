"""Measures of how lips follow speech, on lips that are known."""

import numpy as np
import pytest

from avatar3d.audio.tts import Phoneme
from avatar3d.evaluation.speech import Closures, closures, energy_agreement, lag, offset

FPS = 25.0


def test_closures_counts_lips_that_meet_and_vowels_that_are_shut() -> None:
    opening = np.ones(50)
    opening[10:12] = 0.0  # 0.40 to 0.44 s
    opening[30] = 0.05  # 1.2 s
    said = [
        Phoneme("m", 0.46, 0.5),  # 20 ms after the lips were shut
        Phoneme("a", 0.6, 0.8),
        Phoneme("b", 0.8, 0.9),  # lips are open
        Phoneme("a", 1.199, 1.201),  # too short to be seen
        Phoneme("pʰ", 1.235, 1.3),
        Phoneme("t", 1.4, 1.5),
    ]
    assert closures(opening, FPS, said) == Closures(bilabials=3, met=2, open_vowels=2, shut=1)


def test_offset_is_unknown_for_lips_that_do_not_follow_the_sound() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 4 * 16_000)
    found = offset(np.linspace(0, 1, 100), samples * np.linspace(1, 0, len(samples)), FPS)
    assert np.isnan(found.value)


@pytest.mark.parametrize("late", [-0.08, 0.0, 0.03, 0.12])
def test_offset_finds_by_how_much_the_sound_is_late(late: float) -> None:
    rng = np.random.default_rng(3)
    times = np.arange(8 * 16_000) / 16_000
    knots = np.arange(-1, 10, 0.12)
    envelope = np.clip(rng.normal(0.4, 0.5, len(knots)), 0.01, 1)
    samples = rng.normal(0, 0.1, len(times)) * np.interp(times - late, knots, envelope)
    frames = np.arange(200) / FPS
    opening = np.log(np.interp(frames, knots, envelope))
    found = offset(opening, samples, FPS)
    assert found.value == pytest.approx(late, abs=0.012)
    assert found.low - 0.01 <= late <= found.high + 0.01
    assert found.width < 0.04


def test_offset_of_lips_that_hardly_follow_the_sound_is_uncertain() -> None:
    widths = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        loudness = np.repeat(rng.uniform(0.05, 1, 40), 3200)  # another syllable every 0.2 s
        samples = rng.normal(0, 0.1, len(loudness)) * loudness
        other = np.repeat(rng.normal(0, 1, 40), 5)  # such as a smile
        opening = 0.4 * np.log(loudness[:: 16_000 // 25]) + other
        widths.append(offset(opening, samples, FPS).width)
    assert np.mean(widths) > 0.1


@pytest.mark.parametrize("late", [-0.06, 0.1])
def test_lag_finds_by_how_much_lips_are_late(late: float) -> None:
    knots = np.arange(-1, 10, 0.12)
    heights, frames = np.random.default_rng(4).normal(size=len(knots)), np.arange(150) / FPS
    true, ours = (np.interp(frames - delay, knots, heights) for delay in (0, late))
    found = lag(-3 + 2 * ours, true, FPS)
    assert found.value == pytest.approx(late, abs=0.012)
    assert found.width < 0.04


def test_energy_agreement_can_leave_pauses_out() -> None:
    rng = np.random.default_rng(6)
    speaking = np.arange(500) % 100 < 70
    samples = rng.normal(0, 0.1, 500 * 640) * np.repeat(np.where(speaking, 1, 0.01), 640)
    opening = np.where(speaking, 1 + 0.1 * rng.normal(size=500), 0)  # rests, but else is random
    inside = speaking & np.roll(speaking, 5) & np.roll(speaking, -5)
    assert energy_agreement(opening, samples, FPS).low > 0.9
    among = energy_agreement(opening, samples, FPS, inside)
    assert among.low < 0 < among.high
