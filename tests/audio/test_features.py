"""One row of features per video frame."""

from pathlib import Path

import numpy as np
import pytest

from avatar3d.audio import SAMPLE_RATE, embedding, features
from avatar3d.audio.features import levelled
from avatar3d.audio.mel import mel_filters
from avatar3d.errors import UserError

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def no_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "available", lambda: False)


@pytest.fixture(scope="session")
def needs_embedding() -> None:
    pytest.importorskip("onnxruntime")
    if not embedding.available():
        pytest.skip("the speech embedding cannot be obtained here")


def voice(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    """Harmonics of 120 Hz with a slow envelope and a little noise."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(seed).normal(size=len(t)) * 0.003
    tones = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 30))
    return ((0.5 + 0.5 * np.sin(2 * np.pi * 3 * t)) * tones * 0.1 + noise).astype(np.float32)


@pytest.mark.usefixtures("no_embedding")
def test_mel_equals_its_definition_by_a_direct_fourier_sum() -> None:
    samples = voice()
    rows = features(samples, 25, 50)["mel"]
    sound, filters = levelled(samples).astype(np.float64), mel_filters(80, 1024, 16_000, 0, 8000)
    n = np.arange(800)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 800)
    kernel = np.exp(-2j * np.pi * np.outer(np.arange(513), n) / 1024)
    for frame in (1, 20, 44):  # frame 44 is shown at 1.76 s
        piece = sound[frame * 640 - 400 : frame * 640 + 400]
        power = np.abs(kernel @ (window * piece)) ** 2
        assert np.allclose(rows[frame], np.log(power @ filters + 1e-6), atol=1e-4)


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 5000.0])
def test_a_tone_lights_the_band_around_it(hertz: float) -> None:
    filters = mel_filters(80, 1024, 16_000, 0, 8000)
    band = int(np.argmax(filters[round(hertz / 15.625)]))
    centre = (filters[:, band] * np.arange(513)).sum() / filters[:, band].sum() * 15.625
    assert centre == pytest.approx(hertz, rel=0.1)


@pytest.mark.usefixtures("no_embedding")
def test_rows_follow_the_frame_times_at_any_rate() -> None:
    samples = np.zeros(SAMPLE_RATE, np.float32)
    samples[8000] = 1.0
    for fps in (24.0, 25.0, 29.97, 60.0):
        energy = features(samples, fps, int(fps))["mel"].mean(axis=1)
        assert int(np.argmax(energy)) / fps == pytest.approx(0.5, abs=0.5 / fps + 1e-6)


def test_volume_does_not_matter() -> None:
    quiet, loud = features(voice() * 0.03, 25, 50), features(voice(), 25, 50)
    for name, rows in loud.items():
        assert np.allclose(quiet[name], rows, atol=2e-3), name


@pytest.mark.usefixtures("no_embedding")
def test_silence_is_finite_constant_and_not_amplified() -> None:
    rows = features(np.zeros(16_000, np.float32), 25, 30)["mel"]
    assert np.isfinite(rows).all()
    assert np.ptp(rows) == 0
    hum = np.full(16_000, 1e-6, np.float32)
    assert np.abs(levelled(hum)).max() < 1e-3


def test_bad_sound_is_refused() -> None:
    broken = voice()
    broken[100] = np.nan
    for samples, count in ((np.zeros(0), 10), (broken, 10), (voice(), 0), (np.ones((2, 9)), 5)):
        with pytest.raises(UserError):
            features(samples, 25, count)


@pytest.mark.usefixtures("needs_embedding")
def test_inner_layers_equal_those_of_a_model_tapped_with_other_tools() -> None:
    reference = SHARED / "assets" / "speech_embedding_tapped.onnx"
    if not reference.is_file():
        pytest.skip(f"no {reference}")
    import onnxruntime

    session = onnxruntime.InferenceSession(reference, providers=["CPUExecutionProvider"])
    mel = embedding._mel(levelled(voice(4.0)))
    third, fourth = embedding._run(embedding._session(), mel, len(mel) - 40, {0, 1, 2, 3})
    for start in (0, 1, 150, 263):
        window = mel[start : start + 76].astype(np.float32).reshape(1, 76, 32, 1)
        outputs = session.run(list(embedding._LAYERS), {"input_1": window})
        for ours, theirs in zip((third, fourth), outputs, strict=True):
            expected = theirs[0].transpose(1, 0, 2).reshape(theirs.shape[2], -1)
            assert np.allclose(ours[start : start + 4 * len(expected) : 4], expected, atol=1e-3)


@pytest.mark.usefixtures("needs_embedding")
def test_the_embedding_does_not_depend_on_chunks_and_follows_shifts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = levelled(voice(3.0))
    times = np.arange(75) / 25
    whole = embedding.speech_embedding(sound, times)
    assert whole.shape == (75, embedding.COLUMNS)
    monkeypatch.setattr(embedding, "_CHUNK", 2 * 76)
    assert np.allclose(embedding.speech_embedding(sound, times), whole, atol=1e-4)
    later = embedding.speech_embedding(np.concatenate([np.zeros(1600), sound]), times + 0.1)
    assert np.allclose(later[10:], whole[10:], atol=1e-3)
