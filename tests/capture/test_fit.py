"""The fit recovers people whose pose, expression and gaze are known, from noisy landmarks."""

import numpy as np
import pytest

from avatar3d.capture.fit import FaceFit, FaceShape, LandmarkModel, fit_frames, fit_shape
from avatar3d.capture.pose import mean_pose, poses_from_landmarks
from avatar3d.capture.tracking_stages import joined
from avatar3d.geometry import Camera
from avatar3d.head import ARKIT_INDEX
from avatar3d.head.landmarks import LIPS, eye_aperture, lip_gap

MISSING = slice(20, 23)
NOISE = 0.3  # pixels


def degrees_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(T,) angles between rotations (T, 3, 3)."""
    cosine = (np.einsum("tij,tij->t", first, second) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@pytest.fixture(scope="module")
def fitted(person) -> tuple[FaceShape, FaceFit]:
    """Landmarks with noise of 0.3 pixels, and three frames without a face."""
    rng = np.random.default_rng(0)
    points = person.landmarks + rng.normal(0, NOISE, person.landmarks.shape)
    found = np.ones(len(points), bool)
    found[MISSING] = False
    points[MISSING] = 0
    poses = poses_from_landmarks(person.head, points, found, person.camera.K)
    model = LandmarkModel(person.head, person.camera.K)
    shape = fit_shape(model, points[found], poses[found])
    return shape, fit_frames(model, shape, points, found, poses)


def test_landmarks_are_met(person, fitted):
    error = np.linalg.norm(fitted[1].points - person.landmarks, axis=-1)
    error = np.delete(error, np.r_[MISSING], axis=0)
    assert error.mean() < 0.2, "should average the noise out, not follow it"
    assert error[:, list(LIPS)].mean() < 0.25


def test_pose(person, fitted):
    poses, truth = fitted[1].poses, person.T_camera_head
    assert degrees_between(poses[:, :3, :3], truth[:, :3, :3]).mean() < 1.5
    own, other = (np.linalg.inv(mean_pose(x)) @ x for x in (poses, truth))
    assert degrees_between(own[:, :3, :3], other[:, :3, :3]).mean() < 0.6
    depth = poses[:, 2, 3] / truth[:, 2, 3]
    assert depth.mean() == pytest.approx(1, abs=0.03)
    assert depth.std() < 0.01


def test_frames_without_a_face_are_bridged(person, fitted):
    poses, truth = fitted[1].poses[MISSING], person.T_camera_head[MISSING]
    assert degrees_between(poses[:, :3, :3], truth[:, :3, :3]).max() < 3


@pytest.mark.parametrize("name", ["jawOpen", "eyeBlinkLeft", "eyeBlinkRight"])
def test_expression(person, fitted, name):
    column = ARKIT_INDEX[name]
    weights, truth = fitted[1].weights[:, column], person.expression[:, column]
    keep = np.delete(np.arange(len(truth)), np.r_[MISSING])
    assert np.corrcoef(weights[keep], truth[keep])[0, 1] > 0.96
    assert 0 <= fitted[1].weights.min() <= fitted[1].weights.max() <= 1


def test_lips_and_lids_move_as_far_as_they_did(person, fitted):
    keep = np.delete(np.arange(len(person)), np.r_[MISSING])
    for measure in (lip_gap, eye_aperture):
        truth, own = (measure(x[keep]) for x in (person.landmarks, fitted[1].points))
        gain = (
            ((truth - truth.mean(0)) * (own - own.mean(0))).sum() / truth.var(0).sum() / len(keep)
        )
        assert 0.93 < gain < 1.05


def test_gaze(person, fitted):
    assert np.degrees(np.abs(fitted[1].gaze - person.gaze)).mean() < 1.5


def test_there_is_no_lag(person, fitted):
    """The opening of the mouth lines up with the truth best at a shift of zero frames."""
    own, truth = lip_gap(fitted[1].points), lip_gap(person.landmarks)
    match = {lag: np.corrcoef(own[3 + lag : 19 + lag], truth[3:19])[0, 1] for lag in range(-3, 4)}
    assert max(match, key=match.__getitem__) == 0


def test_the_mesh_is_where_the_fit_says(person, fitted):
    """Identity, offsets and weights mean the same to `HeadModel` as they did to the fit."""
    shape, fit = fitted
    head = person.head.shaped(shape.identity, shape.offsets)
    camera = Camera(person.camera.K, person.camera.width, person.camera.height)
    for index in (0, 15, 30):
        posed = head.posed(fit.weights[index], fit.gaze[index])
        points = person.head.landmarks_of(posed)
        pose = fit.poses[index]
        pixels = camera.project(points @ pose[:3, :3].T + pose[:3, 3])
        assert np.abs(pixels - fit.points[index]).max() < 0.25


def test_pose_of_exact_points_is_exact(person):
    """Without identity and expression, perspective-n-point has nothing to be wrong about."""
    head, K = person.head, person.camera.K
    truth = person.T_camera_head
    points = head.landmarks_of(head.template)
    pixels = np.stack([person.camera.project(points @ p[:3, :3].T + p[:3, 3]) for p in truth])
    poses = poses_from_landmarks(head, pixels, np.ones(len(truth), bool), K)
    np.testing.assert_allclose(poses, truth, atol=1e-4)


def test_a_cut_is_not_smoothed_over(person):
    """Two people poses apart: with the cut known, the frames beside it fit as well as others."""
    count, shift = 24, 30.0  # pixels that everything jumps at the cut
    points = person.landmarks[:count].copy()
    points[count // 2 :, :, 0] += shift
    found = np.ones(count, bool)
    poses = poses_from_landmarks(person.head, points, found, person.camera.K)
    model = LandmarkModel(person.head, person.camera.K)
    shape = FaceShape(person.identity, np.zeros((478, 3), np.float32))
    beside = slice(count // 2 - 1, count // 2 + 1)

    def error(segments: np.ndarray | None) -> float:
        fit = fit_frames(model, shape, points, found, poses, segments=segments)
        return float(np.linalg.norm(fit.points - points, axis=-1)[beside].mean())

    cut = (np.arange(count) >= count // 2).astype(int)
    assert error(cut) < 0.1
    assert error(cut) < 0.5 * error(None)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_shot_without_a_face_leaves_the_others_alone(person, fitted, length):
    shape, alone = fitted
    missing = np.arange(len(person.landmarks)) >= len(person.landmarks) - length
    model = LandmarkModel(person.head, person.camera.K)
    poses = poses_from_landmarks(person.head, person.landmarks, ~missing, person.camera.K)
    points = np.where(missing[:, None, None], 0, person.landmarks)
    fit = fit_frames(model, shape, points, ~missing, poses, segments=missing.astype(int))
    for array in (fit.poses, fit.weights, fit.gaze, fit.points):
        assert np.isfinite(array).all()
    turned = degrees_between(fit.poses[:, :3, :3], alone.poses[:, :3, :3])[~missing]
    assert np.median(turned) < 0.5
    np.testing.assert_allclose(fit.poses[missing], poses[missing], atol=1e-5)


def test_chunks_join_without_a_seam():
    """Cross-fading pieces of one smooth track gives that track back."""
    frames, chunk, overlap = 150, 64, 16
    time = np.arange(frames)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    angle = 0.2 * np.sin(time / 20)
    poses[:, 0, 0] = poses[:, 1, 1] = np.cos(angle)
    poses[:, 0, 1], poses[:, 1, 0] = -np.sin(angle), np.sin(angle)
    poses[:, 2, 3] = 0.6 + 0.05 * np.cos(time / 13)
    track = np.sin(time / 9)[:, None].astype(np.float32)
    whole = FaceFit(poses, track, track[:, :, None], track[:, :, None])
    starts = list(range(0, frames, chunk))
    parts = [
        FaceFit(
            *(getattr(whole, n)[max(0, s - overlap) : s + chunk + overlap] for n in whole.__dict__)
        )
        for s in starts
    ]
    result = joined(parts, starts, chunk, frames)
    np.testing.assert_allclose(result.poses, poses, atol=1e-9)
    np.testing.assert_allclose(result.weights, track, atol=1e-6)
