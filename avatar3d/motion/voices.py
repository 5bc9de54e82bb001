"""A clip's sound as other people and rooms would have it: more voices to learn a mouth from."""

import numpy as np

from avatar3d.audio.features import features
from avatar3d.audio.files import SAMPLE_RATE

__all__ = ["ENOUGH_FRAMES", "other_voices"]

ENOUGH_FRAMES = 1500
"""Of a clip, whose own variety does without other voices."""

_TEMPI = (89, 112)  # percent of the clip's duration; the pitch and the speaker's size go with it
_NOISE = 0.1  # of the sound's deviation
_ECHO_SECONDS, _ECHO = 0.25, 0.4  # until it is 60 dB down, and its energy over the direct sound's


def other_voices(samples: np.ndarray, fps: float, count: int) -> list[dict[str, np.ndarray]]:
    """Features of the same frames of a clip, from a smaller, a larger and a distant speaker.

    Playing a recording faster raises its pitch, its formants and its tempo together, as another
    person's; reading its features at likewise faster moments keeps the frames.

    Args:
        samples: (N,) the clip's sound at 16 kHz; fps: its frames per second; count: of them.

    Raises:
        UserError: as `avatar3d.audio.features`.
    """
    from scipy.signal import fftconvolve, resample_poly

    result = [
        features(resample_poly(samples, tempo, 100).astype(np.float32), fps * 100 / tempo, count)
        for tempo in _TEMPI
    ]
    rng = np.random.default_rng(0)
    length = int(_ECHO_SECONDS * SAMPLE_RATE)
    echo = rng.normal(size=length) * 10 ** (-3 * np.arange(length) / length)
    echo *= np.sqrt(_ECHO / (echo**2).sum())
    echo[0] = 1
    distant = fftconvolve(samples, echo)[: len(samples)]
    distant = distant + _NOISE * samples.std() * rng.normal(size=len(samples))
    return [*result, features(distant.astype(np.float32), fps, count)]
