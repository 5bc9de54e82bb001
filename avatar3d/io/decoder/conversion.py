"""Decoded frames of PyAV to RGB as they are to be shown."""

from fractions import Fraction
from typing import Any

import numpy as np

from avatar3d.io.tone import HDR_CURVES, ToneMapper

__all__ = ["EXACT", "Converter", "display_size", "is_hdr", "rotation"]

EXACT = 0x2 | 0x2000 | 0x40000
"""Scaler flags: bilinear, full chroma, accurate rounding; without them greys come out 1 darker."""
_RGB_MATRIX_BT601, _RGB_MATRIX_BT709 = 5, 1
_UNSPECIFIED_MATRIX = 2


class Converter:
    """For any threads, but HDR frames one after the other."""

    def __init__(self) -> None:
        self._tone = ToneMapper()

    def whole(self, frame: Any, aspect: Fraction | None, size: tuple[int, int]) -> np.ndarray:
        """(H, W, 3) uint8, turned and with square pixels, of the given width and height."""
        if is_hdr(frame):
            image = self._tone(frame, frame.width, frame.height, EXACT)
        else:
            image = _standard_to_rgb(frame)
        if aspect and aspect != 1 and 0.1 < aspect < 10:
            image = _fit_size(image, _square_pixel_size(image.shape[0], image.shape[1], aspect))
        turns = rotation(frame) // 90
        turned = np.ascontiguousarray(np.rot90(image, turns)) if turns else image
        return _fit_size(turned, size[::-1])

    def reduced(self, frame: Any, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 of the whole picture, much faster than `whole`."""
        turns = rotation(frame) // 90
        if turns % 2:
            width, height = height, width
        if is_hdr(frame):
            small = self._tone(frame, width, height, "AREA")
        else:
            small = frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()
        return np.ascontiguousarray(np.rot90(small, turns))


def is_hdr(frame: Any) -> bool:
    """Whether its transfer curve is PQ or HLG."""
    return int(frame.color_trc or 0) in HDR_CURVES


def rotation(frame: Any) -> int:
    """Degrees counter-clockwise, a multiple of 90 in [0, 360)."""
    return round((frame.rotation or 0) / 90) * 90 % 360


def display_size(frame: Any, aspect: Fraction | None) -> tuple[int, int]:
    """Width and height as shown, with pixels of that aspect made square."""
    height, width = frame.height, frame.width
    if aspect and aspect != 1 and 0.1 < aspect < 10:
        height, width = _square_pixel_size(height, width, aspect)
    return (height, width) if rotation(frame) in (90, 270) else (width, height)


def _square_pixel_size(height: int, width: int, aspect: Fraction) -> tuple[int, int]:
    return (height, round(width * aspect)) if aspect > 1 else (round(height / aspect), width)


def _standard_to_rgb(frame: Any) -> np.ndarray:
    matrix = int(frame.colorspace)
    if matrix == _UNSPECIFIED_MATRIX:
        matrix = _RGB_MATRIX_BT709 if frame.height >= 720 else _RGB_MATRIX_BT601
    options = {"format": "rgb24", "interpolation": EXACT}
    try:
        return frame.reformat(src_colorspace=matrix, **options).to_ndarray()
    except (ValueError, OSError):  # colour matrices that the scaler does not know
        return frame.reformat(src_colorspace=_RGB_MATRIX_BT709, **options).to_ndarray()


def _fit_size(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == tuple(size):
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))
