"""Who reads a text: eSpeak NG, a neural Piper voice, or any speech synthesiser of yours."""

from pathlib import Path
from typing import Protocol

from avatar3d.audio.tts import Speech, speak

__all__ = ["NATURAL", "Synthesizer", "say_text"]

NATURAL = "natural"
"""The name of the neural voice among the assets."""

_NATURAL_MODEL, _NATURAL_SETTINGS = "piper-joe", "piper-joe-settings"


class Synthesizer(Protocol):
    """Anything that reads text aloud.

    A `Speech` without phonemes will do: then the avatar's driver listens to the sound. With their
    times, lips close exactly when they must.

    Example:
        def mine(text, language, speed):
            return Speech(samples, 24_000, [])

        speech = mine("Hello", "en", 1.0)
        motion = motion_for_audio(avatar.driver, speech.at_16k(), base=avatar.idle_motion)
    """

    def __call__(self, text: str, language: str, speed: float) -> Speech:
        """Say `text` of a language (an eSpeak NG code) at `speed` times the ordinary pace."""
        ...


def say_text(
    text: str,
    language: str = "en",
    voice: "str | Synthesizer | None" = None,
    speed: float = 1.0,
) -> Speech:
    """Say a text.

    Args:
        text: plain text; language: such as "en" or "de"; speed: 0.5 to 2.5.
        voice: None or a variant such as "f2" for eSpeak NG, "natural" for the neural English voice
            of the assets, the path of a Piper voice (.onnx), or a `Synthesizer`.

    Raises:
        UserError: nothing to say, or an unknown language or voice.
    """
    if callable(voice):
        return voice(text, language, speed)
    if voice is None or not (voice == NATURAL or voice.lower().endswith(".onnx")):
        return speak(text, language, voice, speed)
    from avatar3d.audio.piper import load_piper

    if voice != NATURAL:
        return load_piper(Path(voice))(text, language, speed)
    from avatar3d.assets import get

    return load_piper(get(_NATURAL_MODEL), get(_NATURAL_SETTINGS))(text, language, speed)
