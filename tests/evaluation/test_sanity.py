"""Known faults of a render move the figures that are about them, and leave the others."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from avatar3d.capture.landmarks import Face
from avatar3d.evaluation.faces import MOUTH_68, mouth_distance
from avatar3d.evaluation.regions import head_mask
from avatar3d.evaluation.scoring import Scorer, interval
from avatar3d.head.landmarks import LIPS
from avatar3d.subject import Subject
from avatar3d.synth import SyntheticClip, make_synthetic
from avatar3d.synth.write import write_subject

FRAMES, FEW = range(4, 44), range(4, 12)
Images = Callable[[int], np.ndarray]


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    return make_synthetic(seed=2, seconds=2, fps=25, size=192)


@pytest.fixture(scope="module")
def subject(clip: SyntheticClip, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder: Path = tmp_path_factory.mktemp("person") / "subject"
    return write_subject(clip, folder)


def scored(
    subject: Subject, picture: Images, landmarks: np.ndarray | None = None
) -> dict[str, float]:
    """Means of all figures, given the landmarks (T, 478, 2) that a detector finds in the render."""
    truth = subject.tracking.landmarks
    sides = iter(
        Face(points[index])
        for index in FEW
        for points in (truth if landmarks is None else landmarks, truth)
    )
    scorer = Scorer(subject, subject.tracking, FEW, lambda image: next(sides))
    for index in FEW:
        scorer.add(index, picture(index))
    means = dict(scorer.scores.means())
    return means | {name: found.value for name, found in scorer.figures().items()}


def over_time(subject: Subject, landmarks: np.ndarray) -> dict[str, float]:
    """What a detector's landmarks alone say."""
    truth = subject.tracking.landmarks
    scorer = Scorer(subject, subject.tracking, FRAMES)
    scorer.found = [(Face(landmarks[index]), Face(truth[index])) for index in FRAMES]
    return {name: found.value for name, found in scorer.figures().items()}


@pytest.fixture(scope="module")
def perfect(subject: Subject) -> dict[str, float]:
    return scored(subject, subject.frame)


def test_the_recording_itself_scores_perfectly(perfect):
    for name in ("ssim", "ms_ssim", "face_ssim", "mouth_ssim", "face_sharpness", "mouth_sharpness",
                 "lip_gap_correlation", "lip_width_correlation", "jitter"):  # fmt: skip
        assert perfect[name] == pytest.approx(1), name
    for name in ("lmd", "lmd_68", "lmd_raw", "lmd_eyes", "flicker", "seam_error", "person_error",
                 "aue", "aue_lower", "aue_upper"):  # fmt: skip
        assert perfect[name] == pytest.approx(0, abs=1e-6), name
    assert perfect["pose_degrees"] == pytest.approx(0, abs=1e-4)
    for name in ("psnr", "face_psnr", "mouth_psnr", "pasted_psnr"):
        assert perfect[name] is None, "infinite in every frame"


def test_blur_costs_sharpness_and_similarity(subject, perfect):
    blurred = scored(subject, lambda i: gaussian_filter(subject.frame(i), (2, 2, 0)))
    for name in ("ssim", "ms_ssim", "face_ssim", "face_sharpness", "mouth_sharpness"):
        assert blurred[name] < 0.97, name
    assert blurred["cpbd"] < perfect["cpbd"]
    assert blurred["lmd"] == pytest.approx(0, abs=1e-6)


def test_a_shift_by_a_pixel_costs_similarity_but_no_sharpness(subject, perfect):
    moved = subject.tracking.landmarks + np.array([1.0, 0])
    shifted = scored(subject, lambda i: np.roll(subject.frame(i), 1, axis=1), moved)
    assert shifted["ssim"] < 0.97
    assert math.isfinite(shifted["psnr"])
    assert shifted["face_sharpness"] == pytest.approx(1, abs=0.05)
    assert shifted["lmd_raw"] == pytest.approx(1, abs=1e-4)
    assert shifted["lmd_68"] == pytest.approx(0, abs=1e-4)
    assert shifted["lip_gap_correlation"] == pytest.approx(1)


def test_lips_two_frames_late_are_found_late(subject):
    truth = subject.tracking.landmarks
    late = np.roll(truth, 2, axis=0)
    figures, exact = over_time(subject, late), over_time(subject, truth)
    assert exact["lip_lag"] == pytest.approx(0, abs=1e-3)
    assert figures["lip_lag"] == pytest.approx(2 / 25, abs=0.01)
    assert figures["lip_gap_correlation"] < 0.95
    assert mouth_distance(late, truth) > 0.1


def test_a_frozen_mouth_is_seen_by_lips_and_lower_actions(subject):
    lips = sorted({*LIPS, *MOUTH_68})
    still = subject.tracking.landmarks.copy()
    still[:, lips] = still.mean(1, keepdims=True) + (still - still.mean(1, keepdims=True))[:1, lips]
    figures = over_time(subject, still)
    assert mouth_distance(still, subject.tracking.landmarks) > 0.3
    assert abs(figures["lip_gap_correlation"]) < 0.5
    assert figures["aue_lower"] > 5 * figures["aue_upper"]


def test_the_true_torso_pasted_in_flatters_only_the_labelled_figure(subject):
    def wrong_torso(index: int) -> np.ndarray:
        image = subject.frame(index)
        head = head_mask(subject.parsing(index))[..., None]
        return np.where(head, image - (image > 4) * np.uint8(4), 255 - image)

    figures = scored(subject, wrong_torso)
    assert figures["psnr"] < 15
    assert figures["pasted_psnr"] > 35
    assert figures["seam_error"] > 5 * figures["face_error"]


def test_trembling_landmarks_and_flickering_light_are_found(subject, perfect):
    rng = np.random.default_rng(0)
    trembling = subject.tracking.landmarks + rng.normal(0, 1, subject.tracking.landmarks.shape)
    figures = scored(subject, lambda i: subject.frame(i) // 2 + 60 * (i % 2), trembling)
    assert figures["jitter"] > 5
    assert figures["shaking"] > 2 * perfect["shaking"]
    assert figures["flicker"] > 50


def test_the_interval_of_a_mean_is_that_of_independent_frames():
    values = np.random.default_rng(1).normal(3, 2, 4000).tolist()
    low, high = interval(values, fps=1)
    assert high - low == pytest.approx(2 * 1.645 * 2 / np.sqrt(4000), rel=0.2)
    assert low < 3 < high
    assert interval([1.0, math.inf, math.nan], fps=25) is None
