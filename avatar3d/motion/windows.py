"""From feature rows per frame to what a regressor sees: activity, normalisation and time taps."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from avatar3d.audio.files import SAMPLE_RATE, checked
from avatar3d.errors import UserError

__all__ = ["activity", "gate", "in_parts", "normalised", "taps"]

_BANDS = slice(5, 62)  # of the 80 mel bands: about 200 to 4500 Hz, where voices are
_BELOW_LOUD = 28.0  # dB under the loud parts that may still be speech
_MIN_RANGE = 6.0  # dB between quiet and loud that speech always has
_GAP = 0.25  # seconds; shorter silences belong to speech (closures of plosives)
_PART_SECONDS, _OVERLAP_SECONDS = 600.0, 5.0
_SHRINK = 2.0  # seconds of the training statistics mixed into an utterance's own


def activity(mel: np.ndarray, fps: float) -> np.ndarray:
    """(T,) bool, frames in which somebody speaks, from log-mel rows (T, 80).

    Loudness in the voice band must be within 28 dB of the loud parts and, where the background is
    noisy, in the upper part of the recording's range. Steady sound (range under 6 dB) and silence
    are not speech. Silences under 0.25 s between speech count as speech.
    """
    level = 10 * np.log10(np.exp(mel[:, _BANDS].astype(np.float64)).mean(axis=1))
    quiet, loud = np.percentile(level, (5, 95))
    if loud - quiet < _MIN_RANGE:
        return np.zeros(len(mel), bool)
    threshold = max(loud - _BELOW_LOUD, min(quiet + 0.4 * (loud - quiet), loud - 15))
    active = level > threshold
    return _closed(active, max(1, round(_GAP * fps)))


def gate(active: np.ndarray, fps: float, lead: float = 0.1, tail: float = 0.14) -> np.ndarray:
    """(T,) in [0, 1]: 1 while speaking, easing from 0 over `lead` s before and `tail` s after."""
    frames = np.arange(len(active))
    spoken = np.flatnonzero(active)
    if not len(spoken):
        return np.zeros(len(active))
    following = np.searchsorted(spoken, frames)
    ahead = spoken[np.minimum(following, len(spoken) - 1)] - frames
    behind = frames - spoken[np.maximum(following - 1, 0)]
    ahead = np.where(ahead >= 0, ahead, np.inf) / fps
    behind = np.where(behind >= 0, behind, np.inf) / fps
    openness = np.maximum(1 - ahead / lead, 1 - behind / tail)
    openness = np.where(active, 1.0, np.clip(openness, 0, 1))
    return openness * openness * (3 - 2 * openness)


def normalised(
    rows: np.ndarray, active: np.ndarray, mean: np.ndarray, std: np.ndarray, fps: float
) -> np.ndarray:
    """Rows (T, C) brought to zero mean and unit variance over the utterance's spoken frames.

    So other voices and microphones look alike. Utterances of a few words have no statistics of
    their own: 2 s of the training data's `mean` and `std` (C,) are mixed in.
    """
    spoken, prior = rows[active], _SHRINK * fps
    total = len(spoken) + prior
    center = (spoken.sum(axis=0) + prior * mean) / total
    spread = np.sqrt((((spoken - center) ** 2).sum(axis=0) + prior * std**2) / total)
    return (rows - center) / (spread + 1e-3)


def taps(rows: np.ndarray, fps: float, offsets: Sequence[float], shift: float = 0.0) -> np.ndarray:
    """Rows at several moments around each frame, side by side: (T, C) to (T, C * len(offsets)).

    Args:
        rows: (T, C), row i at i / fps seconds.
        fps: rows per second.
        offsets: seconds; each gives a block of C columns, linearly interpolated.
        shift: seconds added to all offsets. Beyond both ends the nearest row is taken.
    """
    last = len(rows) - 1
    blocks = []
    for offset in offsets:
        position = np.clip(np.arange(len(rows)) + (offset + shift) * fps, 0, last)
        low = np.minimum(position.astype(int), max(last - 1, 0))
        weight = (position - low)[:, None].astype(rows.dtype)
        blocks.append(rows[low] * (1 - weight) + rows[np.minimum(low + 1, last)] * weight)
    return np.concatenate(blocks, axis=1)


def in_parts(
    samples: np.ndarray, fps: float, rows_of: Callable[[np.ndarray, int, int], np.ndarray]
) -> np.ndarray:
    """Rows (T, C) for sound (N,) at 16 kHz, T = ceil(duration * fps), made ten minutes at a time.

    So an audio book takes no more memory than its result. Parts overlap by 5 s and are cut inside.

    Args:
        rows_of: from a piece of sound, its first frame and number of frames to that many rows.

    Raises:
        UserError: empty or broken sound, or an impossible frame rate.
    """
    samples = checked(samples)
    if not len(samples) or not 1 <= fps <= 1000:
        raise UserError(f"There is no sound to move the mouth to at {fps} frames per second.")
    total = max(1, int(np.ceil(len(samples) / SAMPLE_RATE * fps - 1e-6)))
    size, overlap = round(_PART_SECONDS * fps), round(_OVERLAP_SECONDS * fps)
    pieces = []
    for first in range(0, total, size):
        start, stop = max(0, first - overlap), min(total, first + size + overlap)
        low, high = (round(frame / fps * SAMPLE_RATE) for frame in (start, stop))
        rows = rows_of(samples[low:high], start, stop - start)
        pieces.append(rows[first - start : min(first + size, total) - start])
    return np.concatenate(pieces)


def _closed(active: np.ndarray, longest: int) -> np.ndarray:
    """Fill runs of False that lie between True and are at most `longest` frames."""
    result = active.copy()
    spoken = np.flatnonzero(active)
    for first, second in pairwise(spoken):
        if 1 < second - first <= longest + 1:
            result[first:second] = True
    return result
