"""Optical flow from the mean texture puts wrong poses right."""

import numpy as np
import pytest

from avatar3d.capture.dense import (
    FaceView,
    MeanTexture,
    dense_targets,
    flow_targets,
    rerendering_psnr,
)
from avatar3d.capture.fit import FaceFit, FaceShape, LandmarkModel, refit_frames
from avatar3d.capture.pose import mean_pose
from avatar3d.synth.clip import to_bytes

FRAMES = np.arange(12)


@pytest.fixture(scope="module")
def exact(person) -> FaceFit:
    head = person.head
    weights = np.zeros((len(person), len(head.expression)), np.float32)
    weights[:, :52] = person.expression
    return FaceFit(person.T_camera_head, weights, person.gaze, person.landmarks)


@pytest.fixture(scope="module")
def view(person) -> FaceView:
    return FaceView(person.head.shaped(person.identity), mean_pose(person.T_camera_head))


@pytest.fixture(scope="module")
def grays(person) -> list[np.ndarray]:
    return [to_bytes(person.picture(i).image).mean(2).astype(np.uint8) for i in FRAMES]


def shifted(fit: FaceFit, pixels: np.ndarray, K: np.ndarray) -> FaceFit:
    """A fit whose heads are (T, 2) pixels beside where they are."""
    poses = fit.poses.copy()
    poses[:, :2, 3] += pixels / K[0, 0] * poses[:, 2, 3, None]
    return FaceFit(poses, fit.weights, fit.gaze, fit.points)


def test_flow_finds_how_far_a_frame_is_off(person, exact, view, grays):
    K = person.camera.K
    places = [view.look(exact.weights[i], exact.poses[i], K) for i in FRAMES]
    texture = MeanTexture.of(view, ((grays[i], *places[i]) for i in FRAMES))
    move = np.array([1.2, -0.8])
    wrong = shifted(exact, np.tile(move, (len(person), 1)), K)
    off = view.look(wrong.weights[5], wrong.poses[5], K)
    points, weights = flow_targets(view, texture, grays[5], *off)
    x, y = view.grid.T
    found = points - off[0][y, x]
    mean = (weights[:, None] * found).sum(0) / weights.sum()
    np.testing.assert_allclose(mean, -move, atol=0.25)


def test_refitting_to_the_flow_mends_poses(person, exact, view, grays):
    """Landmarks that all err alike in a frame mislead the pose; the texture does not."""
    K, head = person.camera.K, person.head
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.8, (len(FRAMES), 2))
    part = {name: track[FRAMES] for name, track in exact.__dict__.items()}
    start = shifted(FaceFit(**part), noise, K)
    found = np.ones(len(FRAMES), bool)
    looks = [view.look(start.weights[i], start.poses[i], K) for i in FRAMES]
    texture = MeanTexture.of(view, ((grays[i], *looks[i]) for i in FRAMES))
    targets = [flow_targets(view, texture, grays[i], *looks[i]) for i in FRAMES]
    shape = FaceShape(person.identity, np.zeros((478, 3), np.float32))
    points = person.landmarks[FRAMES] + noise[:, None]
    dense = dense_targets(view, targets)
    fit = refit_frames(LandmarkModel(head, K), shape, points, found, start, dense)

    def wander(poses: np.ndarray) -> float:
        """Pixels by which the error of the position changes from frame to frame."""
        error = (poses[:, :2, 3] - part["poses"][:, :2, 3]) / poses[:, 2, 3, None] * K[0, 0]
        return float((error - error.mean(0)).std())

    assert wander(fit.poses) < 0.75 * wander(start.poses)
    known, held_out = FRAMES[::2], FRAMES[1::2]
    before, after = (
        rerendering_psnr(view, f, K, grays.__getitem__, known, held_out) for f in (start, fit)
    )
    assert after > before + 0.5
