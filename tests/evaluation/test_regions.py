"""Regions of a drawn face: a square head on a neck, with hair on top."""

import numpy as np
import pytest

from avatar3d.evaluation.regions import (
    contrast,
    error_at_contrast,
    face_interior,
    head_mask,
    seam_band,
)
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
        columns = np.flatnonzero(band.any(0))
        assert (columns[0], columns[-1]) == (22, 77)  # the outline is partly background
        assert band.sum() == (columns[-1] - columns[0] + 1) * width


def test_the_inner_face_keeps_away_from_hair_neck_and_background(labels):
    inner = face_interior(labels)
    rows, columns = np.nonzero(inner)
    assert (rows.min(), rows.max()) == (26, 53)
    assert (columns.min(), columns.max()) == (26, 73)
    assert inner[47, 50]  # lips are face


def test_a_blurred_picture_errs_at_the_seam_as_its_contrast_lets_expect(labels):
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(100, 100)).cumsum(1) * np.tile([1.0, 4.0], 50).repeat(5)[:100, None]
    image = np.repeat(steps[..., None], 3, -1)
    face, seam = labels == PARSING_LABELS.index("skin"), np.zeros((100, 100), bool)
    seam[60:80, 20:80] = True
    soft = contrast(image)  # an error that contrast explains altogether
    assert error_at_contrast(soft, contrast(image), seam, face) == pytest.approx(
        soft[seam].mean(), rel=0.1
    )
    seam[:] = False
    seam[30:50, 20:80] = True
    torn = np.where(seam, 3 * soft, soft)
    assert torn[seam].mean() > 2.4 * error_at_contrast(torn, contrast(image), seam, face & ~seam)


def test_no_error_is_expected_where_nothing_can_be_compared(labels):
    nothing, some = np.zeros((100, 100), bool), labels > 0
    values = np.ones((100, 100))
    assert np.isnan(error_at_contrast(values, values, nothing, some))
    assert np.isnan(error_at_contrast(values, values, some, nothing))
    assert error_at_contrast(values, values, some, some) == 1
