"""A visible mark: a small label in the corner of every picture."""

from functools import cache

import numpy as np

__all__ = ["labelled"]

_TEXT = "AI-generated"
_SHARE = 0.035  # of the picture's height
_MARGIN = 0.02


def labelled(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with the label at the lower right."""
    height, width = image.shape[:2]
    label = _label(max(9, round(_SHARE * height)))
    rows, columns = min(label.shape[0], height), min(label.shape[1], width)
    gap = round(_MARGIN * height)
    top, left = max(0, height - rows - gap), max(0, width - columns - gap)
    place = np.s_[top : top + rows, left : left + columns]
    result = image.copy()
    opacity = label[:rows, :columns, 3:].astype(np.float32) / 255
    mixed = result[place] * (1 - opacity) + label[:rows, :columns, :3] * opacity
    result[place] = mixed.round().astype(np.uint8)
    return result


@cache
def _label(size: int) -> np.ndarray:
    """(h, w, 4) uint8: white text on a half transparent plate."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(_TEXT)
    pad = size // 2
    plate = Image.new(
        "RGBA", (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad), (0, 0, 0, 110)
    )
    ImageDraw.Draw(plate).text((pad - left, pad - top), _TEXT, (255, 255, 255, 235), font)
    return np.asarray(plate)
