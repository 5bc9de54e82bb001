"""Landmarks that slide over the skin are led back to where the head really is."""

import numpy as np
import pytest
import torch

from avatar3d.capture.fit import FaceShape, LandmarkModel, fit_frames
from avatar3d.capture.mirroring import MIRROR
from avatar3d.capture.pose import poses_from_landmarks
from avatar3d.capture.slide import load_slide, turn_terms
from avatar3d.geometry import yaw_pitch_roll


def test_terms_are_those_of_the_turn():
    angles = torch.tensor([0.2]), torch.tensor([-0.1]), torch.tensor([0.05])
    camera_from_head = torch.diag(torch.tensor([1.0, -1, -1]))
    terms = turn_terms(camera_from_head @ yaw_pitch_roll(*angles))[0]
    np.testing.assert_allclose(terms, [0.2, -0.1, 0.04, 0.01, -0.02], atol=1e-6)


@pytest.mark.parametrize("detector", ["solutions 0.10.21", "tasks 3758596"])
def test_both_sides_of_the_face_slide_alike(detector):
    slide = load_slide(detector, "anny")
    flip = np.array([-1, 1, 1])
    np.testing.assert_allclose(slide.rest[list(MIRROR)] * flip, slide.rest, atol=1e-5)
    in_the_mirror = np.array([-1, 1, 1, 1, -1])[:, None, None] * flip  # of yaw, pitch and so on
    mirrored = slide.turn[:, list(MIRROR)] * in_the_mirror
    np.testing.assert_allclose(mirrored, slide.turn, atol=1e-4)


def test_unknown_detectors_and_heads():
    assert load_slide("another 1.0", "anny") is None
    other, own = load_slide("tasks 1", "ict"), load_slide("tasks 1", "anny")
    assert not other.rest.any()
    assert own.rest.any()
    np.testing.assert_array_equal(other.turn, own.turn)


def test_a_known_slide_does_not_bend_the_pose(person):
    """Pitch errors of a fit that knows how its landmarks slide, and of one that does not."""
    head, K, truth = person.head, person.camera.K, person.T_camera_head
    slide, frames = load_slide("solutions", "anny"), len(person)
    terms = turn_terms(torch.as_tensor(truth[:, :3, :3])).numpy()
    away = slide.rest + np.tensordot(terms, slide.turn, 1)
    skin = np.stack([head.landmarks_of(person.vertices(i)) for i in range(frames)])
    points = person.camera.project(skin + away @ truth[:, :3, :3].transpose(0, 2, 1))
    found = np.ones(frames, bool)
    start = poses_from_landmarks(head, points, found, K)
    errors = []
    for known in (slide, None):
        shape = FaceShape(person.identity, np.zeros((478, 3), np.float32))
        fit = fit_frames(LandmarkModel(head, K, known), shape, points, found, start)
        cosine = np.einsum("tij,tij->t", fit.poses[:, :3, :3], truth[:, :3, :3])
        errors.append(np.degrees(np.arccos(np.clip((cosine - 1) / 2, -1, 1))).mean())
    assert errors[0] < 0.4
    assert errors[1] > 2 * errors[0]
