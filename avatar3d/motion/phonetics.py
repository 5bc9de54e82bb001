"""What the mouth does for any IPA symbol, derived from the symbol's phonetic features."""

# ruff: noqa: RUF001 (IPA letters look like Latin ones)

import unicodedata
from dataclasses import dataclass

__all__ = ["Mouth", "mouths"]

# Vowels of the IPA chart: (openness 0 close .. 1 open, frontness 0 back .. 1 front, rounding 0..1).
_VOWELS: dict[str, tuple[float, float, float]] = {
    "i": (0.05, 1.0, 0), "y": (0.05, 1.0, 1), "ɨ": (0.1, 0.5, 0), "ʉ": (0.1, 0.5, 1),
    "ɯ": (0.1, 0.0, 0), "u": (0.05, 0.0, 1), "ɪ": (0.2, 0.8, 0), "ʏ": (0.2, 0.8, 0.9),
    "ʊ": (0.2, 0.2, 0.8), "e": (0.35, 1.0, 0), "ø": (0.35, 1.0, 0.85), "ɘ": (0.35, 0.5, 0),
    "ɵ": (0.35, 0.5, 0.8), "ɤ": (0.35, 0.0, 0), "o": (0.4, 0.0, 0.85), "ə": (0.35, 0.5, 0.05),
    "ɚ": (0.35, 0.5, 0.3), "ɝ": (0.4, 0.5, 0.3), "ɛ": (0.6, 0.9, 0), "œ": (0.6, 0.9, 0.7),
    "ɜ": (0.55, 0.5, 0.1), "ɞ": (0.6, 0.5, 0.6), "ʌ": (0.65, 0.2, 0), "ɔ": (0.65, 0.0, 0.65),
    "æ": (0.85, 0.9, 0), "ɐ": (0.75, 0.5, 0), "a": (1.0, 0.7, 0), "ɶ": (1.0, 0.7, 0.5),
    "ɑ": (1.0, 0.0, 0), "ɒ": (0.9, 0.0, 0.45),
}  # fmt: skip

_BILABIAL = "pbmɓʘ"
_LABIODENTAL = "fvɱⱱ"
_ROUND_GLIDES = "wʍɥ"
_LOOSE_LABIAL = "ɸβʙʋ"
_DENTAL = "θð"
_SIBILANT = "szɬɮɕʑ"
_POSTALVEOLAR = "ʃʒʂʐɧ"
_RHOTIC = "ɹɻ"
_ALVEOLAR = "tdnlrɾɽɳɭʈɖɲʎcɟçʝjɗʄɫǀǁǃǂʦʣʧʤ"
_DORSAL = "kɡgŋxɣɰʟqɢɴχʁʀɠʛ"
_OPEN_THROAT = "hɦħʕʔʢʡ"


@dataclass(frozen=True)
class Mouth:
    """Target of one speech sound. All in [0, 1]; a strength is how far neighbours must yield.

    Attributes:
        jaw: opening of the jaw, 1 for a clearly spoken open vowel.
        rounding: 1 for the lips of "oo"; spreading: 1 for those of "ee".
        part: lips drawn off the teeth, as in "s".
        closed: lips pressed together; tucked: lower lip under the upper teeth.
        tongue: tip between the teeth.
        jaw_strength, lip_strength: of `jaw`, and of rounding, spreading and part.
        share: part of the phoneme's time that this sound takes, relative to the others in it.
    """

    jaw: float
    rounding: float = 0.0
    spreading: float = 0.0
    part: float = 0.0
    closed: float = 0.0
    tucked: float = 0.0
    tongue: float = 0.0
    jaw_strength: float = 1.0
    lip_strength: float = 1.0
    share: float = 1.0


def mouths(ipa: str) -> list[Mouth]:
    """The mouth shapes of one phoneme in order: one, or several for diphthongs and affricates.

    Stress, length, tone and other marks are ignored, except that stress opens vowels a little and
    a raised w rounds. Symbols that the mouth does not show (and unknown ones) give nothing.

    Example:
        >>> [(m.closed, m.jaw) for m in mouths("m")]
        [(1.0, 0.05)]
        >>> [round(m.rounding, 2) for m in mouths("aʊ")]
        [0, 0.8]
    """
    stressed = "ˈ" in ipa
    symbols = [s for s in unicodedata.normalize("NFD", ipa) if s in _VOWELS or s in _CONSONANTS]
    result = []
    for index, symbol in enumerate(symbols):
        if symbol in _VOWELS:
            glide = index > 0 and symbols[index - 1] in _VOWELS
            result.append(_vowel(symbol, stressed, share=0.7 if glide else 1.0))
        else:
            result.append(_CONSONANTS[symbol])
    if "ʷ" in ipa and result:
        result.append(_CONSONANTS["w"])
    return result


def _vowel(symbol: str, stressed: bool, share: float) -> Mouth:
    openness, front, rounding = _VOWELS[symbol]
    return Mouth(
        jaw=(0.18 + 0.75 * openness) * (1.0 if stressed else 0.85) * (1 - 0.25 * rounding),
        rounding=rounding,
        spreading=(1 - rounding) * max(0.0, front - 0.4) * (1.3 - 0.9 * openness),
        part=(1 - rounding) * (0.15 + 0.3 * openness),
        jaw_strength=1.2 if stressed else 0.9,
        lip_strength=1.2 if rounding > 0.5 or stressed else 0.8,
        share=share,
    )


def _consonants() -> dict[str, Mouth]:
    groups = {
        _BILABIAL: Mouth(0.05, closed=1.0, jaw_strength=2.5, lip_strength=0.15),
        _LABIODENTAL: Mouth(0.1, tucked=1.0, part=0.2, jaw_strength=2.0, lip_strength=0.3),
        _ROUND_GLIDES: Mouth(0.12, rounding=1.0, jaw_strength=1.2, lip_strength=2.0),
        _LOOSE_LABIAL: Mouth(0.1, rounding=0.4, tucked=0.3, jaw_strength=1.5, lip_strength=0.8),
        _DENTAL: Mouth(0.2, part=0.3, tongue=1.0, jaw_strength=1.2, lip_strength=0.5),
        _SIBILANT: Mouth(0.1, spreading=0.35, part=0.5, jaw_strength=2.0, lip_strength=0.6),
        _POSTALVEOLAR: Mouth(0.12, rounding=0.55, part=0.5, jaw_strength=2.0, lip_strength=1.2),
        _RHOTIC: Mouth(0.2, rounding=0.45, part=0.2, jaw_strength=0.8, lip_strength=0.8),
        _ALVEOLAR: Mouth(0.22, part=0.3, spreading=0.1, jaw_strength=0.9, lip_strength=0.25),
        _DORSAL: Mouth(0.28, part=0.2, jaw_strength=0.5, lip_strength=0.15),
        _OPEN_THROAT: Mouth(0.3, part=0.2, jaw_strength=0.15, lip_strength=0.05),
    }
    return {symbol: mouth for symbols, mouth in groups.items() for symbol in symbols}


_CONSONANTS = _consonants()
