"""Which part of a picture is kept."""

import numpy as np

from avatar3d.capture import CaptureConfig
from avatar3d.capture.framing import choose_crop

NOBODY = np.zeros((0, 4))


def test_hair_is_kept_where_a_narrow_picture_cannot_hold_head_and_shoulders():
    """A face of 250 pixels in 512 by 712: hair reaches half a face height above it."""
    box = np.array([[172, 255, 382, 505]], float)
    left, top, width, height = choose_crop(box, NOBODY, 512, 712, CaptureConfig())
    assert (left, width, height) == (0, 512, 512)
    assert top <= 255 - 0.6 * 250
    assert top + height > 505 + 50, "and some neck"


def test_a_wide_picture_gives_head_and_shoulders_with_room_above():
    box = np.array([[900, 300, 1050, 480]], float)
    left, top, width, height = choose_crop(box, NOBODY, 1920, 1080, CaptureConfig())
    assert width == height == round(180 / 0.365)
    assert abs(left + width / 2 - 975) <= 1
    assert 300 - top > 0.65 * 180
    assert top + height - 480 > 0.8 * 180


def test_the_edge_of_the_picture_is_not_crossed():
    box = np.array([[100, 20, 300, 260]], float)
    assert choose_crop(box, NOBODY, 400, 1000, CaptureConfig()) == (0, 0, 400, 400)
