"""Regions of a drawn face: a square head on a neck, with hair on top."""

import numpy as np
import pytest

from avatar3d.evaluation.regions import face_interior, head_mask, seam_band
from avatar3d.subject import PARSING_LABELS


@pytest.fixture
def labels() -> np.ndarray:
    """Rows: 0-19 hair, 20-59 skin with lips in it, 60-79 neck, 80-99 clothes; columns 20-79."""
    picture = np.zeros((100, 100), np.uint8)
    for rows, name in (
        (slice(0, 20), "hair"),
        (slice(20, 60), "skin"),
        (slice(45, 50), "lips"),
        (slice(60, 80), "neck"),
        (slice(80, 100), "clothes"),
    ):
        picture[rows, 20:80] = PARSING_LABELS.index(name)
    return picture


def test_the_head_is_all_above_the_neck(labels):
    assert (head_mask(labels) == (np.arange(100)[:, None] < 60) & (labels > 0)).all()


def test_the_seam_is_a_band_of_the_given_width_and_no_outline(labels):
    for width in (8, 12):
        band = seam_band(labels, width)
        rows = np.flatnonzero(band[:, 50])
        assert rows.tolist() == list(range(60 - width // 2, 60 + width // 2))
        assert not band[:, :20].any()
        assert band.sum() == pytest.approx(60 * width, rel=0.05)


def test_the_inner_face_keeps_away_from_hair_neck_and_background(labels):
    inner = face_interior(labels)
    rows, columns = np.nonzero(inner)
    assert (rows.min(), rows.max()) == (26, 53)
    assert (columns.min(), columns.max()) == (26, 73)
    assert inner[47, 50]  # lips are face
