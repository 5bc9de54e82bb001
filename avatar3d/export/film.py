"""A motion as a film with transparency, for editors (ProRes 4444) and web pages (VP9)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.export.png import transparent_frames
from avatar3d.motion.motion import Motion
from avatar3d.progress import track
from avatar3d.provenance import declared_path, facts_of, slot

if TYPE_CHECKING:
    from avatar3d.avatar import PosedAvatar

__all__ = ["write_mov", "write_webm"]

_BT709 = 1


def write_mov(
    avatar: "PosedAvatar", path: str | os.PathLike[str], motion: Motion | None = None
) -> None:
    """Write ProRes 4444 with alpha, about 2 MB a frame of a million pixels, for video editors.

    Args:
        avatar: any avatar.
        path: the .mov file; it has no sound.
        motion: default the avatar's own captured motion.

    Raises:
        UserError: the file cannot be written.
    """
    _write(avatar, Path(path), motion, "prores_ks", "yuva444p10le", {"profile": "4444"})


def write_webm(
    avatar: "PosedAvatar", path: str | os.PathLike[str], motion: Motion | None = None
) -> None:
    """Write VP9 with alpha, which Chrome, Edge and Firefox lay over a page; see `write_mov`."""
    options = {"crf": "18", "b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1"}
    _write(avatar, Path(path), motion, "libvpx-vp9", "yuva420p", options)


def _write(
    avatar: "PosedAvatar",
    path: Path,
    motion: Motion | None,
    codec: str,
    pixels: str,
    options: dict[str, str],
) -> None:
    import av

    motion = motion if motion is not None else avatar.idle_motion
    rate, facts = Fraction(motion.fps).limit_denominator(60000), facts_of(avatar.info)
    frames = track(transparent_frames(avatar, motion), "Rendering", len(motion))
    with declared_path(path, facts) as target:
        try:
            output = av.open(str(target), "w")
        except (av.error.FFmpegError, ValueError) as error:
            raise UserError(
                f"Cannot write a transparent video to {path}; use a name ending in .mov or .webm."
            ) from error
        with _written(path), output:
            if path.suffix.lower() == ".webm":
                output.metadata["XMP"] = slot(facts)
            stream: Any = output.add_stream(codec, rate=rate, options=options)
            stream.width = avatar.camera.width + avatar.camera.width % 2
            stream.height = avatar.camera.height + avatar.camera.height % 2
            stream.pix_fmt = pixels
            stream.codec_context.colorspace = _BT709
            for picture in _pictures(frames, pixels, rate):
                output.mux(stream.encode(picture))
            output.mux(stream.encode(None))


@contextmanager
def _written(path: Path) -> Iterator[None]:
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror}; check free space and permissions."
        ) from error


def _pictures(frames: Iterator[np.ndarray], pixels: str, rate: Fraction) -> Iterator[Any]:
    import av

    for count, frame in enumerate(frames):
        height, width = frame.shape[:2]
        padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), "rgba")
        picture = picture.reformat(format=pixels, dst_colorspace=_BT709)
        picture.pts, picture.time_base = count, 1 / rate
        yield picture
