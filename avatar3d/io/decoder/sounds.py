"""Jobs of the decoding process: the first sound track of a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.io.media import open_media, opened
from avatar3d.io.packets import packets

__all__ = ["SAMPLE_RATE", "samples", "sound_track", "track"]

SAMPLE_RATE = 16_000
_GAP_SECONDS = 0.1
_MAX_CHANNELS = 8
"""PyAV 18 reads beyond the list of planes of a frame with more."""
_PIECE = 1 << 18  # samples
_KEPT_RATES = (16000, 22050, 24000, 32000, 44100, 48000)

Message = tuple[dict[str, Any], list[np.ndarray]]


def sound_track(path: Path) -> Iterator[Message]:
    """One table, the attributes of `audio.files.SoundTrack`; none if there is no track."""
    with _opened(path) as container:
        if container.streams.audio:
            known = _known(container, path)
            rate, channels = int(known.sample_rate or 0), int(known.channels or 0)
            yield {"codec": known.name, "rate": rate, "channels": channels}, []


def samples(path: Path, longest: float) -> Iterator[Message]:
    """Pieces of mono float32 at `SAMPLE_RATE`; nothing at all if there is no track.

    Args:
        path: the file.
        longest: seconds from which on it is refused.
    """
    with _opened(path) as container:
        if not container.streams.audio:
            return
        _known(container, path)
        yield {}, []
        for piece in _gathered(_pieces(container, path, longest)):
            yield {"room": 4 * _PIECE}, [piece.view(np.uint8)]


def track(path: Path) -> Iterator[Message]:
    """A table with `rate` and `layout`, then pieces of float32, one array a channel.

    For videos that we write: mono or stereo, at a rate that AAC has.
    """
    with opened(path, "sound") as container:
        if not container.streams.audio:
            raise UserError(f"{path} has no sound track; give a file with sound.")
        known = _known(container, path)
        rate = known.sample_rate if known.sample_rate in _KEPT_RATES else 44100
        layout = "mono" if known.channels == 1 else "stereo"
        yield {"rate": rate, "layout": layout}, []
        for piece in _gathered(_Resampler(rate, layout).everything(_frames(container))):
            rows = [np.ascontiguousarray(row) for row in piece]
            yield {"room": 8 * _PIECE}, [row.view(np.uint8) for row in rows]


def _gathered(pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same samples (..., N) float32 in pieces of `_PIECE`, the last one shorter."""
    waiting: list[np.ndarray] = []
    for piece in pieces:
        waiting.append(piece.astype(np.float32, copy=False))
        if sum(part.shape[-1] for part in waiting) >= _PIECE:
            joined = np.concatenate(waiting, -1)
            while joined.shape[-1] >= _PIECE:
                yield joined[..., :_PIECE]
                joined = joined[..., _PIECE:]
            waiting = [joined]
    if waiting and (joined := np.concatenate(waiting, -1)).size:
        yield joined


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The container; whatever fails while it is in use is explained."""
    import av

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


def _pieces(container: Any, path: Path, longest: float) -> Iterator[np.ndarray]:
    """Consecutive mono pieces at `SAMPLE_RATE`, the first one at time 0 (see `load_audio`)."""
    resampler = _Resampler(SAMPLE_RATE)
    origin, expected, early, written = _picture_start(container), None, 0, 0
    for frame in _frames(container):
        time = frame.time if frame.time is not None else (expected or 0.0)
        if expected is None:
            lead = 0.0 if origin is None else time - origin
            hole, early = max(lead, 0.0), round(max(-lead, 0.0) * SAMPLE_RATE)
        else:
            hole = time - expected if time - expected > _GAP_SECONDS else 0.0
        expected = time + frame.samples / frame.sample_rate
        if written / SAMPLE_RATE + hole > longest:
            raise UserError(
                f"The sound in {path} is longer than {longest / 3600:g} hours; cut it first."
            )
        silence = [*_mono(resampler.flush()), np.zeros(round(hole * SAMPLE_RATE))] if hole else []
        for piece in (*silence, *_mono(resampler(frame))):
            written += len(piece)
            yield piece[early:].astype(np.float32)
            early = max(0, early - len(piece))
    for piece in _mono(resampler.flush()):
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


def _mono(pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    # Our own mean: libswresample's stereo-to-mono for floats is 3 dB louder and may exceed 1.
    for piece in pieces:
        yield piece.mean(axis=0)


class _Resampler:
    """libswresample, restarted when the track changes its format midway.

    Args:
        rate: Hz of the result.
        layout: of its channels; None for those of the track.
    """

    def __init__(self, rate: int, layout: str | None = None) -> None:
        self._rate, self._layout = rate, layout
        self._resampler: Any = None
        self._format: tuple[str, str, int] | None = None

    def everything(self, frames: Iterator[Any]) -> Iterator[np.ndarray]:
        """Resample a whole track."""
        for frame in frames:
            yield from self(frame)
        yield from self.flush()

    def __call__(self, frame: Any) -> Iterator[np.ndarray]:
        """(channels, N) float32 pieces of a frame."""
        import av

        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        if source != self._format:
            yield from self.flush()
            layout = self._layout or frame.layout.name
            self._resampler = av.AudioResampler("fltp", layout, self._rate)
            self._format = source
        frame.pts = None  # the resampler would otherwise fill small holes in its own way
        for out in self._resampler.resample(frame):
            yield out.to_ndarray()

    def flush(self) -> Iterator[np.ndarray]:
        """The last samples, held back by the filter."""
        if self._resampler is not None:
            for out in self._resampler.resample(None):
                yield out.to_ndarray()
        self._resampler, self._format = None, None
