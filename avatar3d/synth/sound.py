"""A voice-like sound: buzz and breath through two formants, as loud as the mouth is open."""

import numpy as np

__all__ = ["speak"]

_RATE = 16000
_FORMANTS = np.array([[730, 1090], [270, 2290], [570, 840], [300, 870], [530, 1840]], float)
"""First two formants of the vowels in hertz (Peterson and Barney 1952), order as in performance."""


def speak(
    rng: np.random.Generator, loudness: np.ndarray, vowel: np.ndarray, fps: float
) -> tuple[np.ndarray, int]:
    """Sound of T frames.

    Args:
        loudness: (T,) in [0, 1]; vowel: (T,) int; fps: their frame rate.

    Returns:
        (N,) float32 samples in [-1, 1] and their rate in hertz.
    """
    count = round(len(loudness) / fps * _RATE)
    frame = np.arange(count) / _RATE * fps
    volume = np.interp(frame, np.arange(len(loudness)), loudness)
    formants = _smooth(_FORMANTS[vowel[np.minimum(frame.astype(int), len(vowel) - 1)]], _RATE // 50)
    pitch = 120 * (1 + 0.12 * volume + 0.02 * np.sin(2 * np.pi * 5 * frame / fps))
    phase = 2 * np.pi * np.cumsum(pitch) / _RATE
    sound = np.zeros(count)
    for harmonic in range(1, 31):
        frequency = harmonic * pitch[:, None]
        gain = (1 / (1 + ((frequency - formants) / 110) ** 2)).sum(1)
        sound += gain / harmonic**0.5 * np.sin(harmonic * phase)
    sound += 0.1 * rng.normal(size=count)
    sound *= volume
    hiss = 1e-3 * rng.normal(size=count)
    return (0.3 * sound / max(np.abs(sound).max(), 1e-9) + hiss).astype(np.float32), _RATE


def _smooth(columns: np.ndarray, width: int) -> np.ndarray:
    kernel = np.ones(width) / width
    padded = np.pad(columns, ((width // 2, width - 1 - width // 2), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, kernel, "valid") for column in padded.T], 1)
