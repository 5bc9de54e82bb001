"""Still images in and out: JPEG 4:4:4 for colour frames, PNG for masks and labels."""

import base64
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.io.atomic import partial_beside

__all__ = ["PLAIN_FORMATS", "data_url", "read_image", "write_image"]

PLAIN_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""Of pillow: those whose decoders start no other program and open no other file."""
_MAX_PIXELS = 1 << 26


def read_image(
    source: str | Path | bytes, size: tuple[int, int] | None = None, name: str = "data"
) -> np.ndarray:
    """(H, W, 3) or (H, W) uint8.

    Args:
        source: a file, or its content.
        size: width and height that it must have, compared before it is decoded.
        name: what to call content in an error.

    Raises:
        UserError: missing, not a picture of a plain kind, of another size or too large.
    """
    from PIL import Image

    where = name if isinstance(source, bytes) else source
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=PLAIN_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are too many")
            if size is not None and image.size != size:
                raise UserError(
                    f"{where} is {image.width}x{image.height}, expected {size[0]}x{size[1]}; "
                    "run `avatar3d capture` again."
                )
            return np.array(image)
    except (
        OSError, ValueError, SyntaxError, EOFError, OverflowError, struct.error, zlib.error,
        Image.DecompressionBombError, Image.DecompressionBombWarning,
    ) as error:  # fmt: skip
        raise UserError(
            f"Cannot read the image {where} ({error}); check that the file is complete."
        ) from error


def write_image(path: str | Path, image: np.ndarray, quality: int = 95, packing: int = 6) -> None:
    """Write uint8 (H, W) or (H, W, 3|4), or uint16 (H, W); the suffix .jpg or .png
    chooses the format. `packing`, 0 to 9, is how hard a PNG in colours is compressed.

    The file appears under its name only when it is complete. Unlike `atomic_write` nothing is
    flushed to the disk, because frame folders hold thousands of these: who writes them flushes the
    whole folder before it is marked as done.
    """
    from PIL import Image

    path = Path(path)
    temporary = partial_beside(path)
    options: dict[str, Any] = (
        {"quality": quality, "subsampling": 0}
        if path.suffix == ".jpg"
        else {"compress_level": packing}
    )
    try:
        if path.suffix == ".png" and image.ndim == 2:
            temporary.write_bytes(_gray_png(image))
        else:
            Image.fromarray(image).save(temporary, **options)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"Cannot write {path}: {reason}; check free space and permissions."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _gray_png(image: np.ndarray) -> bytes:
    """A PNG (RFC 2083) of (H, W) uint8 or uint16 without row filters.

    Masks and labels are no smaller with them, but take twice as long to write and to read.
    """
    height, width = image.shape
    size = 2 if image.dtype == np.uint16 else 1
    rows = np.zeros((height, 1 + size * width), np.uint8)  # filter 0 before each row
    rows[:, 1:] = image if size == 1 else np.ascontiguousarray(image, ">u2").view(np.uint8)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8 * size, 0, 0, 0, 0)
    body = (
        chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows.tobytes(), 1))
        + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def data_url(image: np.ndarray, width: int = 1600, quality: int = 85) -> str:
    """A picture (H, W, 3) uint8, no wider than `width`, as JPEG inside an address for a page."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((width, 4000))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
