"""Phonemes with their times to ARKit curves: any voice, any language, no training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avatar3d.errors import UserError
from avatar3d.motion.articulation import CURVES, to_arkit
from avatar3d.motion.energy import from_audio_energy
from avatar3d.motion.motion import Motion
from avatar3d.motion.phonetics import Mouth, mouths

__all__ = ["articulation", "from_audio_energy", "from_phonemes", "from_text"]

_RATE = 200.0  # Hz of the inner time grid
_LEAD = 0.03  # seconds by which lips move before the sound is heard
_TAU_BEFORE, _TAU_AFTER = 0.055, 0.045  # seconds, reach of a sound into its neighbours
_PAUSE = 0.12  # seconds of silence after which the mouth is on its way to rest
_RISE, _FALL = 0.055, 0.06  # seconds for lips to close and to part
_SMOOTH = 0.014  # seconds, standard deviation of the final smoothing


def from_text(
    text: str, language: str = "en", fps: float = 25.0, voice: str | None = None
) -> Motion:
    """The mouth of an eSpeak NG voice that says `text`.

    For the sound that goes with it call `avatar3d.audio.tts.speak` once, and `from_phonemes`.

    Raises:
        UserError: as `avatar3d.audio.tts.speak`.
    """
    from avatar3d.audio.tts import speak

    speech = speak(text, language, voice)
    return from_phonemes(speech.phonemes, fps, len(speech.samples) / speech.rate)


def from_phonemes(
    phonemes: Sequence[tuple[str, float, float]],
    fps: float,
    duration: float | None = None,
    opening: float = 1.0,
) -> Motion:
    """Mouth motion for phonemes with times.

    Args:
        phonemes: (IPA, start, end) in seconds; times without a phoneme are silence, in which the
            mouth is closed and neutral (all weights 0).
        fps: frames per second of the motion.
        duration: seconds; default the end of the last phoneme and half a second.
        opening: scale of the jaw, 1 for ordinary speech.

    Returns:
        Motion with the expression track only, ceil(duration * fps) frames.
    """
    curves = articulation(phonemes, fps, duration)
    return Motion(fps=fps, expression=to_arkit(curves, opening), source="phonemes")


def articulation(
    phonemes: Sequence[tuple[str, float, float]], fps: float, duration: float | None = None
) -> np.ndarray:
    """Articulation curves (T, 7) of phonemes with times; arguments as `from_phonemes`.

    Every sound has a target mouth (`avatar3d.motion.phonetics`) and a dominance that is flat
    while it lasts and falls off exponentially around it; the mouth is their weighted mean (Cohen
    and Massaro, "Modeling coarticulation in synthetic visual speech", 1993). Lip closures of
    bilabials and the lower lip under the teeth of labiodentals are not averaged away: they are
    reached in at least one frame, whatever surrounds them.

    """
    spans = _spans(phonemes)
    if duration is None:
        duration = (spans[-1].end if spans else 0.0) + 0.5
    if not (0 < duration < 1e6 and 1 <= fps <= 1000):
        raise UserError(f"Cannot make a motion of {duration} s at {fps} frames per second.")
    frames = max(1, int(np.ceil(duration * fps - 1e-6)))
    grid = np.arange(-0.2, frames / fps + 0.2, 1 / _RATE)
    curves = _coarticulate(spans, grid + _LEAD)
    least = 1 / fps  # a closure must not fall between two frames
    for name in ("closed", "tucked"):
        curves[name] = _bumps(spans, name, grid + _LEAD, least)
    at = np.arange(frames) / fps
    return np.stack([np.interp(at, grid, curves[name]) for name in CURVES], axis=1)


@dataclass(frozen=True)
class _Span:
    mouth: Mouth
    start: float
    end: float


_REST = Mouth(0.0, jaw_strength=1.0, lip_strength=1.0)


def _spans(phonemes: Sequence[tuple[str, float, float]]) -> list[_Span]:
    """Sounds in time, pauses included. Diphthongs and affricates are split."""
    spans: list[_Span] = []
    last = -1.0
    for ipa, start, end in phonemes:
        if not (np.isfinite([start, end]).all() and last - 1e-3 <= start <= end):
            raise UserError(
                f"Phoneme times must be in order, got {ipa!r} from {start} to {end} s "
                f"after {last} s."
            )
        if last < 0 or start - last > _PAUSE:
            spans.append(_Span(_REST, last, start))
        shapes = mouths(ipa)
        total = sum(shape.share for shape in shapes)
        position = start
        for shape in shapes:
            length = (end - start) * shape.share / total
            spans.append(_Span(shape, position, position + length))
            position += length
        last = end
    if spans:
        spans.append(_Span(_REST, last, last + 1.0))
    return spans


def _coarticulate(spans: list[_Span], grid: np.ndarray) -> dict[str, np.ndarray]:
    """Dominance-weighted mean of the targets on `grid` (G,) seconds."""
    names = {
        "jaw": "jaw_strength", "rounding": "lip_strength", "spreading": "lip_strength",
        "part": "lip_strength", "tongue": "lip_strength",
    }  # fmt: skip
    above = {name: np.zeros_like(grid) for name in names}
    below = {name: np.full_like(grid, 1e-3) for name in names}
    reach = 6 * _TAU_BEFORE
    for span in spans:
        low, high = np.searchsorted(grid, (span.start - reach, span.end + reach))
        local = slice(low, high)
        # Flat over the middle of the sound only: it fades in its own outer quarters already.
        edge = 0.25 * min(span.end - span.start, 0.12)
        before = np.maximum(0, span.start + edge - grid[local]) / _TAU_BEFORE
        after = np.maximum(0, grid[local] - span.end + edge) / _TAU_AFTER
        dominance = np.exp(-before - after)
        for name, strength in names.items():
            weight = dominance * getattr(span.mouth, strength)
            above[name][local] += weight * getattr(span.mouth, name)
            below[name][local] += weight
    return {name: _smooth(above[name] / below[name], _SMOOTH) for name in names}


def _bumps(spans: list[_Span], name: str, grid: np.ndarray, least: float) -> np.ndarray:
    """Curve in [0, 1] that holds the target of `name` for at least `least` seconds of each span."""
    curve = np.zeros_like(grid)
    for span in spans:
        value = getattr(span.mouth, name)
        if value == 0:
            continue
        missing = max(0.0, least - (span.end - span.start)) / 2
        start, end = span.start - missing, span.end + missing
        low, high = np.searchsorted(grid, (start - _RISE, end + _FALL))
        t = grid[low:high]
        ramp = np.minimum((t - start) / _RISE, (end - t) / _FALL) + 1
        ramp = np.clip(ramp, 0, 1)
        curve[low:high] = np.maximum(curve[low:high], value * ramp**2 * (3 - 2 * ramp))
    return curve


def _smooth(curve: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(curve, sigma * _RATE, mode="nearest")
