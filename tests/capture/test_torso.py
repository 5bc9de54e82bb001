"""Shoulders that were moved by a known amount."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from avatar3d.capture.torso import (
    NECK_BASE,
    TorsoMotion,
    TorsoTracker,
    measure_all,
    pivot_pixel,
    smooth_motion,
    torso_poses,
)

HEIGHT, WIDTH = 300, 320
PIVOT = np.array([160.0, 210.0])
REST = np.array([[1, 0, 0, 0.01], [0, -1, 0, -0.02], [0, 0, -1, 0.8], [0, 0, 0, 1.0]])
K = np.array([[700.0, 0, 160], [0, 700, 150], [0, 0, 1]])


def shoulders(texture: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture on a canvas with margins, and its matte: a trapezium under a disc."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[: HEIGHT + 80, : WIDTH + 80] - 40.0
    trapezium = (y > 200 + 0.3 * np.abs(x - 160)) & (np.abs(x - 160) < 130)
    person = trapezium | ((x - 160) ** 2 + (y - 120) ** 2 < 70**2)
    cloth = 120 + texture * 60 * gaussian_filter(rng.normal(0, 1, x.shape), 3) / 0.09
    gray = np.where(trapezium, cloth, np.where(person, 170, 80))
    matte = gaussian_filter(person.astype(float), 1.0) * 255
    return gray.clip(0, 255), matte


def moved(
    canvas: np.ndarray, shift: tuple[float, float], log_scale: float = 0, roll: float = 0
) -> np.ndarray:
    """The canvas under a similarity about PIVOT, cut to the frame (bilinear, in numpy alone)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    x, y = columns - PIVOT[0] - shift[0], rows - PIVOT[1] - shift[1]
    c, s = np.cos(-roll) / np.exp(log_scale), np.sin(-roll) / np.exp(log_scale)
    sx, sy = c * x - s * y + PIVOT[0] + 39.5, s * x + c * y + PIVOT[1] + 39.5
    ix, iy = np.floor(sx).astype(int), np.floor(sy).astype(int)
    fx, fy = sx - ix, sy - iy
    top = canvas[iy, ix] * (1 - fx) + canvas[iy, ix + 1] * fx
    bottom = canvas[iy + 1, ix] * (1 - fx) + canvas[iy + 1, ix + 1] * fx
    return top * (1 - fy) + bottom * fy


def picture(gray: np.ndarray, noise: int) -> np.ndarray:
    rng = np.random.default_rng(noise)
    noisy = gray + rng.normal(0, 1.5, gray.shape)
    return np.repeat(noisy.clip(0, 255).astype(np.uint8)[..., None], 3, 2)


def tracker(texture: float) -> tuple[TorsoTracker, np.ndarray, np.ndarray]:
    gray, matte = shoulders(texture)
    region = np.zeros((HEIGHT, WIDTH), bool)
    region[200:] = True
    still = moved(matte, (0, 0)).astype(np.uint8)
    return TorsoTracker(picture(moved(gray, (0, 0)), 1), still, region, PIVOT), gray, matte


@pytest.mark.parametrize(
    "truth",
    [(0, 0, 0, 0), (3.4, -1.3, 0, 0), (-6, 4, 0.03, 0), (1, 1, -0.04, 0.05), (8, 0, 0, -0.06)],
)
def test_known_motion_is_measured(truth):
    measure, gray, matte = tracker(1.0)
    args = (truth[:2], *truth[2:])
    frame, alpha = picture(moved(gray, *args), 2), moved(matte, *args).astype(np.uint8)
    values, sigma = measure.measure(frame, alpha)
    np.testing.assert_allclose(values[:2], truth[:2], atol=0.15)
    np.testing.assert_allclose(values[2:], truth[2:], atol=0.003)
    assert (sigma[:2] < 0.5).all()


def test_plain_cloth_is_measured_by_its_outline_with_less_certainty():
    textured, plain = tracker(1.0), tracker(0.0)
    certain = []
    for measure, gray, matte in (textured, plain):
        frame, alpha = picture(moved(gray, (4, 2)), 2), moved(matte, (4, 2)).astype(np.uint8)
        values, sigma = measure.measure(frame, alpha)
        np.testing.assert_allclose(values[:2], (4, 2), atol=1.0)
        certain.append(sigma[:2].max())
    assert certain[1] > 1.5 * certain[0]


def test_without_any_torso_in_sight_nothing_is_claimed():
    gray, _ = shoulders(1.0)
    frame = picture(moved(gray, (0, 0)), 1)
    empty = np.zeros((HEIGHT, WIDTH), np.uint8)
    measure = TorsoTracker(frame, empty, np.zeros((HEIGHT, WIDTH), bool), PIVOT)
    motion = measure_all(measure, [measure.pyramid(frame, empty)] * 8)
    assert np.isinf(motion.sigma).all()
    head = np.zeros((8, 2))
    head[:, 0] = 20
    fused, share = smooth_motion(motion, head, 25, 1.0)
    assert (share == 0).all()
    assert 0 < fused.values[:, 0].max() < 0.3 * 20, "should follow the head, but only a little"


def test_smoothing_has_no_lag_and_keeps_slow_motion():
    time = np.arange(100) / 25
    truth = 5 * np.sin(2 * np.pi * 0.4 * time)
    values = np.zeros((100, 4))
    values[:, 0] = truth + np.random.default_rng(0).normal(0, 0.2, 100)
    motion = TorsoMotion(values, np.full((100, 4), 0.2))
    fused, share = smooth_motion(motion, np.zeros((100, 2)), 25, 1.0)
    inner = slice(10, 90)
    centered = truth - truth.mean()
    assert np.abs(fused.values[inner, 0] - centered[inner]).std() < 0.15
    assert np.corrcoef(fused.values[inner, 0], centered[inner])[0, 1] > 0.998
    assert share.min() > 0.9


def test_a_wild_value_without_certainty_does_not_matter():
    values = np.zeros((50, 4))
    sigma = np.full((50, 4), 0.2)
    values[20:25, 0], sigma[20:25] = 30, np.inf
    fused, _ = smooth_motion(TorsoMotion(values, sigma), np.zeros((50, 2)), 25, 1.0)
    assert np.abs(fused.values[:, 0]).max() < 0.05


def test_poses_show_the_measured_motion():
    """The neck base of the moved torso appears where the measurement says, as large as it says."""
    values = np.array([[0, 0, 0, 0], [5, -3, 0, 0], [2, 1, 0.05, 0.1]])
    poses = torso_poses(TorsoMotion(values, np.ones_like(values)), REST, K)
    np.testing.assert_allclose(poses[0], REST, atol=1e-12)
    start = pivot_pixel(REST, K)
    for pose, value in zip(poses, values, strict=True):
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(pivot_pixel(pose, K), start + value[:2], atol=1e-9)
        beside = np.array(NECK_BASE) + [0.1, 0, 0]
        ends = [p[:3, :3] @ beside + p[:3, 3] for p in (REST, pose)]
        pixels = [K[:2, :2] @ (e[:2] / e[2]) + K[:2, 2] for e in ends]
        arms = [pixel - pivot_pixel(p, K) for pixel, p in zip(pixels, (REST, pose), strict=True)]
        growth = np.linalg.norm(arms[1]) / np.linalg.norm(arms[0])
        turned = np.arctan2(arms[1][1], arms[1][0]) - np.arctan2(arms[0][1], arms[0][0])
        assert np.log(growth) == pytest.approx(value[2], abs=1e-9)
        assert turned == pytest.approx(value[3], abs=1e-9)


def test_nothing_is_smooth_across_a_cut():
    """The shoulders jump with the cut: no frame of either shot knows of the other one."""
    values = np.zeros((60, 4))
    values[30:, 0] = 25.0
    motion = TorsoMotion(values, np.full((60, 4), 0.05))
    shots = np.repeat([0, 1], 30)
    apart, _ = smooth_motion(motion, np.zeros((60, 2)), 25, 1.0, shots)
    joined, _ = smooth_motion(motion, np.zeros((60, 2)), 25, 1.0)
    step = np.diff(apart.values[:, 0])
    np.testing.assert_allclose(np.delete(step, 29), 0, atol=1e-9)
    assert step[29] == pytest.approx(25, rel=0.01)
    assert np.abs(np.diff(joined.values[:, 0])).max() < 0.8 * step[29]
