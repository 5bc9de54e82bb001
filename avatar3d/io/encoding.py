"""Video files out, through PyAV (FFmpeg's libraries inside a wheel; no ffmpeg command)."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_path
from avatar3d.io.decoder import decoded
from avatar3d.io.decoder.conversion import EXACT
from avatar3d.provenance import declared_path, slot

__all__ = ["write_video"]

_RGB_MATRIX_BT709 = 1
_CHUNK = 1024  # samples
_TAGGED = (".mkv", ".webm")
"""Containers without a place for C2PA, which carry the statement as a tag."""
_FAST_START = {"movflags": "+faststart"}
_NO_CHECKSUM = {"write_crc32": "0"}  # of the tag before it is signed
_OPTIONS = {
    ".mp4": _FAST_START, ".mov": _FAST_START, ".m4v": _FAST_START,
    ".mkv": _NO_CHECKSUM, ".webm": _NO_CHECKSUM,
}  # fmt: skip


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float,
    audio: str | Path | None = None,
    facts: Mapping[str, Any] | None = None,
    synthetic: bool = True,
    crf: int = 16,
) -> None:
    """Write H.264 (yuv420p, fast start) with AAC sound, in one step at the end.

    The file says that it is synthetic and is signed; see `avatar3d.provenance`.

    Args:
        path: target file; the suffix chooses the container (mp4, mov, mkv).
        frames: (H, W, 3) uint8 RGB of one size; odd sides are padded by one pixel.
        fps: frames per second.
        audio: a file with a sound track, cut at the end of the picture.
        facts: what else the file says about itself, see `provenance.facts_of`.
        synthetic: false for recorded pictures, whose file says nothing.
        crf: quality, 0 to 51; lower is better.

    Raises:
        UserError: no frames, frames of different size, unreadable sound or unwritable target.
    """
    import av

    path = Path(path)
    rate = Fraction(fps).limit_denominator(60000)
    with contextlib.ExitStack() as stack:
        sound = _Sound(Path(audio)) if audio is not None else None
        target = stack.enter_context(declared_path(path, facts) if synthetic else atomic_path(path))
        options = _OPTIONS.get(path.suffix.lower(), {})
        try:
            output = stack.enter_context(av.open(str(target), "w", options=options))
        except (av.error.FFmpegError, ValueError) as error:
            raise UserError(
                f"Cannot write a video to {path}; use a name ending in .mp4."
            ) from error
        if synthetic and path.suffix.lower() in _TAGGED:
            output.metadata["XMP"] = slot(facts)
        _encode(output, iter(frames), rate, sound, path, crf)


def _encode(
    output: Any, frames: Iterator[np.ndarray], rate: Fraction, sound: Any, path: Path, crf: int
) -> None:
    import av

    first = next(frames, None)
    if first is None:
        raise UserError(f"There are no frames to write to {path}.")
    height, width = first.shape[:2]
    video = output.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "fast"})
    video.width, video.height = width + width % 2, height + height % 2
    video.pix_fmt = "yuv420p"
    video.codec_context.colorspace = _RGB_MATRIX_BT709
    video.codec_context.color_range = 1
    track = _AudioTrack(output, sound) if sound is not None else None
    count = 0
    frame: np.ndarray | None = first
    while frame is not None:
        if frame.shape[:2] != (height, width):
            raise UserError(f"Frame {count} for {path} differs in size from the first one.")
        padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), "rgb24")
        picture = picture.reformat(
            format="yuv420p",
            dst_colorspace=_RGB_MATRIX_BT709,
            dst_color_range=1,
            interpolation=EXACT,
        )
        picture.pts, picture.time_base = count, 1 / rate
        output.mux(video.encode(picture))
        count += 1
        if track is not None:
            track.write_until(float(count / rate))
        frame = next(frames, None)
    output.mux(video.encode(None))
    if track is not None:
        track.finish()


class _Sound:
    """The sound track of a file, decoded elsewhere.

    Attributes:
        rate: Hz; layout: "mono" or "stereo".
    """

    def __init__(self, path: Path) -> None:
        self._messages = decoded("track", path)
        told, _ = next(self._messages)
        self.rate, self.layout = int(told["rate"]), str(told["layout"])

    def frames(self) -> Iterator[Any]:
        """As PyAV's frames."""
        import av

        for _, channels in self._messages:
            samples = np.stack([channel.view(np.float32) for channel in channels])
            for first in range(0, samples.shape[1], _CHUNK):
                part = np.ascontiguousarray(samples[:, first : first + _CHUNK])
                frame = av.AudioFrame.from_ndarray(part, "fltp", self.layout)
                frame.sample_rate = self.rate
                yield frame


class _AudioTrack:
    """Feeds an AAC stream in step with the picture."""

    def __init__(self, output: Any, sound: _Sound) -> None:
        self.output, self.rate = output, sound.rate
        self.stream = output.add_stream("aac", rate=sound.rate, layout=sound.layout)
        self.stream.bit_rate = 128_000
        self.chunks = sound.frames()
        self.samples = 0
        self.done = False

    def write_until(self, seconds: float) -> None:
        limit = round(seconds * self.rate)
        while not self.done and self.samples < limit:
            chunk = next(self.chunks, None)
            if chunk is None:
                self.done = True
                return
            chunk.pts, chunk.time_base = self.samples, Fraction(1, self.rate)
            self.samples += chunk.samples
            self.output.mux(self.stream.encode(chunk))

    def finish(self) -> None:
        self.output.mux(self.stream.encode(None))
