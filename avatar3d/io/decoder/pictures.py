"""Jobs of the decoding process: what a video is, and its frames."""

import contextlib
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar3d.cores import available_cores
from avatar3d.errors import UserError
from avatar3d.io import packets
from avatar3d.io.decoder.conversion import Converter, display_size, is_hdr, rotation
from avatar3d.io.media import MAX_PIXELS, opened
from avatar3d.io.packets import packets as whole_packets

if TYPE_CHECKING:
    import av.container

__all__ = ["frames", "probe"]

MAX_SIDE = 16384
MAX_SECONDS = 6 * 3600
_LONGEST_STILL = 60.0
_MAX_PLAUSIBLE_FPS = 250.0
_RATE_PACKETS = 600
_MAX_BROKEN_PACKETS = 50
_THREADS = min(8, available_cores())
"""That make pictures of what is decoded: it takes longer than decoding."""

Message = tuple[dict[str, Any], list[np.ndarray]]


def probe(path: Path) -> Iterator[Message]:
    """One table: the attributes of `VideoInfo`."""
    with _opened(path) as (container, stream):
        frame = next(_decoded(container, stream, path), None)
        if frame is None:
            raise UserError(f"No frame of {path} can be decoded; re-encode or re-download it.")
        width, height = display_size(frame, stream.sample_aspect_ratio)
        duration = _declared_duration(container, stream)
        fps, span = _rate(path, stream, whole=duration is None)
        duration = duration or span
        nominal = float(stream.guessed_rate or fps)
        yield (
            {
                "width": width,
                "height": height,
                "fps": fps,
                "frames": stream.frames or max(1, round(duration * fps)),
                "duration": duration,
                "rotation": rotation(frame),
                "has_audio": bool(container.streams.audio),
                "variable_rate": abs(nominal - fps) > 0.01 * fps,
                "hdr": is_hdr(frame),
            },
            [],
        )


def frames(
    path: Path,
    fps: float | None,
    start: float,
    duration: float | None,
    every: int,
    ranges: list[tuple[int, int]],
    longest: int,
    thumb: int,
) -> Iterator[Message]:
    """Frames at a constant rate; see `video.scan_frames` and `video.Wanted`.

    The tables hold `index`, `count`, `time`, `size`, and the (height, width) of the RGB `pictures`
    that are the arrays: the picture if it is wanted, then the thumbnail if one is.
    """
    convert, size = Converter(), (0, 0)

    def work(item: tuple[Any, Fraction | None, dict[str, Any], bool]) -> Message:
        frame, aspect, header, wanted = item
        made = []
        if wanted:
            scale = max(size) / longest if longest else 1.0
            small = (round(size[0] / scale), round(size[1] / scale))
            made.append(
                convert.whole(frame, aspect, size) if scale <= 1 else convert.reduced(frame, *small)
            )
        if thumb:
            made.append(convert.reduced(frame, thumb, thumb))
        header["pictures"] = [image.shape[:2] for image in made]
        return header, [image.reshape(-1) for image in made]

    with _opened(path) as (container, stream), ThreadPoolExecutor(_THREADS) as pool:
        rate = fps or _rate(path, stream)[0]
        pending: deque[Future[Message]] = deque()
        for frame, index, count, time in _placed(container, stream, path, rate, start, duration):
            aspect = stream.sample_aspect_ratio
            if not index:
                size = display_size(frame, aspect)
            header = {"index": index, "count": count, "time": time, "size": size}
            header["room"] = 3 * (size[0] * size[1] + thumb**2)
            last = index + count - 1
            wanted = bool(every) and last // every > (index - 1) // every
            wanted = wanted or any(low <= index < high for low, high in ranges)
            item = (frame, aspect, header, wanted)
            if is_hdr(frame):  # whose filter needs the frames one after the other
                pending.append(Future())
                pending[-1].set_result(work(item))
            else:
                pending.append(pool.submit(work, item))
            if len(pending) > _THREADS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _placed(
    container: Any, stream: Any, path: Path, rate: float, start: float, duration: float | None
) -> Iterator[tuple[Any, int, int, float]]:
    """(frame, first place that it takes, number of places, its time)."""
    declared = _declared_duration(container, stream)
    stop = None if duration is None else math.ceil(duration * rate - 1e-6)
    count, last_time = 0, 0.0
    for frame, first, second in _with_next_time(_timed(container, stream, path, rate), 1 / rate):
        if stop is not None and count >= stop:
            return
        last_time = second
        # The frame serves every output time up to halfway to the next frame.
        until = math.ceil(((first + second) / 2 - start) * rate - 1e-6)
        if stop is not None:
            until = min(until, stop)
        if until <= count:
            continue
        yield frame, count, until - count, first
        count = until
    if declared and last_time < declared - max(0.5, 0.05 * declared):
        raise UserError(
            f"{path} is damaged or cut off: it declares {declared:.1f} s but decodes only "
            f"{last_time:.1f} s; re-download or re-encode it."
        )
    if count == 0:
        raise UserError(f"No frame of {path} can be decoded; re-encode or re-download it.")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple["av.container.InputContainer", Any]]:
    """The container and its picture track."""
    with opened(path, "video") as container:
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
        packets.expected_pixels(sides[0] * sides[1])
        stream.thread_type = "AUTO"
        yield container, stream


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Frames in order, skipping a few broken packets."""
    import av

    broken = 0
    for packet in whole_packets(container, stream):
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
        if previous > MAX_SECONDS:
            raise UserError(f"{path} is longer than {MAX_SECONDS // 3600} hours; cut it first.")
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
        for packet in whole_packets(container, own):
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
