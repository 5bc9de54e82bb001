"""The sound of a clip: is there speech, how clean is it, and does it come when the lips move."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avatar3d.audio import SAMPLE_RATE, features, load_audio
from avatar3d.audio.features import levelled, log_mel, loudness
from avatar3d.audio.files import SoundTrack, sound_track
from avatar3d.errors import UserError
from avatar3d.head import ARKIT_INDEX
from avatar3d.motion.articulation import to_arkit
from avatar3d.motion.universal import load_universal
from avatar3d.motion.windows import activity

__all__ = ["Offset", "Sound", "estimate_offset", "hear", "talking_ranges"]

SILENT = 1e-3
"""Loudness (RMS of the loud parts) below which a track counts as silent: -60 dB."""
_CLIPPED = 0.999
_RANGE_SECONDS = 5.0
_LARGEST_OFFSET, _STEP = 0.6, 0.01
_CONTEXT = 1.0
"""Seconds of sound around a stretch that its features may look at."""


@dataclass(frozen=True)
class Sound:
    """What the sound track alone tells.

    Attributes:
        track: as declared by the file; None without one.
        problem: why it could not be read, or empty.
        samples: (N,) at 16 kHz from the first captured frame on.
        speech: (T,) bool per captured frame.
        level: RMS of the loud parts; noise: RMS of the quiet parts.
        clipped: share of samples at full scale.
        band: Hz below which 99.9 % of the speech's power lies.
    """

    track: SoundTrack | None
    problem: str = ""
    samples: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    speech: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    level: float = 0.0
    noise: float = 0.0
    clipped: float = 0.0
    band: float = 0.0

    @property
    def audible(self) -> bool:
        return self.level >= SILENT


@dataclass(frozen=True)
class Offset:
    """By how much the sound comes after the picture.

    Attributes:
        seconds: positive where the lips move first and are heard too late.
        correlation: of the measured lip gap with the one that the sound predicts, at the best
            offset, in [-1, 1].
        confidence: 0 none to 1 sure.
        curve: (K, 2) offset in seconds and correlation.
    """

    seconds: float
    correlation: float
    confidence: float
    curve: np.ndarray


def hear(path: Path, fps: float, frames: int, start: float) -> Sound:
    """Read and measure the sound of the captured part of a clip."""
    try:
        track = sound_track(path)
        if track is None:
            return Sound(None)
        samples, _ = load_audio(path)
    except UserError as error:
        return Sound(None, str(error))
    first = round(start * SAMPLE_RATE)
    samples = samples[first : first + round(frames / fps * SAMPLE_RATE)]
    if not len(samples):
        return Sound(track, "The sound ends before the picture begins.")
    levels = loudness(samples)
    quiet, loud = np.percentile(levels, (10, 95))
    clipped = float((np.abs(samples) >= _CLIPPED).mean())
    if loud < SILENT:
        silence = np.zeros(frames, bool)
        return Sound(track, "", samples, silence, float(loud), float(quiet), clipped, 0.0)
    speech = activity(log_mel(levelled(samples), fps, frames), fps)
    return Sound(
        track, "", samples, speech, float(loud), float(quiet), clipped, _band(samples, speech, fps)
    )


def talking_ranges(speech: np.ndarray, fps: float, seconds: float) -> list[tuple[int, int]]:
    """Up to `seconds` of frames with most speech, in stretches of 5 s; spread where there is none.

    Returns:
        (first, past the last) pairs that do not overlap, in order.
    """
    size = min(max(1, round(_RANGE_SECONDS * fps)), len(speech))
    wanted = max(1, round(seconds / _RANGE_SECONDS))
    starts = np.arange(0, len(speech) - size + 1, max(1, size // 5))
    total = np.concatenate([[0], np.cumsum(speech)])
    amounts = (total[starts + size] - total[starts]).astype(float)
    chosen: list[tuple[int, int]] = []
    while len(chosen) < wanted and np.isfinite(amounts).any() and amounts.max() >= 0:
        first = int(starts[int(amounts.argmax())])
        chosen.append((first, first + size))
        amounts[np.abs(starts - first) < size] = -1
    return sorted(chosen)


def estimate_offset(sound: Sound, gaps: list[tuple[int, np.ndarray]], fps: float) -> Offset | None:
    """Shift of the sound that makes it agree best with the lips.

    The opening of the mouth that the sound calls for (universal driver, which knows how much lips
    lead their sound) is correlated with the measured gap of the lips at every shift. A second
    reading, the loudness of the voice, only lends confidence.

    Args:
        sound: of the clip.
        gaps: stretches of (first frame, lip gap (n,) per frame, NaN where no face was found).
        fps: frames per second.

    Returns:
        None without enough speech or without the models for it.
    """
    shifts = np.arange(-_LARGEST_OFFSET, _LARGEST_OFFSET + _STEP / 2, _STEP)
    try:
        driver = load_universal()
    except UserError:
        return None
    pairs = []
    for first, gap in gaps:
        if (
            np.isfinite(gap).sum() < 1.5 * fps
            or sound.speech[first : first + len(gap)].mean() < 0.3
        ):
            continue
        predicted = _opening(sound, driver, first, len(gap), fps)
        if predicted is not None:
            pairs.append((gap, predicted))
    if not pairs:
        return None
    scores = np.array([_agreement(pairs, shift, fps) for shift in shifts])
    best = int(scores.argmax())
    frames = sum(int(np.isfinite(gap).sum()) for gap, _ in pairs)
    confidence = _confidence(scores, shifts, best, frames / fps)
    return Offset(
        float(_peak(shifts, scores, best)), float(scores[best]), confidence,
        np.column_stack([shifts, scores]),
    )  # fmt: skip


def _opening(sound: Sound, driver: object, first: int, count: int, fps: float) -> np.ndarray | None:
    """Predicted opening of the mouth (count + 2 * margin,), margin as in `_agreement`."""
    margin = round((_LARGEST_OFFSET + 0.1) * fps)
    context = round(_CONTEXT * fps)
    low = (first - margin - context) / fps
    total = count + 2 * (margin + context)
    a, b = round(low * SAMPLE_RATE), round((low + total / fps) * SAMPLE_RATE)
    piece = sound.samples[max(a, 0) : max(b, 0)]
    padded = np.pad(piece, (max(-a, 0), max(b - a - max(-a, 0) - len(piece), 0)))
    rows = features(padded, fps, total)
    if "speech" not in rows:
        return None
    weights = to_arkit(driver.curves(rows, fps))  # type: ignore[attr-defined]
    opening = weights[:, ARKIT_INDEX["jawOpen"]] - weights[:, ARKIT_INDEX["mouthClose"]]
    return opening[context : context + count + 2 * margin]


def _agreement(pairs: list[tuple[np.ndarray, np.ndarray]], shift: float, fps: float) -> float:
    """Pooled correlation of gaps with the prediction `shift` seconds later in the sound."""
    margin = round((_LARGEST_OFFSET + 0.1) * fps)
    above, first, second = 0.0, 0.0, 0.0
    for gap, predicted in pairs:
        places = np.arange(len(gap)) + margin + shift * fps
        moved = np.interp(places, np.arange(len(predicted)), predicted)
        known = np.isfinite(gap)
        a, b = gap[known] - gap[known].mean(), moved[known] - moved[known].mean()
        above, first, second = above + a @ b, first + a @ a, second + b @ b
    return float(above / np.sqrt(max(first * second, 1e-12)))


def _peak(shifts: np.ndarray, scores: np.ndarray, best: int) -> float:
    """Parabola through the best score and its neighbours."""
    if best in (0, len(scores) - 1):
        return shifts[best]
    left, middle, right = scores[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return shifts[best] + (0.5 * (left - right) / bend * _STEP if bend < 0 else 0.0)


def _confidence(scores: np.ndarray, shifts: np.ndarray, best: int, seconds: float) -> float:
    """How far the peak stands above everything 0.2 s away from it, for this much material."""
    if best in (0, len(scores) - 1):
        return 0.0
    rivals = scores[np.abs(shifts - shifts[best]) > 0.2]
    lead = scores[best] - max(float(rivals.max()), 0.0)
    # Speech gives about four independent readings a second.
    noise = 1 / np.sqrt(max(4 * seconds, 1.0))
    return float(np.clip(lead / (2 * noise), 0, 1) * np.clip(scores[best] / 0.3, 0, 1))


def _band(samples: np.ndarray, speech: np.ndarray, fps: float) -> float:
    """Hz below which 99.9 % of the power of the spoken parts lies; tells telephone sound."""
    size = 1024
    count = len(samples) // size
    if not count:
        return 0.0
    places = ((np.arange(count) + 0.5) * size / SAMPLE_RATE * fps).astype(int)
    spoken = speech[np.minimum(places, len(speech) - 1)]
    if not spoken.any():
        return 0.0
    blocks = samples[: count * size].reshape(count, size)[spoken][:2000]
    power = (np.abs(np.fft.rfft(blocks * np.hanning(size))) ** 2).mean(0)
    total = np.cumsum(power) / max(float(power.sum()), 1e-20)
    return float(np.searchsorted(total, 0.999) * SAMPLE_RATE / size)
