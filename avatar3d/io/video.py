"""Video files in and out, through PyAV (FFmpeg's libraries inside a wheel; no ffmpeg command)."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_path
from avatar3d.io.media import MAX_PIXELS, open_media
from avatar3d.io.packets import packets
from avatar3d.io.tone import HDR_CURVES, ToneMapper
from avatar3d.provenance import declared_path, slot

if TYPE_CHECKING:
    import av.container

__all__ = ["ShownFrame", "VideoInfo", "probe", "read_frames", "scan_frames", "write_video"]

MAX_SIDE = 16384
_LONGEST_STILL = 60.0
_MAX_PLAUSIBLE_FPS = 250.0
_RATE_PACKETS = 600
_MAX_BROKEN_PACKETS = 50
_RGB_MATRIX_BT601, _RGB_MATRIX_BT709 = 5, 1
_UNSPECIFIED_MATRIX = 2
_TAGGED = (".mkv", ".webm")
"""Containers without a place for C2PA, which carry the statement as a tag."""
_FAST_START = {"movflags": "+faststart"}
_NO_CHECKSUM = {"write_crc32": "0"}  # of the tag before it is signed
_OPTIONS = {
    ".mp4": _FAST_START, ".mov": _FAST_START, ".m4v": _FAST_START,
    ".mkv": _NO_CHECKSUM, ".webm": _NO_CHECKSUM,
}  # fmt: skip
_EXACT = 0x2 | 0x2000 | 0x40000
"""Scaler flags: bilinear, full chroma, accurate rounding; without them greys come out 1 darker."""


@dataclass(frozen=True)
class VideoInfo:
    """What the file declares, before decoding anything.

    Attributes:
        width, height: pixels as shown: after rotation, with square pixels.
        fps: mean frames per second.
        frames: declared or estimated number of frames.
        duration: seconds.
        rotation: degrees counter-clockwise that the stored picture is turned by when shown.
        has_audio: whether there is a sound track.
        variable_rate: whether the frames are not evenly spaced in time.
        hdr: whether the transfer curve is PQ or HLG.
    """

    width: int
    height: int
    fps: float
    frames: int
    duration: float
    rotation: int
    has_audio: bool
    variable_rate: bool = False
    hdr: bool = False


def probe(path: str | Path) -> VideoInfo:
    """Open a video, decode its first frame and describe it.

    Raises:
        UserError: the file is missing, is no video, has no picture track or nothing decodes.
    """
    path = Path(path)
    with _opened(path) as (container, stream):
        frame = next(_decoded(container, stream, path), None)
        if frame is None:
            raise UserError(f"No frame of {path} can be decoded; re-encode or re-download it.")
        width, height = _display_size(frame, stream.sample_aspect_ratio)
        duration = _declared_duration(container, stream)
        fps, span = _rate(path, stream, whole=duration is None)
        duration = duration or span
        nominal = float(stream.guessed_rate or fps)
        return VideoInfo(
            width=width,
            height=height,
            fps=fps,
            frames=stream.frames or max(1, round(duration * fps)),
            duration=duration,
            rotation=_rotation(frame),
            has_audio=bool(container.streams.audio),
            variable_rate=abs(nominal - fps) > 0.01 * fps,
            hdr=_is_hdr(frame),
        )


def read_frames(
    path: str | Path,
    fps: float | None = None,
    start: float = 0.0,
    duration: float | None = None,
) -> Iterator[np.ndarray]:
    """Yield the frames of a video at a constant rate, one in memory at a time.

    The picture is turned as its rotation flag says, pixels are made square, and 10-bit material is
    reduced to 8-bit RGB, HDR by tone mapping. Frame k is the decoded frame nearest to
    `start + k / fps` seconds after the first, so uneven timing becomes even.

    Args:
        path: any container and codec that FFmpeg reads.
        fps: frames per second to yield; default is the mean rate of the file.
        start: seconds to skip.
        duration: seconds to yield; default all.

    Yields:
        (H, W, 3) uint8 RGB, all of the size of the first frame.

    Raises:
        UserError: as `probe`; also when the file ends well before its declared duration.
    """
    for frame in scan_frames(path, fps, start, duration):
        image = frame.image()
        for _ in range(frame.count):
            yield image


class ShownFrame:
    """A decoded frame, not yet converted, and the place it takes at the constant rate.

    Attributes:
        index, count: it serves output frames `index` to `index + count - 1`.
        time: seconds after the first frame of the file, as the file says.
        size: width and height of the picture as shown, the same for every frame of a file.
    """

    def __init__(
        self,
        frame: Any,
        aspect: Fraction | None,
        tone: ToneMapper,
        index: int,
        count: int,
        time: float,
        size: tuple[int, int],
    ) -> None:
        self._frame, self._aspect, self._tone = frame, aspect, tone
        self.index, self.count, self.time, self.size = index, count, time, size

    @property
    def for_any_thread(self) -> bool:
        """Whether `image` may be called on another thread, beside others: HDR needs its order."""
        return not _is_hdr(self._frame)

    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return _fit_size(_to_rgb(self._frame, self._aspect, self._tone), self.size[::-1])

    def thumbnail(self, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 RGB of the whole picture, much faster than `image`."""
        turns = _rotation(self._frame) // 90
        if turns % 2:
            width, height = height, width
        if _is_hdr(self._frame):
            small = self._tone(self._frame, width, height, "AREA")
        else:
            reformat = self._frame.reformat
            small = reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()
        return np.ascontiguousarray(np.rot90(small, turns))


def scan_frames(
    path: str | Path,
    fps: float | None = None,
    start: float = 0.0,
    duration: float | None = None,
) -> Iterator[ShownFrame]:
    """Like `read_frames`, but each decoded frame comes once and converts only what is asked for."""
    path = Path(path)
    with _opened(path) as (container, stream):
        rate = fps or _rate(path, stream)[0]
        declared = _declared_duration(container, stream)
        stop = None if duration is None else math.ceil(duration * rate - 1e-6)
        size: tuple[int, int] | None = None
        tone = ToneMapper()
        count, last_time = 0, 0.0
        for frame, first, second in _with_next_time(
            _timed(container, stream, path, rate), 1 / rate
        ):
            if stop is not None and count >= stop:
                return
            last_time = second
            # The frame serves every output time up to halfway to the next frame.
            until = math.ceil(((first + second) / 2 - start) * rate - 1e-6)
            if stop is not None:
                until = min(until, stop)
            if until <= count:
                continue
            # Asked here: the stream may be closed when a picture is made on another thread.
            aspect = stream.sample_aspect_ratio
            size = size or _display_size(frame, aspect)
            yield ShownFrame(frame, aspect, tone, count, until - count, first, size)
            count = until
    if declared and last_time < declared - max(0.5, 0.05 * declared):
        raise UserError(
            f"{path} is damaged or cut off: it declares {declared:.1f} s but decodes only "
            f"{last_time:.1f} s; re-download or re-encode it."
        )
    if count == 0:
        raise UserError(f"No frame of {path} can be decoded; re-encode or re-download it.")


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
        sound = stack.enter_context(_opened_audio(Path(audio))) if audio is not None else None
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
            interpolation=_EXACT,
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


class _AudioTrack:
    """Feeds an AAC stream in step with the picture."""

    def __init__(self, output: Any, sound: tuple[Any, Any]) -> None:
        import av

        container, source = sound
        self.output = output
        rate = source.rate if source.rate in (16000, 22050, 24000, 32000, 44100, 48000) else 44100
        layout = "mono" if source.channels == 1 else "stereo"
        self.rate = rate
        self.stream = output.add_stream("aac", rate=rate, layout=layout)
        self.stream.bit_rate = 128_000
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        self.chunks = self._resampled(container, source, resampler)
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

    @staticmethod
    def _resampled(container: Any, source: Any, resampler: Any) -> Iterator[Any]:
        for frame in container.decode(source):
            frame.pts = None
            yield from resampler.resample(frame)
        yield from resampler.resample(None)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple["av.container.InputContainer", Any]]:
    """The container and its picture track."""
    with _container(path, "video") as container:
        if not container.streams.video:
            raise UserError(f"{path} has no picture track; give a video file.")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UserError(
                f"The picture track of {path} is damaged or of an unknown kind; re-encode it."
            )
        sides = stream.width, stream.height
        if not (0 < min(sides) <= max(sides) <= MAX_SIDE and sides[0] * sides[1] <= MAX_PIXELS):
            raise UserError(
                f"{path} has frames of {stream.width}x{stream.height} pixels; sides up to "
                f"{MAX_SIDE} and {MAX_PIXELS >> 20} million pixels are supported."
            )
        stream.thread_type = "AUTO"
        yield container, stream


@contextlib.contextmanager
def _opened_audio(path: Path) -> Iterator[tuple["av.container.InputContainer", Any]]:
    with _container(path, "sound") as container:
        if not container.streams.audio:
            raise UserError(f"{path} has no sound track; give a file with sound.")
        yield container, container.streams.audio[0]


@contextlib.contextmanager
def _container(path: Path, kind: str) -> Iterator["av.container.InputContainer"]:
    import av

    if path.is_dir():
        raise UserError(f"{path} is a folder; give a {kind} file in it.")
    if not path.is_file():
        raise UserError(f"There is no file {path}; check the name.")
    try:
        container = open_media(path)
    except (av.error.FFmpegError, ValueError) as error:
        raise UserError(
            f"{path} is not a readable {kind} file; check that it is complete and really a {kind}."
        ) from error
    try:
        yield container
    finally:
        container.close()


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Frames in order, skipping a few broken packets."""
    import av

    broken = 0
    for packet in packets(container, stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            broken += 1
            if broken > _MAX_BROKEN_PACKETS:
                raise UserError(
                    f"{path} is damaged: more than {_MAX_BROKEN_PACKETS} pieces of it cannot be "
                    "decoded; re-download or re-encode it."
                ) from error
            continue
        yield from frames


def _timed(container: Any, stream: Any, path: Path, rate: float) -> Iterator[tuple[Any, float]]:
    """Frames with their time in seconds since the first, increasing."""
    step = 1 / rate
    first = previous = None
    for frame in _decoded(container, stream, path):
        time = frame.time
        if first is None:
            first = time if time is not None else 0.0
        elapsed = time - first if time is not None else None
        if previous is not None and (elapsed is None or elapsed <= previous):
            elapsed = previous + step
        if elapsed is not None and elapsed > (previous or 0.0) + _LONGEST_STILL:
            raise UserError(
                f"{path} is damaged: its clock jumps from {previous or 0.0:.1f} s to "
                f"{elapsed:.1f} s; re-encode it."
            )
        previous = elapsed or 0.0
        yield frame, previous


def _with_next_time(
    timed: Iterator[tuple[Any, float]], last_step: float
) -> Iterator[tuple[Any, float, float]]:
    """(frame, its time, time of the next frame)."""
    current = next(timed, None)
    while current is not None:
        following = next(timed, None)
        after = following[1] if following else current[1] + last_step
        yield current[0], current[1], after
        current = following


def _is_hdr(frame: Any) -> bool:
    return int(frame.color_trc or 0) in HDR_CURVES


def _to_rgb(frame: Any, aspect: Fraction | None, tone: ToneMapper) -> np.ndarray:
    if _is_hdr(frame):
        image = tone(frame, frame.width, frame.height, _EXACT)
    else:
        image = _standard_to_rgb(frame)
    if aspect and aspect != 1 and 0.1 < aspect < 10:
        image = _fit_size(image, _square_pixel_size(image.shape[0], image.shape[1], aspect))
    turns = _rotation(frame) // 90
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _standard_to_rgb(frame: Any) -> np.ndarray:
    matrix = int(frame.colorspace)
    if matrix == _UNSPECIFIED_MATRIX:
        matrix = _RGB_MATRIX_BT709 if frame.height >= 720 else _RGB_MATRIX_BT601
    options = {"format": "rgb24", "interpolation": _EXACT}
    try:
        return frame.reformat(src_colorspace=matrix, **options).to_ndarray()
    except (ValueError, OSError):  # colour matrices that the scaler does not know
        return frame.reformat(src_colorspace=_RGB_MATRIX_BT709, **options).to_ndarray()


def _rotation(frame: Any) -> int:
    """Degrees counter-clockwise, a multiple of 90 in [0, 360)."""
    return round((frame.rotation or 0) / 90) * 90 % 360


def _square_pixel_size(height: int, width: int, aspect: Fraction) -> tuple[int, int]:
    return (height, round(width * aspect)) if aspect > 1 else (round(height / aspect), width)


def _display_size(frame: Any, aspect: Fraction | None) -> tuple[int, int]:
    height, width = frame.height, frame.width
    if aspect and aspect != 1 and 0.1 < aspect < 10:
        height, width = _square_pixel_size(height, width, aspect)
    return (height, width) if _rotation(frame) in (90, 270) else (width, height)


def _fit_size(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == tuple(size):
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _rate(path: Path, stream: Any, whole: bool = False) -> tuple[float, float]:
    """Mean frames per second and seconds spanned.

    Some files declare nothing or their clock (1000 per second, e.g. recordings made in a browser);
    then the packets tell. The span is measured on the whole file only if asked for.
    """
    declared = float(stream.average_rate or 0)
    if 1 <= declared <= _MAX_PLAUSIBLE_FPS and not whole:
        return declared, 0.0
    times: list[float] = []
    with _opened(path) as (container, own):
        for packet in packets(container, own):
            if packet.pts is not None and packet.time_base is not None:
                times.append(float(packet.pts * packet.time_base))
            if len(times) >= _RATE_PACKETS and not whole:
                break
    span = max(times) - min(times) if times else 0.0
    measured = (len(times) - 1) / span if span > 0 else 25.0
    fps = declared if 1 <= declared <= _MAX_PLAUSIBLE_FPS else min(max(measured, 1.0), 1000.0)
    return fps, span + 1 / fps


def _declared_duration(container: Any, stream: Any) -> float | None:
    """Seconds of the picture track, or None when the file does not tell."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None
