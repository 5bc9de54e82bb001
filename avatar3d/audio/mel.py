"""Log-mel spectra at any moments, in numpy.

The mel scale and the area-normalised triangles are Slaney's (Auditory Toolbox, 1998), as in
librosa's default: linear below 1 kHz, logarithmic above.
"""

import numpy as np

__all__ = ["mel_filters", "mel_power"]

_BLOCK = 4096


def mel_filters(bands: int, fft: int, rate: int, low: float, high: float) -> np.ndarray:
    """(fft // 2 + 1, bands) triangles of unit area in Hz, centres equally spaced in mel."""
    edges = _mel_to_hz(np.linspace(_hz_to_mel(low), _hz_to_mel(high), bands + 2))
    bins = np.arange(fft // 2 + 1)[:, None] * rate / fft
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))


def mel_power(
    samples: np.ndarray, centers: np.ndarray, window: np.ndarray, filters: np.ndarray
) -> np.ndarray:
    """Mel power in Hann-like windows around given samples.

    `power[t, b] = sum_k filters[k, b] |sum_n window[n] x[centers[t] - len(window) // 2 + n]
    exp(-2 pi i k n / fft)|^2` with x zero outside the sound and fft implied by `filters`.

    Args:
        samples: (N,) sound.
        centers: (T,) int sample indices, any.
        window: (L,) weights, L <= fft.
        filters: (fft // 2 + 1, B), see `mel_filters`.

    Returns:
        (T, B) float32, not negative.
    """
    fft, half = 2 * (len(filters) - 1), len(window) // 2
    padding = np.zeros(len(window), samples.dtype)
    padded = np.concatenate([padding[:half], samples, padding[half:]])
    views = np.lib.stride_tricks.sliding_window_view(padded, len(window))
    outside = (centers < -half) | (centers > len(samples) - 1 + half)
    starts = np.clip(centers, 0, len(views) - 1)
    result = np.empty((len(centers), filters.shape[1]), np.float32)
    for first in range(0, len(centers), _BLOCK):
        block = slice(first, first + _BLOCK)
        spectrum = np.fft.rfft(views[starts[block]] * window, fft)
        result[block] = (spectrum.real**2 + spectrum.imag**2) @ filters
    result[outside] = 0
    return result


def _hz_to_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))
