"""Neural voices, synthesisers of one's own, and what people type for a language."""

# ruff: noqa: RUF001 (IPA letters look like Latin ones)

import json
from collections.abc import Iterator

import numpy as np
import pytest

from avatar3d.assets import cache_folder, list_assets
from avatar3d.audio import piper
from avatar3d.audio.piper import PiperVoice, load_piper, timed_phonemes
from avatar3d.audio.tts import Speech, ipa_clauses, languages, speak
from avatar3d.audio.voices import NATURAL, say_text
from avatar3d.errors import UserError

pytest.importorskip("espeakng_loader", reason="eSpeak NG is not installed")

SYMBOLS = "_^$ !'(),-.:;?abcdefhijklmnopqrstuvwxyzæɐɑɔəɚɛɡɪɫɹɾʃʊʌʒˈˌːθð"


class FakeNetwork:
    """Ten milliseconds of sound a symbol, loud for vowels."""

    rate = 25_600  # so that a frame of the network is 10 ms

    def __init__(self) -> None:
        self.read: list[str] = []

    def run(self, _: None, feed: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
        ids = feed["input"][0]
        self.read.append("".join(SYMBOLS[i] for i in ids))
        loud = np.array([0.5 if SYMBOLS[i] in "aɑəɪiʊ" else 0.0 for i in ids])
        sound = np.repeat(loud, 256).astype(np.float32)
        return iter((sound[None, None], np.ones((1, 1, len(ids)), np.float32)))


@pytest.fixture
def settings() -> dict:
    return {
        "audio": {"sample_rate": FakeNetwork.rate},
        "espeak": {"voice": "en-us"},
        "phoneme_id_map": {symbol: [number] for number, symbol in enumerate(SYMBOLS)},
    }


def test_a_voice_reads_sentence_by_sentence_and_times_its_phonemes(settings):
    network = FakeNetwork()
    speech = PiperVoice(network, settings, "fake")("A map. A pipe, Bob!")
    assert len(network.read) == 2
    first, second = network.read
    assert first.startswith("^_")
    assert first.endswith("._$")
    assert "m_ˈ_æ_p_" in first
    assert ",_" in second
    assert second.endswith("!_$")
    # The second sentence comes after the first and a pause.
    (m,) = (p for p in speech.phonemes if p.ipa == "m")
    assert m.start == pytest.approx(0.01 * first.index("m"))
    assert m.end - m.start == pytest.approx(0.02)  # with the padding after it
    (b, _) = (p for p in speech.phonemes if p.ipa == "b")
    assert b.start == pytest.approx(0.01 * (len(first) + second.index("b")) + 0.12)
    starts, ends = zip(*((p.start, p.end) for p in speech.phonemes), strict=True)
    assert (np.subtract(starts[1:], ends[:-1]) > -1e-9).all()
    assert ends[-1] <= len(speech.samples) / speech.rate
    with pytest.raises(UserError, match="speaks 'en-us', not 'de'"):
        PiperVoice(network, settings, "fake")("Hallo", "de")
    with pytest.raises(UserError, match="nothing to say"):
        PiperVoice(network, settings, "fake")("...")


def test_marks_belong_to_the_letter_they_modify():
    symbols = ["^", "_", "ˈ", "_", "i", "_", "ː", "_", " ", "_", "t", "_", "$"]
    found = timed_phonemes(symbols, np.arange(len(symbols) + 1) * 0.1)
    assert [p.ipa for p in found] == ["ˈiː", "t"]
    assert found[0][1:] == pytest.approx((0.2, 0.8))
    assert found[1][1:] == pytest.approx((1.0, 1.2))


@pytest.mark.parametrize(
    ("text", "language", "marks"),
    [("Hello, it is me. Are you there? Fine; good", "en", [",", ".", "?", ";", ""]),
     ("大家好\uff0c欢迎来到北京。", "cmn", [",", "."])],
)  # fmt: skip
def test_clauses_keep_their_punctuation(text, language, marks):
    assert [mark for _, mark in ipa_clauses(text, language)] == marks


def test_a_voice_must_be_one(tmp_path, settings):
    path = tmp_path / "v.onnx"
    with pytest.raises(UserError, match=r"v\.onnx"):
        load_piper(path)
    path.write_bytes(b"no network")
    described = tmp_path / "v.onnx.json"
    for content in (
        "{",
        "[]",
        "{}",
        json.dumps(settings),
        json.dumps(settings | {"phoneme_type": "text"}),
    ):
        described.write_text(content)
        with pytest.raises(UserError, match=r"v\.onnx"):
            load_piper(path)
    described.write_bytes(b" " * (piper._MAX_SETTINGS + 1))
    with pytest.raises(UserError, match="larger"):
        load_piper(path)


def test_the_natural_voice_speaks_in_time():
    ready = {status.name for status in list_assets() if status.state == "ready"}
    if not {"piper-joe", "piper-joe-settings"} <= ready:
        pytest.skip(f"piper-joe is not in {cache_folder()}: `avatar3d assets fetch piper-joe`")
    speech = say_text("Peter Piper bought a map of Boston.", voice=NATURAL)
    assert [p.ipa for p in speech.phonemes if p.ipa in "pbm"] == list("pppbmpb")

    def rms(start: float, end: float) -> float:
        piece = speech.samples[round(start * speech.rate) : round(end * speech.rate)]
        return float(np.sqrt(np.mean(piece**2)))

    vowels = [rms(*p[1:]) for p in speech.phonemes if p.ipa.strip("ˈˌː") in "aæɔiɪ"]
    shut = [rms(p.start, p.start + 0.03) for p in speech.phonemes if p.ipa == "p"]
    assert np.median(vowels) > 0.03
    assert np.median(shut) < 0.35 * np.median(vowels)


def test_any_other_synthesiser_will_do():
    def mine(text: str, language: str, speed: float) -> Speech:
        return Speech(np.full(len(text) * 100, 0.1 * speed, np.float32), 8000, [])

    speech = say_text("four", voice=mine, speed=2)
    assert speech.at_16k().shape == (800,)
    assert not speech.phonemes


@pytest.mark.parametrize(
    ("given", "meant"),
    [("german", "de"), ("jp", "ja"), ("en_GB", "en-gb"), ("chinese", "cmn"), ("French", "fr")],
)
def test_wrong_languages_are_understood_and_explained(given, meant):
    with pytest.raises(UserError, match=f"did you mean '{meant}") as caught:
        speak("a", given)
    assert "\n" not in str(caught.value)


def test_wrong_voices_are_explained():
    with pytest.raises(UserError, match="did you mean 'f2'"):
        say_text("a", voice="f22")
    with pytest.raises(UserError, match="did you mean 'natural'"):
        say_text("a", voice="naturel")
    with pytest.raises(UserError, match=r"absent\.onnx"):
        say_text("a", voice="absent.onnx")


@pytest.mark.parametrize("language", ["zh", "no", "en-gb", "fr-fr", "pt-pt", "es-mx", "hbs"])
def test_every_listed_code_speaks(language):
    assert language in languages()
    assert len(speak("1 2", language).phonemes) >= 3
