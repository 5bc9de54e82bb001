"""Prediction of the shoulders from the head."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from avatar3d.avatar.torso import (
    fit_torso_map,
    predict_torso,
    rigid_to_vectors,
    vectors_to_rigid,
)


def _head_motion(frames: int = 300) -> np.ndarray:
    time = np.arange(frames) / 25
    rotation = np.stack([0.1 * np.sin(time), 0.2 * np.sin(1.7 * time), 0 * time], 1)
    pose = np.tile(np.eye(4), (frames, 1, 1))
    pose[:, :3, :3] = Rotation.from_rotvec(rotation).as_matrix()
    pose[:, 0, 3] = 0.02 * np.sin(0.9 * time)
    return pose


def test_vectors_are_a_faithful_description_of_rigid_motion() -> None:
    pose = _head_motion()
    np.testing.assert_allclose(vectors_to_rigid(rigid_to_vectors(pose)), pose, atol=1e-12)


def test_shoulders_that_follow_a_fraction_of_the_head_are_predicted() -> None:
    head = _head_motion()
    torso = vectors_to_rigid(0.1 * rigid_to_vectors(head))
    torso_map = fit_torso_map(head[:200], torso[:200], fps=25, ridge=1e-6)
    predicted = predict_torso(head[200:], torso_map, np.full(6, 1.0), fps=25)
    assert np.abs(predicted - torso[200:]).max() < 2e-4


def test_shoulders_stay_within_what_was_seen() -> None:
    head = _head_motion()
    limit = np.full(6, 0.03)
    predicted = predict_torso(head, np.concatenate([np.eye(6), np.zeros((6, 6))]), limit, fps=25)
    assert np.abs(rigid_to_vectors(predicted)).max() == pytest.approx(0.03)


def test_rest_stays_at_rest() -> None:
    still = np.tile(np.eye(4), (10, 1, 1))
    torso_map = np.random.default_rng(0).normal(size=(12, 6))
    np.testing.assert_allclose(predict_torso(still, torso_map, np.ones(6), 25), still, atol=1e-12)


def test_shoulders_do_not_jump_when_the_head_turns_to_and_fro() -> None:
    time = np.arange(200) / 25
    head = np.tile(np.eye(4), (200, 1, 1))
    turn = 0.6 * np.sin(2 * np.pi * 0.5 * time)
    head[:, :3, :3] = Rotation.from_rotvec(turn[:, None] * [0, 1, 0]).as_matrix()
    follow = np.zeros((12, 6))
    follow[1, 3] = 0.1  # metres of shift per radian of yaw
    limit = np.full(6, 0.006)
    shift = predict_torso(head, follow, limit, fps=25)[:, 0, 3]
    assert np.abs(shift).max() == pytest.approx(0.006, rel=0.01)
    np.testing.assert_allclose(shift, turn / 0.6 * np.abs(shift).max(), atol=1e-4)


def test_a_large_motion_leaves_those_well_before_and_after_it_as_they_are() -> None:
    head = _head_motion()
    follow = np.concatenate([0.2 * np.eye(6), np.zeros((6, 6))])
    free = rigid_to_vectors(predict_torso(head, follow, np.full(6, 1.0), fps=25))
    limit = np.abs(free).max(0) + 1e-6
    head[150:153, 0, 3] += 0.5
    eased = rigid_to_vectors(predict_torso(head, follow, limit, fps=25))
    far = np.abs(np.arange(300) - 151) > 3.2 * 25
    np.testing.assert_allclose(eased[far], free[far], atol=1e-9)
    assert (np.abs(eased) <= limit + 1e-9).all()
