"""Holes and foreign colours of turned heads, on pictures in which they were painted."""

import numpy as np
import pytest

from avatar3d.evaluation.novel import novel_views

SIZE = 200
SKIN, TEAL = (200, 150, 120), (0, 150, 180)


class Painted:
    """A ball of skin, brighter from aside; `spoil` paints what is wrong with it there."""

    def __init__(self, spoil=lambda picture: None) -> None:
        self.spoil = spoil

    def render(self, yaw=0.0, transparent=False):
        y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
        picture = np.zeros((SIZE, SIZE, 4), np.uint8)
        ball = x**2 + y**2 < 80**2
        picture[ball] = (*SKIN, 255)
        if yaw:
            picture[ball, :3] += 5
            self.spoil(picture)
        assert transparent
        return picture


def block(picture: np.ndarray, values: tuple[int, ...], size: int = 20) -> float:
    """Paint a block in the middle; return its share of the ball."""
    low = (SIZE - size) // 2
    picture[low : low + size, low : low + size, : len(values)] = values
    return size**2 / (np.pi * 80**2)


def test_a_whole_head_has_no_faults():
    assert novel_views(Painted()) == {"novel_holes": 0.0, "novel_foreign": 0.0}


def test_see_through_skin_is_a_hole():
    share = block(np.zeros((SIZE, SIZE, 4), np.uint8), (0, 0, 0, 100))
    found = novel_views(Painted(lambda picture: block(picture, (*SKIN, 100))))
    assert found["novel_holes"] == pytest.approx(share, rel=0.1)


def test_a_gap_between_locks_is_a_hole_even_where_it_is_open_to_the_outside():
    def part(picture):
        picture[:, SIZE // 2 : SIZE // 2 + 3] = 0

    assert novel_views(Painted(part))["novel_holes"] > 0.015


def test_the_walls_colour_on_a_cheek_is_foreign():
    share = block(np.zeros((SIZE, SIZE, 4), np.uint8), TEAL)
    found = novel_views(Painted(lambda picture: block(picture, TEAL)))
    assert found["novel_foreign"] == pytest.approx(share, rel=0.1)
    assert found["novel_holes"] == 0


def test_a_colour_shown_at_that_height_is_not_foreign_and_at_another_it_is():
    class Collared(Painted):
        def render(self, yaw=0.0, transparent=False):
            picture = super().render(yaw, transparent)
            collar = np.zeros((SIZE, SIZE), bool)
            collar[130:150] = True
            picture[collar & (picture[..., 3] > 0), :3] = TEAL
            return picture

    assert novel_views(Collared())["novel_foreign"] == 0
    above = Collared(lambda picture: block(picture, TEAL))
    assert novel_views(above)["novel_foreign"] > 0.01
