"""The one way in which video and sound of strangers is opened."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avatar3d.errors import UserError

if TYPE_CHECKING:
    import av.container

__all__ = ["MAX_PIXELS", "open_media", "opened"]

MAX_PIXELS = 1 << 26
"""Of one picture, 8192 x 8192; a decoder refuses more before it takes memory for it."""
_FORMATS = (
    "aac", "ac3", "aiff", "amr", "ape", "apng", "asf", "au", "avi", "caf", "dirac", "dts", "dv",
    "eac3", "flac", "flv", "gif", "gxf", "h264", "hevc", "ivf", "m4v", "matroska", "mjpeg", "mov",
    "mp3", "mpeg", "mpegts", "mpegvideo", "mxf", "nut", "obu", "ogg", "rm", "tta", "w64", "wav",
    "wv", "y4m", "yuv4mpegpipe",
)  # fmt: skip
"""Demuxers that read one file and nothing else: no playlists, no lists of files, no scripts."""
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(_FORMATS)}


def open_media(path: Path, **options: Any) -> Any:
    """An input container of PyAV for a local file.

    The content, not the name, decides which reader is used, among those above; that reader may open
    nothing but this file.

    Raises:
        av.error.FFmpegError, ValueError: no such kind of file.
    """
    import av

    container = av.open(f"file:{path.absolute()}", options=_OPTIONS, **options)
    for stream in container.streams.video:
        if stream.codec_context is not None:
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return container


@contextlib.contextmanager
def opened(path: Path, kind: str) -> Iterator["av.container.InputContainer"]:
    """The container of a file, to be closed; UserError where it cannot be opened as `kind`."""
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
