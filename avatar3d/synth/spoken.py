"""Real words for a made-up person: eSpeak NG says sentences, and its phonemes move the mouth."""

import re
from dataclasses import dataclass

import numpy as np

from avatar3d.audio import SAMPLE_RATE
from avatar3d.audio.features import loudness
from avatar3d.audio.tts import Phoneme, speak
from avatar3d.errors import UserError
from avatar3d.motion.sentences import SENTENCES
from avatar3d.motion.visemes import from_phonemes

__all__ = ["Spoken", "say_sentences"]

_VOICES = ("m1", "m3", "m5", "m7", "f1", "f2", "f4", "f5")
_SILENCE_FIRST, _PAUSE = 0.2, (0.25, 0.6)
_HISS = 1e-3


@dataclass(frozen=True)
class Spoken:
    """Speech of T frames and what the mouth does for it.

    Attributes:
        samples: (N,) float32 in [-1, 1] at 16 kHz.
        phonemes: with their times in seconds, in order.
        expression: (T, 52) ARKit weights of the mouth.
        loudness: (T,) in [0, 1].
    """

    samples: np.ndarray
    phonemes: tuple[Phoneme, ...]
    expression: np.ndarray
    loudness: np.ndarray


def say_sentences(rng: np.random.Generator, frames: int, fps: float, language: str) -> Spoken:
    """Sentences in random order and a random voice for as long as the clip lasts.

    eSpeak NG's voice flutters at random, so two readings differ by some milliseconds.

    Args:
        rng: chooses the voice, the order and the pauses.
        frames: T; fps: their rate.
        language: one of `avatar3d.motion.sentences`.

    Raises:
        UserError: no sentences in that language, or eSpeak NG is not installed.
    """
    if language not in SENTENCES:
        raise UserError(
            f"There are no sentences in the language {language!r}; choose one of "
            f"{', '.join(sorted(SENTENCES))}."
        )
    sentences = re.findall(r"[^.!?。।]+[.!?。।]?", SENTENCES[language])
    sentences = [sentence.strip() for sentence in sentences if sentence.strip()]
    voice = str(rng.choice(_VOICES))
    length = round(frames / fps * SAMPLE_RATE)
    samples, phonemes = np.zeros(length, np.float32), []
    now = _SILENCE_FIRST
    while now < frames / fps:
        for number in rng.permutation(len(sentences)):
            first = round(now * SAMPLE_RATE)
            if first >= length:
                break
            speech = speak(sentences[number], language, voice)
            heard = speech.at_16k()
            samples[first : first + len(heard)] = heard[: length - first]
            phonemes += [Phoneme(p.ipa, p.start + now, p.end + now) for p in speech.phonemes]
            now += len(heard) / SAMPLE_RATE + rng.uniform(*_PAUSE)
    heard_phonemes = tuple(
        Phoneme(p.ipa, p.start, min(p.end, frames / fps))
        for p in phonemes
        if p.start < frames / fps
    )
    motion = from_phonemes(heard_phonemes, fps, frames / fps)
    assert motion.expression is not None
    levels = loudness(samples, 1 / fps)
    levels = np.interp(np.arange(frames), np.arange(len(levels)), levels)
    noise = (_HISS * rng.normal(size=length)).astype(np.float32)
    return Spoken(
        samples=np.clip(0.6 * samples + noise, -1, 1),
        phonemes=heard_phonemes,
        expression=motion.expression[:frames],
        loudness=np.clip(levels / max(float(np.percentile(levels, 95)), 1e-6), 0, 1),
    )
