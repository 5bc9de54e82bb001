"""Sound files of any container and codec to 16 kHz mono and back to WAV."""

import os
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_path
from avatar3d.io.media import open_media
from avatar3d.io.packets import packets

__all__ = [
    "MAX_SECONDS", "SAMPLE_RATE", "SoundTrack", "extract_audio", "load_audio", "save_wav",
    "sound_track",
]  # fmt: skip

SAMPLE_RATE = 16_000
"""Hz. Everything inside works at this rate."""
MAX_SECONDS = 6 * 3600
"""Longer sound is refused: at 16 kHz this is 1.4 GB of float32."""
_GAP_SECONDS = 0.1
_MAX_CHANNELS = 8
"""PyAV 18 reads beyond the list of planes of a frame with more."""


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
    with _opened(Path(path)) as container:
        if not container.streams.audio:
            return None
        context = _known(container, Path(path))
        return SoundTrack(context.name, int(context.sample_rate or 0), int(context.channels or 0))


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
    with _opened(path) as container:
        if not container.streams.audio:
            return None
        _known(container, path)
        pieces = list(_pieces(container, path))
    samples = np.concatenate([np.zeros(0, np.float32), *pieces])
    if not np.isfinite(samples).all():
        raise UserError(f"The sound in {path} has samples that are not numbers; export it again.")
    return samples


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The container; whatever fails while it is in use is explained."""
    try:
        import av
    except ImportError as error:
        raise UserError("Reading sound needs the package av; run `pip install av`.") from error
    if not path.is_file():
        raise UserError(f"There is no file {path}; check the path.")
    try:
        with open_media(path, metadata_errors="ignore") as container:
            yield container
    except (av.FFmpegError, OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"Cannot read sound from {path} ({reason}); convert it to WAV, MP3 or MP4."
        ) from error


def _known(container: Any, path: Path) -> Any:
    """The decoder of the first sound track; UserError where there is none for its kind."""
    context = container.streams.audio[0].codec_context
    if context is None:
        raise UserError(
            f"The sound track of {path} is damaged or of an unknown kind; convert it to AAC or WAV."
        )
    if context.channels > _MAX_CHANNELS:
        raise UserError(
            f"The sound of {path} has {context.channels} channels; mix it down to {_MAX_CHANNELS}."
        )
    return context


def _pieces(container: Any, path: Path) -> Iterator[np.ndarray]:
    """Consecutive mono pieces at `SAMPLE_RATE`, the first one at time 0 (see `load_audio`)."""
    resampler = _Resampler()
    origin, expected, early, written = _picture_start(container), None, 0, 0
    for frame in _frames(container):
        time = frame.time if frame.time is not None else (expected or 0.0)
        if expected is None:
            lead = 0.0 if origin is None else time - origin
            hole, early = max(lead, 0.0), round(max(-lead, 0.0) * SAMPLE_RATE)
        else:
            hole = time - expected if time - expected > _GAP_SECONDS else 0.0
        expected = time + frame.samples / frame.sample_rate
        if written / SAMPLE_RATE + hole > MAX_SECONDS:
            raise UserError(
                f"The sound in {path} is longer than {MAX_SECONDS // 3600} hours; cut it first."
            )
        silence = [*resampler.flush(), np.zeros(round(hole * SAMPLE_RATE))] if hole else []
        for piece in (*silence, *resampler(frame)):
            written += len(piece)
            yield piece[early:].astype(np.float32)
            early = max(0, early - len(piece))
    for piece in resampler.flush():
        yield piece[early:].astype(np.float32)
        early = max(0, early - len(piece))


def _picture_start(container: Any) -> float | None:
    """Seconds at which the first picture is shown; None where there is only sound or cover art."""
    for stream in container.streams.video:
        if "attached_pic" not in str(stream.disposition).lower() and stream.start_time is not None:
            return float(stream.start_time * stream.time_base)
    return None


def _frames(container: Any) -> Iterator[Any]:
    """Decoded frames of the first sound track; damaged packets are left out."""
    import av

    good, damage = 0, None
    for packet in packets(container, container.streams.audio[0]):
        try:
            frames = packet.decode()
        except av.InvalidDataError as error:
            damage = error
            continue
        good += len(frames)
        for frame in frames:
            if frame.samples and frame.sample_rate and frame.layout.nb_channels <= _MAX_CHANNELS:
                yield frame
    if damage is not None and not good:
        raise damage


class _Resampler:
    """libswresample to `SAMPLE_RATE`, restarted when the track changes its format midway."""

    def __init__(self) -> None:
        self._resampler: Any = None
        self._format: tuple[str, str, int] | None = None

    def __call__(self, frame: Any) -> Iterator[np.ndarray]:
        import av

        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        if source != self._format:
            yield from self.flush()
            self._resampler = av.AudioResampler("fltp", frame.layout.name, SAMPLE_RATE)
            self._format = source
        frame.pts = None  # the resampler would otherwise fill small holes in its own way
        yield from self._mono(frame)

    def flush(self) -> Iterator[np.ndarray]:
        """The last samples, held back by the filter."""
        if self._resampler is not None:
            yield from self._mono(None)
        self._resampler, self._format = None, None

    def _mono(self, frame: Any) -> Iterator[np.ndarray]:
        # Our own mean: libswresample's stereo-to-mono for floats is 3 dB louder and may exceed 1.
        for out in self._resampler.resample(frame):
            yield out.to_ndarray().mean(axis=0)
