"""Drivers learnt from speech: the universal one and a person's own."""

from collections.abc import Callable

import numpy as np
import pytest

from avatar3d.audio import features
from avatar3d.audio.tts import speak
from avatar3d.errors import UserError
from avatar3d.evaluation.speech import BILABIAL_TEXTS, Closures, closures
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.head.model import HeadModel
from avatar3d.motion import audio_driver, windows
from avatar3d.motion.articulation import CURVES, to_arkit
from avatar3d.motion.audio_driver import PERSONAL, AudioDriver
from avatar3d.motion.config import MotionConfig
from avatar3d.motion.lips import LipSpace
from avatar3d.motion.motion import Motion
from avatar3d.motion.speech import mouth_for_audio
from avatar3d.motion.universal import WEIGHTS_FILE, UniversalDriver, load_universal
from avatar3d.motion.visemes import articulation
from avatar3d.subject.tracking import Tracking

FPS = 25.0
Track = Callable[[np.ndarray], Tracking]


def ignorant() -> UniversalDriver:
    """A universal driver that always predicts a closed mouth."""
    zeros, units = np.zeros, 3
    return UniversalDriver(
        mean=zeros(560), std=np.ones(560), first=zeros((560, units)), first_bias=zeros(units),
        second=zeros((5 * units, units)), second_bias=zeros(units), last=zeros((units, 7)),
        last_bias=np.full(7, -20.0), predicted=np.tile(np.linspace(0, 1e-3, 33)[:, None], 7),
        wanted=zeros((33, 7)), closing=np.array([0.4, 0.8]),
    )  # fmt: skip


def spoken(count: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features of speech with pauses, and the mouth opening (T,) in [0, 1] that they depend on."""
    rng = np.random.default_rng(seed)
    t = np.arange(count) / FPS
    opening = np.clip(0.5 + 0.5 * np.sin(2 * np.pi * 1.7 * t + 2 * np.sin(0.9 * t)), 0, 1)
    talking = np.mod(t, 6.0) < 4.5
    opening = opening * talking
    fixed = np.random.default_rng(99)  # the same voice tract for every seed
    mixing, back = fixed.normal(size=(3, 480)), fixed.normal(size=480)
    latent = np.stack([opening, opening**2, np.roll(opening, -1)], axis=1)
    speech = latent @ mixing + back + 0.5 * rng.normal(size=(count, 480))
    level = np.where(talking, 0.0 + opening, -9.0)[:, None]
    mel = level + 0.2 * rng.normal(size=(count, 80))
    return {"speech": speech.astype(np.float32), "mel": mel.astype(np.float32)}, opening


def mouth(opening: np.ndarray) -> np.ndarray:
    """Expression (T, 52) of a person who smiles a little with their mouth always."""
    expression = np.zeros((len(opening), len(ARKIT_52)))
    expression[:, ARKIT_INDEX["jawOpen"]] = 0.4 * opening
    expression[:, ARKIT_INDEX["mouthSmileLeft"]] = 0.15
    expression[:, ARKIT_INDEX["mouthFunnel"]] = 0.2 * opening**2
    return expression


def gap(motion: Motion, head: HeadModel) -> np.ndarray:
    assert motion.expression is not None
    residual = np.zeros((len(motion), 2)) if motion.residual is None else motion.residual
    weights = np.concatenate([motion.expression, residual], axis=1)
    lips = LipSpace.of(head)
    return lips.gap(lips.displacement(weights[:, lips.rows]))


@pytest.fixture(scope="module")
def fitted(toy_head: HeadModel, track: Track) -> AudioDriver:
    rows, opening = spoken(600)
    driver = AudioDriver.fit(rows, track(mouth(opening)), toy_head, FPS, universal=ignorant())
    assert driver is not None
    return driver


def predict(driver: AudioDriver, rows: dict[str, np.ndarray]) -> Motion:
    weights = driver.weights(rows, FPS)
    expression = np.zeros((len(weights), 52 + driver.residual_count))
    expression[:, driver.lips.rows] = weights
    return Motion(fps=FPS, expression=expression[:, :52], residual=expression[:, 52:])


def test_the_driver_learns_a_known_mouth(fitted: AudioDriver, toy_head: HeadModel) -> None:
    assert fitted.report["method"] == "personal regression"
    assert fitted.report["lip_gap_correlation"] > 0.9
    rows, opening = spoken(400, seed=7)
    found = gap(predict(fitted, rows), toy_head)
    true = gap(Motion(fps=FPS, expression=mouth(opening)), toy_head)
    assert np.corrcoef(found, true)[0, 1] > 0.9
    talking = opening > 0
    assert 0.8 < found[talking].std() / true[talking].std() < 1.25


def test_lips_are_closed_in_silence_and_keep_the_person_smile(
    fitted: AudioDriver, toy_head: HeadModel
) -> None:
    rows, _ = spoken(400, seed=7)
    motion = predict(fitted, rows)
    silent = np.mod(np.arange(400) / FPS, 6.0) > 4.9
    silent &= np.mod(np.arange(400) / FPS, 6.0) < 5.7
    opened = gap(motion, toy_head) - 0.0005  # lips of the neutral head are 0.5 mm apart
    assert opened[silent].mean() < 0.03 * np.percentile(opened, 95)
    assert motion.expression is not None
    assert abs(motion.expression[silent, ARKIT_INDEX["mouthSmileLeft"]].mean() - 0.15) < 0.03


def test_weights_are_in_bounds_and_only_the_mouth_moves(fitted: AudioDriver) -> None:
    rows, _ = spoken(200, seed=3)
    rows["speech"] *= 20  # a sound like nothing in the clip
    motion = predict(fitted, rows)
    assert motion.expression is not None
    assert motion.expression.min() >= 0
    assert motion.expression.max() <= 1
    assert not motion.expression[:, : ARKIT_INDEX["jawForward"]].any()


def test_arrays_bring_the_same_driver_back(fitted: AudioDriver) -> None:
    arrays = fitted.arrays()
    assert all(a.dtype in (np.float32, np.float16) for a in arrays.values())
    rows, _ = spoken(200, seed=5)
    again = AudioDriver.from_arrays(arrays)
    assert np.allclose(again.weights(rows, FPS), fitted.weights(rows, FPS), atol=1e-4)


def test_damaged_arrays_are_refused(fitted: AudioDriver) -> None:
    arrays = fitted.arrays()
    for name, array in arrays.items():
        missing = {n: a for n, a in arrays.items() if n != name}
        wrong = {**arrays, name: np.zeros((2, *array.shape), np.float32)}
        infinite = {**arrays, name: np.full_like(array, np.nan)}
        for broken in (missing, wrong, infinite):
            with pytest.raises(UserError, match="damaged"):
                AudioDriver.from_arrays(broken)
    rows = arrays["lips.rows"].copy()
    rows[0] = 5000
    with pytest.raises(UserError, match="damaged"):
        AudioDriver.from_arrays({**arrays, "lips.rows": rows})


def test_a_late_sound_track_is_noticed(toy_head: HeadModel, track: Track) -> None:
    rows, opening = spoken(500)
    # A universal driver that reads the opening off the features tells when they are late.
    target = np.zeros((500, 7))
    target[:, CURVES.index("jaw")] = opening
    knowing = ignorant()
    object.__setattr__(knowing, "hidden", lambda rows, fps: rows["truth"])
    object.__setattr__(knowing, "curves_of", lambda hidden, mel, fps, shut=True: hidden)
    for late in (-2, 0, 2):
        shifted = {n: np.roll(r, late, axis=0) for n, r in {**rows, "truth": target}.items()}
        driver = AudioDriver.fit(shifted, track(mouth(opening)), toy_head, FPS, universal=knowing)
        assert driver is not None
        assert driver.report["sound_delay"] == pytest.approx(late / FPS, abs=0.021)
        assert driver.lead == pytest.approx(np.clip(late / FPS, -0.04, 0.04), abs=0.021)


def test_little_speech_gives_no_driver_of_its_own(
    toy_head: HeadModel, track: Track, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, opening = spoken(300)
    audible = np.zeros(300, bool)
    audible[:30] = True
    tracking = track(mouth(opening))
    assert AudioDriver.fit(rows, tracking, toy_head, FPS, audible, ignorant()) is None
    assert "speech" in capsys.readouterr().err
    mute = {"mel": rows["mel"]}
    assert AudioDriver.fit(mute, tracking, toy_head, FPS, universal=ignorant()) is None
    audible[:45] = True
    little = AudioDriver.fit(rows, tracking, toy_head, FPS, audible, ignorant())
    assert little is not None
    assert little.report["method"] == "universal driver, scaled"


def test_features_of_another_clip_are_refused(toy_head: HeadModel, track: Track) -> None:
    rows, opening = spoken(300)
    with pytest.raises(UserError, match="do not fit"):
        AudioDriver.fit(rows, track(mouth(opening[:200])), toy_head, FPS, universal=ignorant())
    other = track(mouth(opening))
    object.__setattr__(other, "head_model_fingerprint", "another")
    with pytest.raises(UserError, match="another head model"):
        AudioDriver.fit(rows, other, toy_head, FPS, universal=ignorant())


def test_long_sound_is_cut_into_parts_that_join(
    fitted: AudioDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _ = spoken(500, seed=2)

    def cut(samples: np.ndarray, fps: float, count: int) -> dict[str, np.ndarray]:
        first = round(float(samples[0]) * fps)
        return {name: r[first : first + count] for name, r in rows.items()}

    monkeypatch.setattr(audio_driver, "features", cut)
    times = (np.arange(20 * 16_000) / 16_000).astype(np.float32)  # the sound tells its own time
    whole = fitted.predict(times, FPS)
    monkeypatch.setattr(windows, "_PART_SECONDS", 8.0)
    parts = fitted.predict(times, FPS)
    assert len(parts) == len(whole) == 500
    assert whole.expression is not None
    assert parts.expression is not None
    assert np.abs(parts.expression - whole.expression).max() < 0.15
    assert np.abs(parts.expression - whole.expression).mean() < 0.01


def test_bad_sound_is_refused(fitted: AudioDriver) -> None:
    for samples in (np.zeros(0), np.full(16_000, np.nan), np.zeros((2, 100))):
        with pytest.raises(UserError):
            fitted.predict(samples, FPS)


@pytest.fixture(scope="module")
def universal() -> UniversalDriver:
    """The driver that comes with the package."""
    pytest.importorskip("espeakng_loader", reason="eSpeak NG is not installed")
    pytest.importorskip("onnxruntime")
    from avatar3d.audio import embedding

    if not embedding.available():
        pytest.skip("the speech embedding cannot be obtained here")
    return load_universal()


@pytest.mark.parametrize(("language", "voice"), [("it", "m3"), ("pl", "f2")])
def test_the_universal_mouth_fits_an_unheard_language_and_voice(
    universal: UniversalDriver, language: str, voice: str
) -> None:
    texts = {"it": "Il bambino beve un bicchiere di succo vicino alla finestra aperta.",
             "pl": "Moja mama kupiła na rynku bułki, masło i kilka dużych jabłek."}  # fmt: skip
    speech = speak(texts[language], language, voice)
    samples = speech.at_16k()
    truth = articulation(speech.phonemes, FPS, len(samples) / 16_000)
    found = universal.curves(features(samples, FPS, len(truth)), FPS)
    for name, least in (("jaw", 0.65), ("rounding", 0.6), ("closed", 0.6)):
        column = CURVES.index(name)
        assert np.corrcoef(found[:, column], truth[:, column])[0, 1] > least, name


def test_lips_meet_on_bilabials_of_five_languages_and_part_for_vowels(
    universal: UniversalDriver,
) -> None:
    total = Closures(0, 0, 0, 0)
    for (language, text), voice in zip(
        BILABIAL_TEXTS.items(), (None, "f2", "m3", None, "Annie"), strict=True
    ):
        speech = speak(text, language, voice)
        motion = universal.predict(speech.at_16k(), FPS)
        assert motion.expression is not None
        jaw, close = (motion.expression[:, ARKIT_INDEX[n]] for n in ("jawOpen", "mouthClose"))
        opened = jaw - close
        total += closures(opened / np.percentile(opened, 95), FPS, speech.phonemes)
    assert total.bilabials > 60
    assert total.met >= 0.9 * total.bilabials
    assert total.shut <= 0.15 * total.open_vowels


def test_the_universal_mouth_is_closed_in_silence_and_for_noise(
    universal: UniversalDriver,
) -> None:
    rng = np.random.default_rng(0)
    for samples in (np.zeros(32_000), rng.normal(0, 0.03, 32_000)):
        motion = universal.predict(samples.astype(np.float32), FPS)
        assert motion.expression is not None
        assert motion.expression.max() == 0


def test_known_phonemes_shut_the_lips_of_a_personal_driver(
    fitted: AudioDriver, toy_head: HeadModel, universal: UniversalDriver
) -> None:
    speech = speak(BILABIAL_TEXTS["en"], "en")
    motion = mouth_for_audio(fitted, speech.at_16k(), FPS, MotionConfig(), speech.phonemes)
    assert motion.source == PERSONAL
    opened = gap(motion, toy_head) - 0.0005
    found = closures(opened / np.percentile(opened, 95), FPS, speech.phonemes)
    assert found.met >= 0.95 * found.bilabials


def test_universal_arrays_round_trip_and_are_checked(universal: UniversalDriver) -> None:
    arrays = universal.arrays()
    again = UniversalDriver.from_arrays(arrays)
    assert np.array_equal(again.first, universal.first)
    for name in arrays:
        with pytest.raises(UserError, match="damaged"):
            UniversalDriver.from_arrays({**arrays, name: np.zeros(3)})
        with pytest.raises(UserError, match="damaged"):
            UniversalDriver.from_arrays({**arrays, name: np.full_like(arrays[name], np.nan)})


def test_the_shipped_weights_are_small() -> None:
    assert WEIGHTS_FILE.stat().st_size <= 1 << 20


def test_articulation_becomes_arkit_weights_that_shut_the_lips() -> None:
    curves = np.zeros((3, 7))
    curves[:, CURVES.index("jaw")] = 1
    curves[1, CURVES.index("closed")] = 1
    weights = to_arkit(curves, opening=1.0)
    jaw, close = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["mouthClose"]
    assert weights[0, jaw] > 0.3
    assert weights[1, jaw] - weights[1, close] < 0.01
    assert to_arkit(curves * 5).max() <= 1
    assert to_arkit(np.zeros((2, 7))).max() == 0
