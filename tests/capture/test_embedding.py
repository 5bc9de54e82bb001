"""Landmarks found on a head model, against those known of it."""

from dataclasses import replace

import numpy as np
import pytest

from avatar3d.capture import CaptureConfig
from avatar3d.capture.embedding import VIEWS, find_landmarks
from avatar3d.capture.landmarks import choose_detector
from avatar3d.errors import UserError
from avatar3d.head import HeadModel
from avatar3d.head.landmarks import (
    EYE_LEFT,
    EYE_RIGHT,
    FACE_OVAL,
    IRIS_LEFT,
    IRIS_RIGHT,
    LIPS_INNER,
    LIPS_OUTER,
    eye_aperture,
    lip_gap,
)  # fmt: skip


@pytest.fixture(scope="module")
def bare(anny: HeadModel) -> HeadModel:
    """The default head without its landmarks."""
    return replace(
        anny, landmark_faces=np.zeros(478, np.int32), landmark_sigma=np.ones(478, np.float32)
    )


@pytest.fixture(scope="module")
def found(bare: HeadModel, models: None) -> np.ndarray:
    """(478, 3) landmarks, from a tenth of the usual views: those nearest to the front."""
    detector = choose_detector(CaptureConfig(detector="solutions")).make(1)

    def detect(image: np.ndarray) -> np.ndarray | None:
        faces = detector.detect(image)
        return faces[0].points[:, :2] if faces else None

    views = sorted(VIEWS, key=lambda view: abs(view[0]) + abs(view[1]))[:10]
    marks = find_landmarks(bare, detect, views)
    head = replace(bare, landmark_faces=marks.faces, landmark_bary=marks.bary)
    return head.landmarks_of(head.template)


def test_they_are_where_they_belong(found: np.ndarray, anny: HeadModel):
    """The stored landmarks were found from 178 views at a higher resolution."""
    away = np.linalg.norm(found - anny.landmarks_of(anny.template), axis=1)
    inner = np.setdiff1d(np.arange(468), FACE_OVAL)
    assert np.median(away[inner]) < 0.001
    assert away[list(LIPS_OUTER)].max() < 0.002
    assert away[[*IRIS_LEFT, *IRIS_RIGHT]].max() < 0.001


def test_lips_and_lids_are_on_their_edges(found: np.ndarray, anny: HeadModel):
    known = anny.landmarks_of(anny.template)
    assert lip_gap(found) < 0.0005  # the mouth of this head is closed
    away = np.linalg.norm(found - known, axis=1)
    assert np.median(away[list(LIPS_INNER)]) < 0.001
    np.testing.assert_allclose(eye_aperture(found), eye_aperture(known), rtol=0.15)
    # The middle of both lids: on the lid, in front of the eyeball.
    for ring, side in ((EYE_LEFT, 0), (EYE_RIGHT, 1)):
        radius = np.linalg.norm(found[list(ring)] - anny.eye_centers[side], axis=1)
        assert radius.min() > 0.95 * 0.0164  # the mean eyeball's


def test_both_sides_mirror_each_other(found: np.ndarray):
    pairs = [(33, 263), (61, 291), (133, 362), (105, 334), (159, 386), (50, 280)]
    for right, left in pairs:
        np.testing.assert_allclose(found[right] * [-1, 1, 1], found[left], atol=0.0015)


def test_what_is_no_face_is_one_sentence(bare: HeadModel):
    with pytest.raises(UserError, match="were taken for a face"):
        find_landmarks(bare, lambda image: None, VIEWS[:3])
