"""Phonemes to mouth motion."""

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_INDEX
from avatar3d.motion.motion import Motion
from avatar3d.motion.visemes import from_phonemes, from_text

# ruff: noqa: RUF001 (IPA letters look like Latin ones)


def curve(motion: Motion, name: str) -> np.ndarray:
    assert motion.expression is not None
    return motion.expression[:, ARKIT_INDEX[name]]


def openness(motion: Motion) -> np.ndarray:
    """jawOpen that the lips do not make up for: in ARKit equal weights shut the lips."""
    return curve(motion, "jawOpen") - curve(motion, "mouthClose")


@pytest.mark.parametrize("consonant", ["p", "b", "m", "ɓ", "pʰ", "mʲ", "k͡p"])
@pytest.mark.parametrize("fps", [12.0, 25.0, 60.0])
def test_lips_close_on_bilabials_between_open_vowels(consonant: str, fps: float) -> None:
    motion = from_phonemes([("a", 0.2, 0.4), (consonant, 0.4, 0.46), ("a", 0.46, 0.7)], fps)
    time = np.arange(len(motion)) / fps
    during = (time > 0.33) & (time < 0.5)
    assert openness(motion)[during].min() < 0.02
    assert curve(motion, "mouthPressLeft")[during].max() > 0.15
    vowels = ((time > 0.22) & (time < 0.33)) | ((time > 0.53) & (time < 0.65))
    assert openness(motion)[vowels].max() > 0.2


def test_a_closure_shorter_than_a_frame_is_still_shown() -> None:
    for middle in np.linspace(0.4, 0.5, 11):
        phonemes = [("a", 0.2, middle), ("b", middle, middle + 0.02), ("a", middle + 0.02, 0.8)]
        motion = from_phonemes(phonemes, 10)
        assert openness(motion)[3:7].min() < 0.03


def test_lips_move_before_the_sound() -> None:
    motion = from_phonemes([("a", 0.2, 0.5), ("m", 0.5, 0.6), ("a", 0.6, 0.9)], 100)
    closing = openness(motion)
    assert closing[49] < 0.3 * closing[35]
    opening = from_phonemes([("a", 0.5, 0.8)], 100)
    assert curve(opening, "jawOpen")[48] > 0.05


def test_labiodentals_tuck_the_lower_lip_and_do_not_shut_the_mouth() -> None:
    motion = from_phonemes([("a", 0.2, 0.4), ("f", 0.4, 0.5), ("a", 0.5, 0.7)], 50)
    assert curve(motion, "mouthRollLower")[20:25].max() > 0.4
    assert curve(motion, "mouthPressLeft").max() == 0
    assert curve(motion, "jawOpen")[22] < 0.5 * curve(motion, "jawOpen").max()


def test_vowels_differ_as_the_vowel_chart_says() -> None:
    shapes = {v: from_phonemes([(v, 0.2, 0.6)], 50) for v in ("i", "y", "u", "o", "a", "ɛ")}
    peak = {v: {n: curve(m, n)[15:25].mean() for n in ARKIT_INDEX} for v, m in shapes.items()}
    assert peak["a"]["jawOpen"] > peak["ɛ"]["jawOpen"] > peak["i"]["jawOpen"]
    assert peak["u"]["mouthPucker"] > peak["o"]["mouthPucker"] > 0.2 > peak["a"]["mouthPucker"]
    assert peak["y"]["mouthPucker"] > 0.3
    assert peak["i"]["mouthStretchLeft"] > peak["a"]["mouthStretchLeft"] > 0
    assert peak["u"]["mouthStretchLeft"] < 0.02


def test_diphthongs_and_affricates_go_from_one_shape_to_the_next() -> None:
    glide = curve(from_phonemes([("aʊ", 0.2, 0.6)], 50), "mouthPucker")
    assert glide[27] > 3 * glide[13]
    affricate = from_phonemes([("a", 0.0, 0.2), ("tʃ", 0.2, 0.4), ("a", 0.4, 0.6)], 50)
    assert curve(affricate, "mouthFunnel")[17] > curve(affricate, "mouthFunnel")[9]


def test_silence_is_a_closed_neutral_mouth() -> None:
    motion = from_phonemes([("a", 1.0, 1.2), ("o", 2.2, 2.4)], 25, duration=4)
    assert len(motion) == 100
    assert motion.expression is not None
    time = np.arange(100) / 25
    still = (time < 0.8) | ((time > 1.5) & (time < 1.9)) | (time > 2.8)
    assert np.abs(motion.expression[still]).max() < 0.02


def test_the_frame_rate_does_not_change_the_motion() -> None:
    phonemes = [("h", 0.1, 0.15), ("ɛ", 0.15, 0.25), ("l", 0.25, 0.3), ("oʊ", 0.3, 0.6)]
    slow, fast = from_phonemes(phonemes, 25, 1), from_phonemes(phonemes, 100, 1)
    assert slow.expression is not None
    assert fast.expression is not None
    assert np.allclose(slow.expression, fast.expression[::4], atol=1e-3)


def test_weights_stay_within_bounds_for_any_symbols() -> None:
    rng = np.random.default_rng(0)
    symbols = "abdefhijklmnopstuvwzæçðøŋœɐɑɒɔəɛɡɣɪɯɲɹʁʃʊʒʔʝʷː̃ǀ5?"
    cuts = np.sort(rng.uniform(0, 8, 200))
    names = ["".join(rng.choice(list(symbols), 2)) for _ in range(199)]
    motion = from_phonemes(list(zip(names, cuts[:-1], cuts[1:], strict=True)), 30)
    assert motion.expression is not None
    assert motion.expression.min() >= 0
    assert motion.expression.max() <= 1


def test_bad_times_are_refused() -> None:
    for phonemes in ([("a", 0.5, 0.4)], [("a", 0.5, 0.6), ("b", 0.1, 0.2)], [("a", np.nan, 1.0)]):
        with pytest.raises(UserError, match="order"):
            from_phonemes(phonemes, 25)
    with pytest.raises(UserError):
        from_phonemes([("a", 0, 1)], 0)
    assert len(from_phonemes([], 25, 1.0)) == 25


@pytest.mark.parametrize(
    ("language", "text"),
    [("en", "Peter Piper bought a map."), ("de", "Papa malt einen Baum."),
     ("fr", "Bonjour papa."), ("cmn", "爸爸妈妈。"), ("ja", "ママとパパ。")],
)  # fmt: skip
def test_every_bilabial_of_a_spoken_sentence_closes_the_lips(language: str, text: str) -> None:
    pytest.importorskip("espeakng_loader", reason="eSpeak NG is not installed")
    from avatar3d.audio.tts import speak

    speech = speak(text, language)
    motion = from_phonemes(speech.phonemes, 25, len(speech.samples) / speech.rate)
    shut = openness(motion)
    assert abs(len(from_text(text, language, fps=25)) - len(motion)) <= 1
    for ipa, start, end in speech.phonemes:
        if ipa in ("p", "b", "m"):
            frames = np.arange(int((start - 0.04) * 25), int(np.ceil(end * 25)) + 1)
            assert shut[np.clip(frames, 0, len(shut) - 1)].min() < 0.02
    assert shut.max() > 0.1
