"""MS-SSIM and CPBD against their best-known programs, on random and on real pictures."""

import numpy as np
import pytest
import skimage
import torch
from scipy.ndimage import gaussian_filter

from avatar3d.evaluation.quality import cpbd, ms_ssim

REAL = ("random", "cat", "coffee")


def picture(name: str) -> np.ndarray:
    """(H, W, 3) in [0, 1], sides multiples of 16, where programs halve alike."""
    if name == "random":
        return np.random.default_rng(0).random((192, 240, 3))
    image = getattr(skimage.data, name)() / 255
    return image[: image.shape[0] // 16 * 16, : image.shape[1] // 16 * 16]


def degraded(image: np.ndarray) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(1).normal(0, 0.05, image.shape)
    return {
        "blurred": gaussian_filter(image, (2, 2, 0)),
        "noisy": (image + noise).clip(0, 1),
        "shifted": np.roll(image, 1, axis=1),
    }


@pytest.mark.parametrize("name", REAL)
def test_ms_ssim_equals_pytorch_msssim(name):
    theirs = pytest.importorskip("pytorch_msssim").ms_ssim
    target = picture(name)
    for image in degraded(target).values():
        first, second = (torch.from_numpy(part).permute(2, 0, 1)[None] for part in (image, target))
        expected = float(theirs(first, second, data_range=1.0))
        assert ms_ssim(image, target) == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_forgives_a_shift_more_than_blur_and_is_undefined_for_small_pictures():
    target = picture("coffee")
    worse = degraded(target)
    assert ms_ssim(target, target) == pytest.approx(1)
    assert 0.3 < ms_ssim(worse["blurred"], target) < ms_ssim(worse["shifted"], target) < 1
    assert np.isnan(ms_ssim(target[:160], target[:160]))


@pytest.mark.parametrize("name", REAL)
def test_cpbd_equals_the_known_program(name):
    theirs = pytest.importorskip("cpbd")
    target = picture(name)[:192, :256]
    for image in (target, *degraded(target).values()):
        grey = 255 * (image @ np.array([0.299, 0.587, 0.114]))
        assert cpbd(image) == pytest.approx(theirs.compute(grey), abs=1e-4)


def test_cpbd_falls_with_blur():
    sharp = picture("cat")
    scores = [cpbd(gaussian_filter(sharp, (sigma, sigma, 0))) for sigma in (0, 1, 2)]
    assert scores[0] > scores[1] > scores[2]
    assert cpbd(np.full((128, 128, 3), 0.5)) == 0
