"""Metrics against scikit-image and against degradations whose effect is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from avatar3d.evaluation import metrics


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.random((90, 110, 3)), (3, 3, 0))
    target = (smooth - smooth.min()) / np.ptp(smooth)
    image = (target + rng.normal(0, 0.05, target.shape)).clip(0, 1)
    return image, target


def face(width: float = 100.0) -> np.ndarray:
    """478 points in a plausible face of the given width: only relations between them matter."""
    rng = np.random.default_rng(1)
    return rng.uniform(0.1, 0.9, (478, 2)) * width


def test_psnr_and_ssim_equal_scikit_image(pictures):
    image, target = pictures
    assert metrics.psnr(image, target) == pytest.approx(
        peak_signal_noise_ratio(target, image, data_range=1), abs=1e-9
    )
    theirs, full = structural_similarity(
        target, image, data_range=1, channel_axis=-1, gaussian_weights=True,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    assert metrics.ssim(image, target) == pytest.approx(theirs, abs=1e-9)
    np.testing.assert_allclose(metrics.ssim_map(image, target), full.mean(-1), atol=1e-9)


def test_psnr_of_a_known_error():
    target = np.full((8, 8, 3), 0.5)
    assert metrics.psnr(target + 0.1, target) == pytest.approx(20.0)
    assert metrics.psnr(target, target) == float("inf")


def test_blur_lowers_sharpness_and_noise_raises_it(pictures):
    noisy, target = pictures
    blurred = gaussian_filter(target, (2, 2, 0))
    assert metrics.sharpness_ratio(target, target) == pytest.approx(1)
    assert metrics.sharpness_ratio(blurred, target) < 0.8
    assert metrics.sharpness_ratio(noisy, target) > 1.2
    assert metrics.ssim(blurred, target) < 1


def test_region_error_sees_only_the_region():
    target = np.zeros((20, 20, 3))
    image = target.copy()
    image[10] = 51 / 255
    band = np.zeros((20, 20), bool)
    band[9:11] = True
    assert metrics.region_error(image, target, band) == pytest.approx(51 / 2)
    assert metrics.region_error(image, target, np.roll(band, 5, axis=0)) == 0
    assert np.isnan(metrics.region_error(image, target, np.zeros_like(band)))


def test_landmark_distance_ignores_translation_and_measures_scale():
    target = np.stack([face()] * 4)
    lips = target[:, list(metrics.LIPS)]
    radius = np.linalg.norm(lips - lips.mean(1, keepdims=True), axis=-1).mean()
    moved = target + np.array([7, -3])
    assert metrics.landmark_distance(moved, target) == pytest.approx(0, abs=1e-9)
    assert metrics.landmark_distance(target * 1.1, target) == pytest.approx(0.1 * radius)


def test_lip_gap_correlation_follows_the_mouth():
    rng = np.random.default_rng(2)
    target = np.stack([face()] * 50)
    opening = rng.random(50) * 5
    target[:, 14, 1] = target[:, 13, 1] + 3 + opening
    half = target.copy()
    half[:, 14, 1] = half[:, 13, 1] + 3 + opening / 2
    half[:, 14, 0] = target[:, 14, 0] = target[:, 13, 0] = half[:, 13, 0]
    still = target.copy()
    still[:, 14] = still[0, 14]
    assert metrics.lip_gap_correlation(half, target) == pytest.approx(1, abs=1e-9)
    assert metrics.lip_gap_correlation(still, target) == 0


def test_jitter_of_doubled_noise_has_four_times_the_energy():
    noise = np.random.default_rng(3).normal(size=(30, 478, 2))
    still = np.stack([face()] * 30)
    assert metrics.jitter_ratio(still + 2 * noise, still + noise) == pytest.approx(4)


def test_boxes_hold_their_landmarks_and_stay_inside():
    landmarks = face(200)
    for make in (metrics.face_box, metrics.mouth_box, metrics.eyes_box):
        box = make(landmarks, 200, 200)
        assert 0 <= box.left < box.right <= 200
        assert 0 <= box.top < box.bottom <= 200
    box = metrics.face_box(landmarks, 200, 200)
    low, high = landmarks[:468].min(0), landmarks[:468].max(0)
    assert (low >= [box.left, box.top]).all()
    assert (high <= [box.right, box.bottom]).all()
    outside = metrics.mouth_box(landmarks + 1000, 200, 200)
    assert outside.crop(np.zeros((200, 200, 3))).size > 0


def test_a_mouth_that_follows_its_sound_agrees_with_it():
    rate, fps = 16000, 25
    rng = np.random.default_rng(4)
    talking = np.repeat(rng.random(20) > 0.4, rate // 4)
    samples = np.where(talking, rng.normal(0, 0.2, talking.size), 0)
    per_frame = talking.reshape(-1, rate // fps).mean(1)
    good = metrics.sound_agreement(per_frame * 0.5, fps, samples, rate)
    assert good["correlation"] > 0.9
    assert good["speech"] > 0.4
    assert good["silence"] == 0
    still = metrics.sound_agreement(np.full(len(per_frame), 0.3), fps, samples, rate)
    assert still["correlation"] == 0
    assert still["silence"] == pytest.approx(0.3)
