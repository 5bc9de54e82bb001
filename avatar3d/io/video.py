"""Video files in, decoded in a process of its own (`avatar3d.io.decoder`)."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from avatar3d.io.decoder import decoded
from avatar3d.io.encoding import write_video

__all__ = [
    "ShownFrame", "VideoInfo", "Wanted", "probe", "read_frames", "scan_frames", "write_video",
]  # fmt: skip


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
    told, _ = next(decoded("probe", Path(path)))
    return VideoInfo(**told)


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
        for _ in range(frame.count):
            yield frame.image


@dataclass(frozen=True)
class Wanted:
    """Which pictures to make of the frames of a video.

    Attributes:
        every: of the frames that serve a multiple of this number; 0 for none.
        ranges: and of those whose index is in one of these (first, past the last).
        longest: pixels that the longer side of a picture is reduced to; 0 for its own size.
        thumb: side of a square thumbnail of every frame; 0 for none.
    """

    every: int = 1
    ranges: tuple[tuple[int, int], ...] = ()
    longest: int = 0
    thumb: int = 0


@dataclass(frozen=True)
class ShownFrame:
    """A decoded frame, and the place it takes at the constant rate.

    Attributes:
        index, count: it serves output frames `index` to `index + count - 1`.
        time: seconds after the first frame of the file, as the file says.
        size: width and height of the picture as shown, the same for every frame of a file.
        image: (H, W, 3) uint8 RGB; empty where none is wanted.
        thumb: (side, side, 3) uint8 RGB of the whole picture; empty where none is wanted.
    """

    index: int
    count: int
    time: float
    size: tuple[int, int]
    image: np.ndarray
    thumb: np.ndarray


def scan_frames(
    path: str | Path,
    fps: float | None = None,
    start: float = 0.0,
    duration: float | None = None,
    wanted: Wanted = Wanted(),
) -> Iterator[ShownFrame]:
    """Like `read_frames`, but each decoded frame comes once, with the pictures that are wanted."""
    wish = {"fps": fps, "start": start, "duration": duration, **asdict(wanted)}
    nothing = np.empty((0, 0, 3), np.uint8)
    for told, arrays in decoded("frames", Path(path), **wish):
        shapes = told["pictures"]
        made = [
            data.reshape(height, width, 3).copy()
            for data, (height, width) in zip(arrays, shapes, strict=True)
        ]
        thumb = made.pop() if wanted.thumb else nothing
        yield ShownFrame(
            index=told["index"],
            count=told["count"],
            time=told["time"],
            size=(told["size"][0], told["size"][1]),
            image=made[0] if made else nothing,
            thumb=thumb,
        )
