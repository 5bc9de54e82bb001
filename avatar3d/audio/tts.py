"""Text to speech with the times of its phonemes, by eSpeak NG (about 100 languages, offline)."""

import ctypes
import difflib
import threading
from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

import numpy as np

from avatar3d.audio.files import SAMPLE_RATE
from avatar3d.errors import UserError

__all__ = [
    "Phoneme", "Speech", "checked_request", "ipa_clauses", "languages", "speak", "voices",
]  # fmt: skip

_MAX_CHARACTERS = 100_000
_WORDS_PER_MINUTE = 165
_LONGEST_CLOSURE = 0.12  # seconds
_STRESS_MARKS = "\u02c8\u02cc"
_PLOSIVES = "pbtdkɡgcɟqɢʔʈɖɓɗʄɠʛʦʣʧʤ"  # noqa: RUF001 (IPA; affricates begin with one)
_OTHER_CODES = {"zh": "cmn", "chinese": "cmn", "mandarin": "cmn", "jp": "ja", "cn": "cmn",
                "kr": "ko", "gr": "el", "cz": "cs", "dk": "da", "se": "sv"}  # fmt: skip

# Constants and structures of eSpeak NG's speak_lib.h.
_SYNCHRONOUS, _EVENTS_IPA, _DO_NOT_EXIT = 2, 0x0003, 0x8000
_AS_IPA = 2
_MARKS = str.maketrans("\u3002\uff0c\u3001\uff01\uff1f\uff1b\uff1a\u0964\u061f", ".,,!?;:.?")
_UTF8, _END_PAUSE, _RATE = 1, 0x1000, 1
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7


class Phoneme(NamedTuple):
    """One sound: its IPA symbols as eSpeak writes them, and when it is heard, in seconds."""

    ipa: str
    start: float
    end: float


class Speech(NamedTuple):
    """Synthetic speech: (N,) float32 mono samples in [-1, 1], their rate in Hz, and phonemes.

    Phonemes are in order and do not overlap; between them there is silence.
    """

    samples: np.ndarray
    rate: int
    phonemes: list[Phoneme]

    def at_16k(self) -> np.ndarray:
        """The samples at `SAMPLE_RATE`, as features and drivers want them."""
        from scipy.signal import resample_poly

        common = gcd(self.rate, SAMPLE_RATE)
        up, down = SAMPLE_RATE // common, self.rate // common
        return resample_poly(self.samples, up, down).astype(np.float32)


def speak(text: str, language: str = "en", voice: str | None = None, speed: float = 1.0) -> Speech:
    """Say a text. Two readings of it differ by some milliseconds, as eSpeak NG's voice flutters.

    A process that says the same texts in the same order says them with the same samples.

    Args:
        text: plain text in that language.
        language: a code such as "en", "de", "fr", "cmn" or "ja"; see `languages`.
        voice: a voice variant such as "f2" or "Annie"; see `voices`.
        speed: 0.5 to 2.5 times the ordinary 165 words per minute.

    Raises:
        UserError: nothing to say, an unknown language or voice, or eSpeak NG is not installed.
    """
    checked_request(text, speed)
    name = _voice_name(language, voice)
    with _lock:
        library, rate = _library()
        if library.espeak_SetVoiceByName(name.encode()) != 0:
            raise UserError(f"eSpeak NG cannot load the voice {name!r}; choose another one.")
        library.espeak_SetParameter(_RATE, round(_WORDS_PER_MINUTE * speed), 0)
        samples, starts = _synthesise(library, text)
    if not len(samples):
        raise UserError(f"eSpeak NG finds nothing to say in the text for language {language!r}.")
    return Speech(samples, rate, _phonemes(samples, rate, starts))


def checked_request(text: str, speed: float) -> None:
    """Raise a UserError where there is nothing to say, too much, or at no human pace."""
    if not text.strip() or len(text) > _MAX_CHARACTERS:
        raise UserError(
            f"The text to speak must have 1 to {_MAX_CHARACTERS} characters, got {len(text)}."
        )
    if not 0.5 <= speed <= 2.5:
        raise UserError(f"The speaking speed must be within 0.5 to 2.5, got {speed}.")


def ipa_clauses(text: str, language: str = "en") -> list[tuple[str, str]]:
    """How a text sounds: (IPA of a clause, the punctuation mark that ends it or "").

    Raises:
        UserError: an unknown language, or eSpeak NG is not installed.
    """
    name = _voice_name(language, None)
    encoded = text.replace("\0", " ").encode()
    buffer = ctypes.create_string_buffer(encoded)
    address = ctypes.addressof(buffer)
    position = ctypes.c_void_p(address)
    clauses = []
    with _lock:
        library, _ = _library()
        if library.espeak_SetVoiceByName(name.encode()) != 0:
            raise UserError(f"eSpeak NG cannot load the voice {name!r}; choose another one.")
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        before = 0
        while position.value:
            ipa = library.espeak_TextToPhonemes(ctypes.byref(position), _UTF8, _AS_IPA)
            after = position.value - address if position.value else len(encoded)
            if after <= before and position.value:
                break
            # eSpeak NG has looked a little beyond the mark by then.
            read = encoded[before:after].decode("utf-8", "ignore").translate(_MARKS)
            mark = next((c for c in reversed(read[-4:]) if c in ",.:;?!"), "")
            clauses.append(((ipa or b"").decode("utf-8", "ignore"), mark))
            before = after
    return [clause for clause in clauses if clause[0].strip()]


def languages() -> dict[str, str]:
    """Language codes and their English names, e.g. {"de": "German", ...}."""
    best: dict[str, tuple[int, str]] = {}
    for code, name, _, place in _list_voices(None):
        best[code] = min(best.get(code, (place, name)), (place, name))
    return {code: best[code][1] for code in sorted(best)}


def voices() -> list[str]:
    """Names that `speak` takes as `voice`, in any language."""
    return sorted(name for _, name, _, _ in _list_voices(b"variant"))


class _Id(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_lock = threading.RLock()  # eSpeak NG keeps one global voice


@lru_cache(maxsize=1)
def _library() -> tuple[Any, int]:
    """The initialised library and its sample rate."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise UserError(
            "Speech from text needs espeakng-loader; run `pip install espeakng-loader`."
        ) from error
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path()
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"eSpeak NG cannot be loaded ({error}); run `pip install --force-reinstall "
            "espeakng-loader`."
        ) from error
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    library.espeak_Synth.argtypes = (
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint,
        ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
    )  # fmt: skip
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _EVENTS_IPA | _DO_NOT_EXIT)
    if rate <= 0:
        raise UserError(f"eSpeak NG cannot read its data in {data}; reinstall espeakng-loader.")
    # It is seeded with the time in seconds; a program that runs again should say the same again.
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    return library, rate


def _synthesise(library: Any, text: str) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """Samples and (IPA, first sample) of every phoneme; an empty IPA is a pause."""
    pieces: list[np.ndarray] = []
    starts: list[tuple[str, int]] = []

    def receive(wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            pieces.append(np.ctypeslib.as_array(wave, (count,)).astype(np.float32) / 32768)
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            if events[index].type == _EVENT_PHONEME:
                name = bytes(events[index].id.string).split(b"\0")[0].decode("utf-8", "ignore")
                starts.append((name, events[index].sample))
            index += 1
        return 0

    callback = _Callback(receive)
    library.espeak_SetSynthCallback(callback)
    encoded = text.replace("\0", " ").encode()
    library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8 | _END_PAUSE, None, None)
    return np.concatenate([np.zeros(0, np.float32), *pieces]), starts


def _phonemes(samples: np.ndarray, rate: int, starts: list[tuple[str, int]]) -> list[Phoneme]:
    """Phonemes that include their closure.

    eSpeak marks a plosive at its burst and counts the silent closure before it, during which the
    lips or tongue are shut, to the sound before. The closure is silent in the samples, so a
    plosive that follows silence is moved back to where the silence began, and so is a pause. The
    silence before any other sound is a pause and none of its own.
    """
    marks = [mark for mark in starts if not mark[0].startswith("(")]  # "(en)": language switch
    ends = [start for _, start in marks[1:]] + [len(samples)]
    sounding = np.flatnonzero(np.abs(samples) > 0.004)
    begins: list[int] = []
    for name, start in marks:
        if name and name.lstrip(_STRESS_MARKS)[:1] not in _PLOSIVES:
            begins.append(max(begins[-1] if begins else 0, start))
            continue
        earliest = max(begins[-1] if begins else 0, start - round(_LONGEST_CLOSURE * rate))
        before = sounding[: np.searchsorted(sounding, start)]
        heard = int(before[-1]) + 1 if len(before) else 0
        begins.append(max(earliest, min(heard, start)))
    result = []
    for index, (name, _) in enumerate(marks):
        end = begins[index + 1] if index + 1 < len(begins) else ends[index]
        if name and end > begins[index]:
            result.append(Phoneme(name, begins[index] / rate, end / rate))
    return result


def _voice_name(language: str, voice: str | None) -> str:
    # Names are checked against the lists, because eSpeak NG takes an unknown one for a file name.
    known = languages()
    if language not in known:
        raise UserError(
            f"eSpeak NG has no language {language!r}{_meant(language, known)}; it has "
            f"{len(known)}, among them "
            f"{_some(known, ('ar', 'cmn', 'de', 'en', 'es', 'fr', 'hi', 'ja', 'pt', 'ru'))}."
        )
    file = _identifier(language)
    if voice is None:
        return file
    if voice not in voices():
        close = difflib.get_close_matches(voice, [*voices(), "natural"], 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UserError(
            f"eSpeak NG has no voice {voice!r}{hint}; it has "
            f"{_some(voices(), ('f2', 'm3', 'Annie'))} and others, and `natural` or a Piper voice "
            "file (.onnx) gives a neural one."
        )
    return f"{file}+{voice}"


def _meant(language: str, known: dict[str, str]) -> str:
    """A hint at the code for a wrong one, or for a language's name: "german", "zh", "en_GB"."""
    wanted = language.lower().replace("_", "-")
    names = {name.lower(): code for code, name in reversed(known.items())}
    code = _OTHER_CODES.get(wanted.split("-")[0])
    if code is None and wanted in known:
        code = wanted
    if code is None:
        close = difflib.get_close_matches(wanted, names, 1, 0.75)
        codes = difflib.get_close_matches(wanted, known, 1, 0.6)
        code = names[close[0]] if close else next(iter(codes), None)
    return f" (did you mean {code!r}?)" if code else ""


def _some(names: Any, favourites: tuple[str, ...]) -> str:
    return ", ".join([name for name in favourites if name in names] or sorted(names)[:8])


def _identifier(language: str) -> str:
    """The voice file of a language code, such as "gmw/en"; codes themselves do not always load."""

    def rank(voice: tuple[str, str, str, int]) -> tuple[bool, int]:
        _, _, identifier, place = voice
        return identifier.rpartition("/")[2].lower() != language, place

    return min((voice for voice in _list_voices(None) if voice[0] == language), key=rank)[2]


@lru_cache(maxsize=2)
def _list_voices(kind: bytes | None) -> list[tuple[str, str, str, int]]:
    """(language code or "variant", name, voice file, place of the code among the voice's codes) of
    all installed voices of that kind."""
    with _lock:
        library, _ = _library()
        wanted = None
        if kind is not None:
            specification = ctypes.create_string_buffer(kind)
            wanted = ctypes.byref(_Voice(languages=ctypes.addressof(specification)))
        found, listed, index = [], library.espeak_ListVoices(wanted), 0
        while listed[index]:
            entry = listed[index].contents
            identifier = entry.identifier.decode()
            name = identifier.rpartition("/")[2] if kind else entry.name.decode()
            codes = enumerate(_codes(entry.languages))
            found += [(code, name, identifier, place) for place, code in codes]
            index += 1
    return found


def _codes(address: int) -> list[str]:
    """eSpeak's list of languages: (priority byte, name, NUL) again and again, then a NUL."""
    codes = []
    while ctypes.string_at(address, 1) != b"\0":
        code = ctypes.string_at(address + 1)
        codes.append(code.decode())
        address += len(code) + 2
    return codes
