"""Word error rate of a voice, by a recogniser that the user has installed."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from avatar3d.errors import UserError

__all__ = ["Recognise", "recogniser", "word_error_rate"]

Recognise = Callable[[np.ndarray], str]
"""From mono sound (N,) at 16 kHz to its words."""

_RATE = 16_000


def word_error_rate(said: str, heard: str) -> float:
    """Words to insert, delete or replace, over the number of words said; may exceed 1.

    Case and punctuation do not count.

    Raises:
        ValueError: nothing was said.
    """
    wanted, found = _words(said), _words(heard)
    if not wanted:
        raise ValueError("nothing was said")
    row = list(range(len(found) + 1))
    for number, word in enumerate(wanted, 1):
        before, row[0] = row[0], number
        for column, other in enumerate(found, 1):
            before, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, before + (word != other)),
            )
    return row[-1] / len(wanted)


def recogniser(language: str, model: str = "") -> Recognise | None:
    """What hears words of a language; None without any.

    Args:
        language: of the voice.
        model: folder of a Vosk model of that language, for which `pip install vosk` is needed; else
            the package pocketsphinx, where it is installed, hears English.

    Raises:
        UserError: the model cannot be used.
    """
    if model:
        return _vosk(Path(model))
    if language == "en" and importlib.util.find_spec("pocketsphinx") is not None:
        return _pocketsphinx
    return None


def _pocketsphinx(samples: np.ndarray) -> str:
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=_RATE, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(_pcm(samples), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return "" if found is None else str(found.hypstr)


def _vosk(folder: Path) -> Recognise:
    if importlib.util.find_spec("vosk") is None:
        raise UserError("The setting recogniser needs Vosk; run `pip install vosk`, or empty it.")
    if not (folder / "conf").is_dir():
        raise UserError(f"{folder} is not a model of Vosk; unpack one there.")
    import vosk

    vosk.SetLogLevel(-1)
    model = vosk.Model(str(folder))

    def hear(samples: np.ndarray) -> str:
        decoder = vosk.KaldiRecognizer(model, _RATE)
        decoder.AcceptWaveform(_pcm(samples))
        return str(json.loads(decoder.FinalResult()).get("text", ""))

    return hear


def _pcm(samples: np.ndarray) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:'\w+)*", text.lower().replace("\u2019", "'"))
