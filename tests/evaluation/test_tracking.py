"""The figures of a tracking, on trackings whose faults are known."""

from dataclasses import replace

import numpy as np
import pytest

from avatar3d.evaluation.tracking import (
    expression_error,
    lag,
    landmark_figures,
    rotation_error,
    still_jitter,
    truth_figures,
)
from avatar3d.geometry import rotation_from_vector
from avatar3d.head import ARKIT_INDEX, load_head
from avatar3d.synth import SyntheticClip, make_synthetic
from avatar3d.synth.write import tracking


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    return make_synthetic(seed=2, seconds=2, fps=25, size=128)


def turned(poses: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Poses (T, 4, 4) with turns (T,) about the camera's x axis put on top."""
    import torch

    vectors = np.zeros((len(poses), 3))
    vectors[:, 0] = np.radians(degrees)
    result = poses.copy()
    result[:, :3, :3] = rotation_from_vector(torch.as_tensor(vectors)).numpy() @ poses[:, :3, :3]
    return result


def test_the_truth_has_no_errors(clip):
    exact = tracking(clip)
    figures = truth_figures(exact, clip.head, clip) | landmark_figures(exact, clip.fps)
    for name in (
        "rotation_degrees",
        "rotation_of_face_degrees",
        "rotation_varying_degrees",
        "lips_mm",
        "lids_mm",
        "gaze_degrees",
        "all_px",
        "lag_yaw_frames",
    ):
        assert figures[name] == pytest.approx(0, abs=0.05), name
    for name in ("aperture_gain", "aperture_amplitude", "lip_gap_gain", "lip_gap_amplitude"):
        assert figures[name] == pytest.approx(1, abs=1e-3), name


def test_rotation_error_in_degrees(clip):
    wrong = turned(clip.T_camera_head, np.linspace(0, 3, len(clip)))
    np.testing.assert_allclose(
        rotation_error(wrong, clip.T_camera_head), np.linspace(0, 3, len(clip)), atol=1e-3
    )


def test_a_turn_shared_by_all_frames_does_not_vary(clip):
    exact = tracking(clip)
    tilted = replace(exact, T_camera_head=clip.T_camera_head @ turned(np.eye(4)[None], [2])[0])
    figures = truth_figures(tilted, clip.head, clip)
    assert figures["rotation_degrees"] == pytest.approx(2, abs=0.01)
    assert figures["rotation_of_face_degrees"] == pytest.approx(2, abs=0.01), "same neutral face"
    assert figures["rotation_varying_degrees"] == pytest.approx(0, abs=0.01)


def test_jitter_is_what_shakes_not_what_moves(clip):
    """Second differences of noise of sigma s spread by s sqrt(6); a steady turn has none."""
    count = 200
    still = np.tile(clip.T_camera_rest, (count, 1, 1))
    steady = turned(still, np.linspace(0, 4, count))
    assert still_jitter(steady, 25) < 1e-3
    shaken = turned(still, np.random.default_rng(0).normal(0, 0.1, count))
    assert still_jitter(shaken, 25) == pytest.approx(0.1 * 6**0.5, rel=0.5)


@pytest.mark.parametrize("late", [-2, 0, 3])
def test_lag_counts_frames(late):
    signal = np.random.default_rng(1).normal(size=80).cumsum()
    assert lag(np.roll(signal, late), signal) == late


def test_expression_error_is_in_the_region_that_moved(clip):
    person = load_head().shaped(clip.identity)
    truth = np.zeros((1, 52), np.float32)
    own = truth.copy()
    own[0, ARKIT_INDEX["eyeBlinkLeft"]] = 1
    error = expression_error(person, own, person, truth)
    assert error["lids"][0] > 1e-3
    assert error["lips"][0] < 1e-4
