"""Text to speech and the times of its phonemes."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from avatar3d.audio.tts import Speech, languages, speak, voices
from avatar3d.errors import UserError

pytest.importorskip("espeakng_loader", reason="eSpeak NG is not installed")

SENTENCES = {  # text and the consonants any speaker of the language must pronounce, in order
    "en": ("Peter Piper bought a map of Boston.", "pppbmpb"),
    "de": ("Papa malt einen Baum.", "ppmbm"),
    "fr": ("Bonjour papa, je m'appelle Emma.", "bppmpm"),
    "cmn": ("我爸爸妈妈。", "ppmm"),  # eSpeak writes the pinyin b as an unaspirated p
    "ja": ("ママとパパ。", "mmpp"),
}


def rms(speech: Speech, start: float, end: float) -> float:
    piece = speech.samples[round(start * speech.rate) : round(end * speech.rate)]
    return float(np.sqrt(np.mean(piece**2)))


@pytest.mark.parametrize("language", SENTENCES)
def test_phonemes_are_those_of_the_sentence_and_in_time(language: str) -> None:
    text, labials = SENTENCES[language]
    speech = speak(text, language)
    assert "".join(p.ipa for p in speech.phonemes if p.ipa in "pbm") == labials
    starts, ends = zip(*((p.start, p.end) for p in speech.phonemes), strict=True)
    assert (np.subtract(ends, starts) > 0).all()
    assert (np.subtract(starts[1:], ends[:-1]) >= 0).all()
    assert ends[-1] <= len(speech.samples) / speech.rate


@pytest.mark.parametrize("language", SENTENCES)
def test_phoneme_times_match_the_sound(language: str) -> None:
    speech = speak(SENTENCES[language][0], language)
    loud = [rms(speech, *p[1:]) for p in speech.phonemes if p.ipa.strip("ˈˌː") in "aɑäɔɒ"]  # noqa: RUF001
    # A voiceless plosive begins with its closure, which is silent; vowels sound.
    shut = [rms(speech, p.start, p.start + 0.02) for p in speech.phonemes if p.ipa in "pt"]
    assert np.median(loud) > 0.05
    assert np.median(shut) < 0.1 * np.median(loud)
    last = speech.phonemes[-1].end
    assert rms(speech, last + 0.05, len(speech.samples) / speech.rate) < 0.02


def test_no_sound_begins_in_the_silence_before_it() -> None:
    """A vowel after a pause starts when it is heard; only plosives start with silence."""
    speech = speak("Yes, and no, everybody, I am.")
    quiet = [
        p.ipa
        for p in speech.phonemes
        if p.ipa.lstrip("ˈˌ")[:1] not in "pbtdkɡ" and rms(speech, p.start, p.start + 0.03) < 0.002  # noqa: RUF001
    ]
    assert not quiet
    assert max(
        b.start - a.end for a, b in zip(speech.phonemes, speech.phonemes[1:], strict=False)
    ) > 0.1  # fmt: skip


def test_rate_for_features_keeps_duration() -> None:
    speech = speak("Good morning.")
    duration = len(speech.samples) / speech.rate
    assert len(speech.at_16k()) / 16_000 == pytest.approx(duration, abs=1e-3)


def test_speed_and_voice_change_the_sound() -> None:
    normal, fast = speak("one two three four five"), speak("one two three four five", speed=2)
    assert len(fast.samples) < 0.7 * len(normal.samples)
    other = speak("one two three four five", voice="f2")
    count = min(len(other.samples), len(normal.samples))
    assert np.abs(other.samples[:count] - normal.samples[:count]).max() > 0.05


def test_threads_do_not_mix_their_sentences() -> None:
    alone = {language: speak(text, language) for language, (text, _) in SENTENCES.items()}
    together: dict[str, Speech] = {}

    def work(language: str) -> None:
        together[language] = speak(SENTENCES[language][0], language)

    threads = [threading.Thread(target=work, args=(language,)) for language in SENTENCES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for language, speech in alone.items():
        assert [p.ipa for p in speech.phonemes] == [p.ipa for p in together[language].phonemes]


def test_lists_name_what_exists() -> None:
    assert {"en", "de", "fr", "cmn", "ja"} <= set(languages())
    assert languages()["de"] == "German"
    assert "f2" in voices()


def test_unknown_names_are_answered_with_some_that_exist() -> None:
    with pytest.raises(UserError, match=r"no language 'tlh'.* de, en, ") as caught:
        speak("nuqneH", "tlh")
    assert "\n" not in str(caught.value)
    for voice in ("../../etc/passwd", "nobody"):
        with pytest.raises(UserError, match=r"no voice .* f2"):
            speak("hello", "en", voice)
    for text in ("", "  \n", "x" * 100_001):
        with pytest.raises(UserError, match="characters"):
            speak(text)
    with pytest.raises(UserError, match="speed"):
        speak("hello", speed=10)


def test_a_program_that_runs_again_says_the_same_again() -> None:
    program = (
        "from hashlib import sha256; from avatar3d.audio.tts import speak;"
        "print(sha256(speak('Good evening, this is the news.', 'en', 'f2').samples).hexdigest())"
    )
    said = set()
    for _ in range(2):
        began = int(time.time())
        said.add(subprocess.run([sys.executable, "-c", program], capture_output=True).stdout)
        while int(time.time()) == began:  # eSpeak NG seeds itself with the time in whole seconds
            time.sleep(0.05)
    assert len(said) == 1
    assert len(said.pop().strip()) == 64
