"""Neural voices of the Piper project, with the times of their phonemes.

A voice is VOICE.onnx with VOICE.onnx.json beside it (https://huggingface.co/rhasspy/piper-voices).
eSpeak NG turns the text into phonemes, ONNX Runtime runs the network; the package piper-tts, which
is GPL, is not needed. The network (VITS) predicts how long every phoneme lasts without saying so:
that inner tensor is made an output.
"""

import json
import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.audio.embedding import with_output
from avatar3d.audio.tts import Phoneme, Speech, checked_request, ipa_clauses
from avatar3d.errors import UserError

__all__ = ["PiperVoice", "load_piper"]

_BEGIN, _END, _PAD, _BETWEEN = "^", "$", "_", " "
_STRESS, _LENGTHENING = "ˈˌ", "ːˑ"
_CLOSES = ".?!"
_SILENT = frozenset("!'\"(),-.:;?¡¿« »" + _BEGIN + _END + _PAD)
_HOP = 256  # samples to a frame of the network
_MAX_SETTINGS, _MAX_MODEL = 1 << 20, 1 << 30
_LONGEST = 400  # symbols read at a time
_PAUSE = 0.12  # seconds between sentences


class PiperVoice:
    """A voice that reads its own language; see `load_piper`."""

    def __init__(self, session: Any, settings: dict[str, Any], name: str) -> None:
        self.name = name
        self.language = str(settings["espeak"]["voice"])
        self._session = session
        self._ids: dict[str, list[int]] = settings["phoneme_id_map"]
        self._rate = int(settings["audio"]["sample_rate"])
        inference = settings.get("inference", {})
        self._noise = float(inference.get("noise_scale", 0.667))
        self._noise_w = float(inference.get("noise_w", 0.8))
        self._pace = float(inference.get("length_scale", 1.0))
        self._speakers = int(settings.get("num_speakers", 1))

    def __call__(self, text: str, language: str = "en", speed: float = 1.0) -> Speech:
        """Read a text.

        Args:
            text: in the voice's language; language: checked against it, unless it is "en", the
                default; speed: 0.5 to 2.5.

        Raises:
            UserError: nothing to say, or another language.
        """
        checked_request(text, speed)
        if language != "en" and language.split("-")[0] != self.language.split("-")[0]:
            raise UserError(
                f"The voice {self.name} speaks {self.language!r}, not {language!r}; leave out "
                "the voice, or take a Piper voice of that language."
            )
        pieces: list[np.ndarray] = []
        phonemes: list[Phoneme] = []
        begin = 0.0
        for symbols in _sentences(ipa_clauses(text, self.language), self._ids):
            sound, seconds = self._read(symbols, speed)
            phonemes += timed_phonemes(symbols, begin + np.cumsum([0.0, *seconds]))
            pieces += [sound, np.zeros(round(_PAUSE * self._rate), np.float32)]
            begin += sum(len(piece) for piece in pieces[-2:]) / self._rate
        if not phonemes:
            raise UserError(f"The voice {self.name} finds nothing to say in the text.")
        return Speech(np.concatenate(pieces), self._rate, phonemes)

    def _read(self, symbols: list[str], speed: float) -> tuple[np.ndarray, np.ndarray]:
        """Samples (N,) float32, and the seconds that each symbol lasts."""
        ids = np.array([[self._ids[symbol][0] for symbol in symbols]], np.int64)
        feed = {
            "input": ids,
            "input_lengths": np.array([ids.size], np.int64),
            "scales": np.array([self._noise, self._pace / speed, self._noise_w], np.float32),
        }
        if self._speakers > 1:
            feed["sid"] = np.zeros(1, np.int64)
        sound, frames = self._session.run(None, feed)
        return sound.reshape(-1), frames.reshape(-1) * (_HOP / self._rate)


@lru_cache(maxsize=2)
def load_piper(path: Path, settings_path: Path | None = None) -> PiperVoice:
    """A voice from VOICE.onnx, its settings in VOICE.onnx.json beside it unless told otherwise.

    Raises:
        UserError: missing, or not a Piper voice whose phonemes are eSpeak NG's.
    """
    described = settings_path or Path(f"{path}.json")
    for file in (path, described):
        if not file.is_file():
            raise UserError(
                f"There is no {file}; a Piper voice is two files, VOICE.onnx and VOICE.onnx.json."
            )
    if path.stat().st_size > _MAX_MODEL or described.stat().st_size > _MAX_SETTINGS:
        raise UserError(f"{path} is larger than a Piper voice should be; it was not read.")
    try:
        settings = json.loads(described.read_text("utf-8"))
        kind = settings.get("phoneme_type", "espeak")
        if kind != "espeak":
            raise UserError(f"{path} wants {kind!r} phonemes; only eSpeak NG's can be had.")
        return PiperVoice(_session(path), settings, path.stem)
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
    ) as error:  # fmt: skip
        raise UserError(f"{path} is not a Piper voice ({error!r}).") from error


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("Piper voices need onnxruntime; run `pip install onnxruntime`.") from error
    model = path.read_bytes()
    durations = set(re.findall(rb"[\w/.]*Ceil_output_0", model))
    if len(durations) != 1:
        raise ValueError("its durations cannot be found")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            with_output(model, durations.pop().decode()),
            options,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # onnxruntime has no common base class for its errors
        raise ValueError("the network is damaged") from error


def _sentences(clauses: list[tuple[str, str]], known: dict[str, list[int]]) -> list[list[str]]:
    """Symbols to read at a time: whole sentences with begin, end and padding, known ones only."""
    sentences: list[list[str]] = []
    current: list[str] = []

    def close() -> None:
        if any(symbol not in _SILENT for symbol in current):
            padded = [symbol for name in current for symbol in (name, _PAD)]
            sentences.append([_BEGIN, _PAD, *padded, _END])
        current.clear()

    for ipa, ending in clauses:
        plain = re.sub(r"\([^)]*\)", "", ipa)  # "(en)": language switch
        symbols = [s for s in unicodedata.normalize("NFD", plain) if s in known]
        current += [_BETWEEN, *symbols] if current else symbols
        current += [s for s in ending if s in known]
        if ending in _CLOSES or len(current) > _LONGEST:
            close()
    close()
    return sentences


def timed_phonemes(symbols: list[str], edges: np.ndarray) -> list[Phoneme]:
    """Phonemes of what was read.

    Args:
        symbols: one IPA letter, mark or punctuation each; padding belongs to what precedes it.
        edges: (len(symbols) + 1,) seconds at which each begins and the last ends.
    """
    result: list[Phoneme] = []
    stress, start = "", 0.0
    for index, symbol in enumerate(symbols):
        if symbol in _SILENT:
            continue
        padded = index + 1 < len(symbols) and symbols[index + 1] == _PAD
        end = float(edges[index + 1 + padded])
        if symbol in _STRESS:
            stress, start = symbol, float(edges[index])
        elif result and (symbol in _LENGTHENING or unicodedata.combining(symbol)):
            result[-1] = Phoneme(result[-1].ipa + symbol, result[-1].start, end)
        else:
            begin = start if stress else float(edges[index])
            result.append(Phoneme(stress + symbol, begin, end))
            stress = ""
    return result
