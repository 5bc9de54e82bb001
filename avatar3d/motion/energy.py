"""A mouth from the sound's energy and colour alone: the last resort, needing no model at all."""

import numpy as np

from avatar3d.audio.features import levelled, log_mel
from avatar3d.audio.files import SAMPLE_RATE
from avatar3d.audio.mel import mel_filters
from avatar3d.motion.articulation import CURVES, to_arkit
from avatar3d.motion.motion import Motion
from avatar3d.motion.windows import activity, gate, in_parts

__all__ = ["from_audio_energy"]

_RATE = 100.0  # Hz of the inner time grid
_RANGE = 24.0  # dB between a barely open and a fully open mouth
_SMOOTH = 0.03  # seconds


def from_audio_energy(samples: np.ndarray, fps: float, opening: float = 1.0) -> Motion:
    """Mouth motion for any sound, without knowing what is said.

    The jaw follows the level in the voice band and opens further for sounds with a high first
    formant; a dark vowel rounds the lips, a bright one spreads them; hissing brings the teeth
    together; short deep dips inside speech shut the lips. Filters are symmetric, so the mouth does
    not lag. Silence, steady noise and the time around speech leave the mouth closed and neutral.

    Args:
        samples: (N,) mono sound at 16 kHz.
        fps: frames per second of the motion.
        opening: scale of the jaw, 1 for ordinary speech.

    Returns:
        Motion with the expression track only, ceil(duration * fps) frames.

    Raises:
        UserError: empty or broken sound.
    """
    curves = in_parts(samples, fps, lambda piece, _, count: _sampled(piece, fps, count))
    return Motion(fps=fps, expression=to_arkit(curves, opening), source="audio energy")


def _sampled(samples: np.ndarray, fps: float, count: int) -> np.ndarray:
    """Articulation curves (count, 7) at `fps`, made at `_RATE`."""
    from scipy.ndimage import gaussian_filter1d

    mel = log_mel(levelled(samples), _RATE, int(np.ceil(count / fps * _RATE)) + 1)
    curves = _curves(mel) * gate(activity(mel, _RATE), _RATE)[:, None]
    curves = gaussian_filter1d(curves, _SMOOTH * _RATE, axis=0)
    at, grid = np.arange(count) / fps, np.arange(len(curves)) / _RATE
    return np.stack([np.interp(at, grid, curve) for curve in curves.T], axis=1)


def _curves(mel: np.ndarray) -> np.ndarray:
    """Articulation curves (T, 7) from log-mel rows at `_RATE`."""
    from scipy.ndimage import gaussian_filter1d, maximum_filter1d

    filters = mel_filters(mel.shape[1], 1024, SAMPLE_RATE, 0, SAMPLE_RATE / 2)
    hertz = (filters * np.arange(len(filters))[:, None] * 15.625).sum(0) / filters.sum(0)
    width = 1 / filters.max(0)  # unit area, so this is the bandwidth: level in a band needs it
    power = np.exp(mel.astype(np.float64)) * width

    def band(low: float, high: float) -> np.ndarray:
        return power[:, (hertz >= low) & (hertz < high)].sum(axis=1) + 1e-6

    level = gaussian_filter1d(10 * np.log10(band(200, 4000)), 0.015 * _RATE)
    loud = np.percentile(level, 95)
    height = np.clip((level - loud + _RANGE) / _RANGE, 0, 1.1)
    open_vowel = _ratio(band(500, 1000), band(200, 450), -8, 6)
    bright = _ratio(band(1600, 3500), band(500, 1200), -18, 0)
    hiss = _ratio(band(4000, 8000), band(200, 3000), -6, 8)
    dip = np.clip((maximum_filter1d(level, int(0.2 * _RATE)) - level - 9) / 10, 0, 1)
    curves = {
        "jaw": height * (0.35 + 0.5 * open_vowel) * (1 - 0.7 * hiss),
        "rounding": height * (1 - bright) * (1 - open_vowel) * (1 - hiss),
        "spreading": height * bright * (1 - open_vowel) * 0.6,
        "part": 0.4 * height + 0.2 * hiss,
        "tongue": np.zeros_like(height),
        "closed": dip * (1 - hiss) * 0.8,
        "tucked": np.zeros_like(height),
    }
    return np.stack([curves[name] for name in CURVES], axis=1)


def _ratio(first: np.ndarray, second: np.ndarray, low: float, high: float) -> np.ndarray:
    """Level difference in dB, brought from [low, high] to [0, 1] and clipped."""
    return np.clip((10 * np.log10(first / second) - low) / (high - low), 0, 1)
