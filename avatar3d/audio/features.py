"""One row of speech features per video frame."""

import numpy as np

from avatar3d.audio import embedding
from avatar3d.audio.files import SAMPLE_RATE, checked
from avatar3d.audio.mel import mel_filters, mel_power
from avatar3d.errors import UserError

__all__ = ["features", "levelled", "log_mel", "loudness"]

MEL_BANDS = 80
_WINDOW, _FFT = 800, 1024  # 50 ms, a little more than one frame at 25 fps, so no sound is missed
_TARGET_RMS, _MAX_GAIN = 0.1, 100.0
_FLOOR = 1e-6


def features(samples: np.ndarray, fps: float, count: int) -> dict[str, np.ndarray]:
    """Speech features around the moment i / fps of every frame i.

    The sound is first brought to a standard level (`levelled`), so a recording's volume does not
    matter; nothing else is normalised here. Silence gives finite, constant rows. Frames past the
    end of the sound get the features of silence.

    Args:
        samples: (N,) mono sound at `SAMPLE_RATE`.
        fps: video frames per second.
        count: number of frames T.

    Returns:
        "mel": (T, 80) natural log of mel power (50 ms Hann window, 0 to 8 kHz) + 1e-5.
        "speech": (T, 480) inner layers of a speech embedding (`avatar3d.audio.embedding`); only
            where onnxruntime is installed and the asset can be obtained.

    Raises:
        UserError: empty sound, samples that are not finite mono numbers, or count < 1.
    """
    samples = checked(samples)
    if not len(samples) or count < 1 or not 1 <= fps <= 1000:
        raise UserError(
            f"Speech features need some sound and frames, got {len(samples)} samples for {count} "
            f"frames at {fps} per second."
        )
    sound = levelled(samples)
    result = {"mel": log_mel(sound, fps, count)}
    if embedding.available():
        result["speech"] = embedding.speech_embedding(sound, np.arange(count) / fps)
    return result


def log_mel(sound: np.ndarray, fps: float, count: int) -> np.ndarray:
    """The "mel" rows (T, 80) of `features` for levelled sound (N,) at `SAMPLE_RATE`."""
    centers = np.round(np.arange(count) * (SAMPLE_RATE / fps)).astype(np.int64)
    filters = mel_filters(MEL_BANDS, _FFT, SAMPLE_RATE, 0, SAMPLE_RATE / 2)
    return np.log(mel_power(sound, centers, _hann(_WINDOW), filters) + _FLOOR)


def levelled(samples: np.ndarray) -> np.ndarray:
    """Sound scaled so that its loud parts (95th percentile of `loudness`) have an RMS of 0.1.

    The gain is at most 100 (40 dB), so that the noise of a silent recording stays quiet.
    """
    loud = float(np.percentile(loudness(samples), 95)) if len(samples) else 0.0
    return (samples * min(_TARGET_RMS / max(loud, 1e-9), _MAX_GAIN)).astype(np.float32)


def loudness(samples: np.ndarray, window: float = 0.025) -> np.ndarray:
    """RMS (M,) of consecutive windows of that many seconds; the last one may be shorter."""
    size = max(1, round(window * SAMPLE_RATE))
    starts = np.arange(0, len(samples), size)
    power = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
    return np.sqrt(power / np.diff([*starts, len(samples)]))


def _hann(length: int) -> np.ndarray:
    """Periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
