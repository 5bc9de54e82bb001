"""Sound files of any container and codec to 16 kHz mono and back to WAV."""

import os
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_path
from avatar3d.io.decoder import decoded

__all__ = [
    "MAX_SECONDS", "SAMPLE_RATE", "SoundTrack", "extract_audio", "load_audio", "save_wav",
    "sound_track",
]  # fmt: skip

SAMPLE_RATE = 16_000
"""Hz. Everything inside works at this rate."""
MAX_SECONDS = 6 * 3600
"""Longer sound is refused: at 16 kHz this is 1.4 GB of float32."""


@dataclass(frozen=True)
class SoundTrack:
    """What a file declares about its first sound track: codec, Hz and number of channels."""

    codec: str
    rate: int
    channels: int


def sound_track(path: str | os.PathLike[str]) -> SoundTrack | None:
    """The first sound track, not decoded; None if there is none.

    Raises:
        UserError: missing or unreadable file.
    """
    for told, _ in decoded("sound track", Path(path)):
        return SoundTrack(**told)
    return None


def load_audio(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """The first sound track of a sound or video file.

    Time 0 is the first picture of a video and the first sound of a sound file, so that sound and
    frames stay together when a container starts them at different times. Holes in the track are
    filled with silence. Channels are averaged; resampling is libswresample's windowed sinc.

    Returns:
        (N,) float32 samples, nominally in [-1, 1], and their rate, always `SAMPLE_RATE`.

    Raises:
        UserError: missing or unreadable file, no sound track, no samples in it, samples that are
            not numbers, or more than `MAX_SECONDS`.
    """
    samples = _read(Path(path))
    if samples is None:
        raise UserError(f"{path} has no sound track; give a file that contains sound.")
    if not len(samples):
        raise UserError(f"The sound track of {path} is empty; give a file that contains sound.")
    return samples, SAMPLE_RATE


def extract_audio(video: str | os.PathLike[str], wav_path: str | os.PathLike[str]) -> bool:
    """Write the sound of `video` as 16 kHz mono WAV; False, and nothing written, if it has none.

    Raises:
        UserError: as `load_audio`, or `wav_path` cannot be written.
    """
    samples = _read(Path(video))
    if samples is None or not len(samples):
        return False
    save_wav(wav_path, samples)
    return True


def save_wav(path: str | os.PathLike[str], samples: np.ndarray, rate: int = SAMPLE_RATE) -> None:
    """Write mono samples (N,) in [-1, 1] (clipped) as 16-bit PCM."""
    pcm = np.round(np.clip(checked(samples), -1, 1) * 32767).astype("<i2")
    with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as handle:
        handle.setnchannels(1)
        handle.setsampwidth(2)
        handle.setframerate(rate)
        handle.writeframes(pcm.tobytes())


def checked(samples: np.ndarray) -> np.ndarray:
    """`samples` as a contiguous (N,) float32 array; UserError if it is not finite mono sound."""
    array = np.ascontiguousarray(samples, np.float32)
    if array.ndim != 1:
        raise UserError(f"Sound must be mono samples of shape (N,), got {array.shape}.")
    if not np.isfinite(array).all():
        raise UserError(
            "The sound has samples that are not numbers (NaN or infinite); export it again."
        )
    return array


def _read(path: Path) -> np.ndarray | None:
    """Samples, or None if the file has no sound track."""
    pieces: list[np.ndarray] = []
    found = False
    for _, arrays in decoded("samples", path, longest=MAX_SECONDS):
        found = True
        pieces += [array.view(np.float32).copy() for array in arrays]
    if not found:
        return None
    samples = np.concatenate([np.zeros(0, np.float32), *pieces])
    if not np.isfinite(samples).all():
        raise UserError(f"The sound in {path} has samples that are not numbers; export it again.")
    return samples
