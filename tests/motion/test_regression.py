"""Time taps, activity and the ridge regression."""

import numpy as np

from avatar3d.audio.features import levelled, log_mel
from avatar3d.motion.regression import blocks, fit_ridge
from avatar3d.motion.windows import activity, gate, normalised, taps


def smooth_noise(rng: np.random.Generator, count: int, columns: int) -> np.ndarray:
    raw = rng.normal(size=(count + 20, columns))
    kernel = np.hanning(9) / np.hanning(9).sum()
    return np.stack([np.convolve(c, kernel, "same") for c in raw.T], 1)[10:-10] * 3


def test_ridge_recovers_a_known_linear_map() -> None:
    rng = np.random.default_rng(0)
    x, true = smooth_noise(rng, 600, 12), rng.normal(size=(12, 3))
    y = x @ true + 2 + 0.01 * rng.normal(size=(600, 3))
    found = fit_ridge(x, y, np.zeros_like(y), 25)
    predicted = found.bias + x @ found.weights
    for k in range(3):
        assert np.corrcoef(predicted[:, k], y[:, k])[0, 1] > 0.98
        assert np.corrcoef(found.held_out[:, k], y[:, k])[0, 1] > 0.95


def test_a_good_prior_is_kept_and_noise_is_not_fitted() -> None:
    rng = np.random.default_rng(1)
    x, prior = rng.normal(size=(500, 300)), smooth_noise(rng, 500, 2)
    y = 1.7 * prior - 3 + 0.05 * rng.normal(size=(500, 2))
    found = fit_ridge(x, y, prior, 25)
    assert np.allclose(found.slope, 1.7, atol=0.05)
    assert np.abs((found.bias + found.slope * prior + x @ found.weights) - y).mean() < 0.1


def test_held_out_predictions_of_noise_are_no_better_than_chance() -> None:
    rng = np.random.default_rng(2)
    # Slow features and targets that have nothing to do with each other: where neighbours leak
    # into training, such data looks predictable.
    correlations = []
    for _ in range(10):
        x, y = smooth_noise(rng, 400, 200), smooth_noise(rng, 400, 1)
        held_out = fit_ridge(x, y, np.zeros_like(y), 25).held_out
        correlations.append(np.corrcoef(held_out[:, 0], y[:, 0])[0, 1])
    assert np.mean(correlations) < 0.1


def test_an_inverted_prior_is_not_turned_round() -> None:
    rng = np.random.default_rng(3)
    prior = rng.normal(size=(200, 1))
    assert fit_ridge(np.zeros((200, 1)), -prior, prior, 25, allow_ridge=False).slope == 0


def test_blocks_cover_every_frame_once_and_keep_their_distance() -> None:
    parts = blocks(503, 25)
    assert np.array_equal(np.concatenate([test for _, test in parts]), np.arange(503))
    for train, test in parts:
        assert np.abs(train[:, None] - test[None]).min() > 12


def test_taps_read_the_moments_they_are_asked_for() -> None:
    rows = np.stack([np.arange(100.0) / 30, np.cos(np.arange(100) / 30)], axis=1)
    read = taps(rows, 30, (-0.05, 0.0, 0.12), shift=0.01)
    assert read.shape == (100, 6)
    inside = slice(10, 90)
    for block, offset in enumerate((-0.04, 0.01, 0.13)):
        moment = np.arange(100)[inside] / 30 + offset
        assert np.allclose(read[inside, 2 * block], moment)
        assert np.allclose(read[inside, 2 * block + 1], np.cos(moment), atol=2e-3)
    assert read[0, 0] == rows[0, 0]
    assert np.allclose(taps(rows[:1], 30, (0.0, 1.0)), np.tile(rows[:1], 2))


def test_normalisation_removes_a_voice_but_not_from_a_single_word() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(5, 3, (1000, 4))
    clean = normalised(rows, np.ones(1000, bool), np.zeros(4), np.ones(4), 25)
    assert np.abs(clean.mean(0)).max() < 0.2
    assert np.abs(clean.std(0) - 1).max() < 0.25
    word = np.zeros(1000, bool)
    word[:5] = True
    assert normalised(rows, word, np.zeros(4), np.ones(4), 25).mean() > 1


def test_activity_finds_speech_and_the_gate_opens_around_it() -> None:
    rng = np.random.default_rng(5)
    sound = rng.normal(0, 1e-4, 16_000 * 6)
    t = np.arange(32_000) / 16_000
    sound[32_000:64_000] += (np.sin(2 * np.pi * 4 * t) > -0.6) * sum(
        0.05 * np.sin(2 * np.pi * 150 * k * t) for k in range(2, 15)
    )
    active = activity(log_mel(levelled(sound), 25, 150), 25)
    assert active[52:98].all()  # the short silences inside count as speech
    assert not active[:47].any()
    assert not active[103:].any()
    opened = gate(active, 25)
    assert opened[75] == 1
    assert 0 < opened[np.flatnonzero(active)[0] - 1] < 1
    assert (opened[:45] == 0).all()
    assert (opened[106:] == 0).all()
    assert not gate(np.zeros(10, bool), 25).any()
