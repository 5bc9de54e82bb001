"""Where a picture's fine detail matters."""

import numpy as np

from avatar3d.training.detail import face_region


def test_region_is_the_head_down_to_the_chin_inside_the_picture():
    landmarks = np.full((478, 2), 50.0)
    landmarks[0], landmarks[1] = (20, 30), (80, 90)
    assert face_region(landmarks, 100, 90) == (slice(18, 90), slice(8, 90))
    assert face_region(landmarks + 1000, 100, 90) is None
    assert face_region(landmarks * 0.01, 100, 90) is None
