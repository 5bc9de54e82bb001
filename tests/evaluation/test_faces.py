"""Figures of lips, actions, blinks and steadiness, on faces whose faults are known."""

import csv

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.evaluation import faces
from avatar3d.evaluation.metrics import lip_gap_correlation
from avatar3d.head import ARKIT_52, ARKIT_INDEX, load_head

COUNT, FPS = 100, 25.0


@pytest.fixture(scope="module")
def talking() -> tuple[np.ndarray, np.ndarray]:
    """Landmarks (T, 478, 2) of a face that talks and blinks, and its weights (T, 52)."""
    head = load_head()
    time = np.arange(COUNT) / FPS
    weights = np.zeros((COUNT, 52), np.float32)
    weights[:, ARKIT_INDEX["jawOpen"]] = 0.25 - 0.25 * np.cos(9 * time)
    weights[:, ARKIT_INDEX["mouthSmileLeft"]] = weights[:, ARKIT_INDEX["mouthSmileRight"]] = (
        0.3 + 0.3 * np.sin(4 * time)
    )
    for start in (20, 70):
        for lid in ("eyeBlinkLeft", "eyeBlinkRight"):
            weights[start : start + 7, ARKIT_INDEX[lid]] = [0.2, 0.7, 1, 1, 0.7, 0.4, 0.1]
    neutral = head.landmarks_of(head.template)
    moved = np.tensordot(weights, head.landmarks_of(head.expression[:52]), 1) + neutral
    return (moved[..., :2] * [1500, -1500] + 256), weights


def frozen(landmarks: np.ndarray) -> np.ndarray:
    result = landmarks.copy()
    lips = np.union1d(faces.MOUTH_68, [13, 14, 78, 308])
    result[:, lips] = landmarks[:1, lips]
    return result


def test_the_mouth_points_are_those_of_the_68_point_scheme():
    """Its corners, mid points and mirror pairs, where the mesh's own documentation has them."""
    numbered = dict(zip(range(48, 68), faces.MOUTH_68, strict=True))
    # right and left corners, upper and lower lip: outer edge, then inner edge
    named = {48: 61, 54: 291, 51: 0, 57: 17, 60: 78, 64: 308, 62: 13, 66: 14}
    assert {number: numbered[number] for number in named} == named
    head = load_head()
    points = head.landmarks_of(head.template)
    for left, right in ((49, 53), (50, 52), (59, 55), (58, 56), (61, 63), (67, 65)):
        ours, mirrored = points[numbered[left]], points[numbered[right]] * [-1, 1, 1]
        np.testing.assert_allclose(ours, mirrored, atol=2e-3)
    outline = points[[numbered[number] for number in range(48, 60)], :2]
    turn = np.unwrap(np.arctan2(*(outline - outline.mean(0)).T))
    assert (np.diff(turn) > 0).all(), "in order around the mouth"


def test_distances_of_mouths_moved_and_scaled(talking):
    target, _ = talking
    moved = target + [3, 4]
    assert faces.mouth_distance(moved, target, centred=False) == pytest.approx(5)
    assert faces.mouth_distance(moved, target) == pytest.approx(0, abs=1e-9)
    larger = 1.1 * target
    lips = target[:, list(faces.MOUTH_68)]
    radius = np.sqrt(((lips - lips.mean(1, keepdims=True)) ** 2).sum(-1))
    assert faces.mouth_distance(larger, target) == pytest.approx(0.1 * radius.mean())
    eyes = np.hypot(*(target[:, 468] - target[:, 473]).T)
    expected = (0.1 * radius.mean(1) / eyes).mean()
    assert faces.mouth_distance(larger, target, relative=True) == pytest.approx(expected)
    twice = faces.mouth_distance(2 * larger, 2 * target, relative=True)
    assert twice == pytest.approx(expected)


def test_a_frozen_mouth_is_seen_by_the_lips_and_the_lower_units_alone(talking):
    target, weights = talking
    still = frozen(target)
    assert faces.mouth_distance(target, target) == 0
    assert faces.mouth_distance(still, target) > 1
    assert lip_gap_correlation(target, target) == pytest.approx(1)
    assert lip_gap_correlation(still, target) == pytest.approx(0, abs=1e-6)
    assert faces.lip_width_correlation(target, target) == pytest.approx(1)
    assert abs(faces.lip_width_correlation(still, target)) < 1e-6
    dumb = weights.copy()
    dumb[:, [i for i, name in enumerate(ARKIT_52) if name.startswith(("jaw", "mouth"))]] = 0
    error = faces.unit_error(faces.action_units(dumb), faces.action_units(weights))
    smile, jaw = (5 * weights[:, ARKIT_INDEX[n]] for n in ("mouthSmileLeft", "jawOpen"))
    assert error["aue_lower"] == pytest.approx((smile**2).mean() + (jaw**2).mean(), rel=1e-5)
    assert error["aue_upper"] == 0
    same = faces.unit_error(faces.action_units(weights), faces.action_units(weights))
    assert set(same.values()) == {0}


def test_grades_of_openface_are_read_and_compared(tmp_path):
    path = tmp_path / "face.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", " AU12_r", " AU45_r", " AU12_c"])
        writer.writerows([[1, 2.5, 0.0, 1], [2, 1.0, 4.0, 1]])
    units = faces.read_openface(path)
    assert {name: values.tolist() for name, values in units.items()} == {
        "AU12": [2.5, 1.0], "AU45": [0.0, 4.0],
    }  # fmt: skip
    error = faces.unit_error(units, {"AU12": np.zeros(2), "AU45": np.zeros(2)})
    assert error == {"aue": (2.5**2 + 1) / 2 + 8, "aue_lower": (2.5**2 + 1) / 2, "aue_upper": 8}
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no columns of action units"):
        faces.read_openface(path)


def test_blinks_are_counted_by_scores_and_by_lids(talking):
    landmarks, weights = talking
    for scores in (weights, None):
        figures = faces.blink_figures(faces.lid_closure_seen(landmarks, scores), FPS)
        assert figures["blinks"] == pytest.approx(2 * 60 / (COUNT / FPS))
        assert figures["blink_seconds"] == pytest.approx(4.5 / FPS, abs=1.5 / FPS)
    none = faces.blink_figures(np.zeros(COUNT), FPS)
    assert none["blinks"] == 0
    assert np.isnan(none["blink_seconds"])


def test_shaking_is_that_of_noise_and_not_of_motion(talking):
    """Second differences of independent noise have six times its variance."""
    still = np.repeat(talking[0][:1], 400, axis=0)
    moving = still + np.arange(400)[:, None, None]
    assert faces.shaking(moving) == pytest.approx(0, abs=1e-6)
    noise = np.random.default_rng(2).normal(0, 0.5, still.shape)
    eyes = np.linalg.norm(still[0, 468] - still[0, 473])
    assert faces.shaking(still + noise) == pytest.approx(1000 * np.sqrt(6 * 0.5) / eyes, rel=0.03)


def test_flicker_is_what_changes_and_not_what_is_wrong():
    rng = np.random.default_rng(3)
    past, now = rng.integers(60, 120, (2, 16, 16, 3), np.uint8)
    assert faces.flicker(past, now, past, now) == 0
    assert faces.flicker(past + 40, now + 40, past, now) == 0
    assert faces.flicker(past + 40, now + 30, past, now) == 10
