"""Landmarks of a picture and its mirror image."""

import numpy as np

from avatar3d.capture.landmarks import Face
from avatar3d.capture.mirroring import MIRROR, detect_both_ways
from avatar3d.head import ARKIT_INDEX
from avatar3d.head.landmarks import (
    BROWS,
    EYE_LEFT,
    EYE_RIGHT,
    FACE_OVAL,
    IRIS_LEFT,
    IRIS_RIGHT,
    LIPS,
)

WIDTH = 100


class Scripted:
    """A detector that finds one given face in a picture, and another in its mirror image."""

    def __init__(self, plain: Face | None, mirrored: Face | None) -> None:
        self.plain, self.mirrored = plain, mirrored

    def detect(self, image: np.ndarray) -> list[Face]:
        face = self.mirrored if image[0, 0, 0] else self.plain
        return [] if face is None else [face]


def picture() -> np.ndarray:
    image = np.zeros((80, WIDTH, 3), np.uint8)
    image[:, WIDTH // 2 :] = 255
    return image


def in_mirror(points: np.ndarray) -> np.ndarray:
    flipped = points[list(MIRROR)].copy()
    flipped[:, 0] = WIDTH - flipped[:, 0]
    return flipped


def test_regions_are_symmetric():
    mirror = np.array(MIRROR)
    assert (mirror[mirror] == np.arange(478)).all()
    for region in (LIPS, BROWS, FACE_OVAL):
        assert set(mirror[list(region)]) == set(region)
    assert set(mirror[list(EYE_LEFT)]) == set(EYE_RIGHT)
    assert set(mirror[list(IRIS_LEFT)]) == set(IRIS_RIGHT)


def test_errors_that_do_not_mirror_cancel(person):
    truth = np.concatenate([person.landmarks[0], np.zeros((478, 1), np.float32)], 1)
    truth[:, :2] *= WIDTH / 320
    bias = np.array([0.5, 0, 0], np.float32)  # to the right in the picture, whatever it shows
    scores = np.zeros(52, np.float32)
    scores[ARKIT_INDEX["eyeBlinkLeft"]] = 1
    swapped = np.zeros(52, np.float32)
    swapped[ARKIT_INDEX["eyeBlinkRight"]] = 1
    detector = Scripted(Face(truth + bias, scores), Face(in_mirror(truth) + bias, swapped))
    face = detect_both_ways(detector, picture(), None)
    assert face is not None
    assert face.scores is not None
    np.testing.assert_allclose(face.points, truth, atol=1e-4)
    np.testing.assert_allclose(face.scores, scores)


def test_another_face_in_the_mirror_is_not_mixed_in(person):
    truth = np.concatenate([person.landmarks[0], np.zeros((478, 1), np.float32)], 1)
    for other in (None, Face(in_mirror(truth + np.float32([40, 0, 0])))):
        face = detect_both_ways(Scripted(Face(truth), other), picture(), None)
        assert face is not None
        np.testing.assert_array_equal(face.points, truth)
