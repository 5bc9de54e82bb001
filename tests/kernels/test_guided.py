"""The guided filter against OpenCV's and against its definition."""

import numpy as np
import pytest

from avatar3d.kernels import guided_filter


def scene(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A disc of another colour before noise, and a mask that is off by some pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(y - height / 2, x - width / 2) < 0.3 * height
    image = rng.normal([60, 90, 150], 8, (height, width, 3))
    image[disc] += [90, 30, -60]
    mask = np.clip(0.5 - 0.1 * (np.hypot(y - height / 2 - 2, x - width / 2) - 0.3 * height), 0, 1)
    return np.clip(image, 0, 255).astype(np.uint8), mask.astype(np.float32)


@pytest.mark.parametrize(("height", "width", "radius"), [(37, 50, 6), (24, 23, 4), (2, 3, 2)])
def test_is_its_definition(height, width, radius, simd):
    image, mask = scene(height, width)
    fast = guided_filter(image, mask, radius, 1e-3, backend="native")
    slow = guided_filter(image, mask, radius, 1e-3, backend="reference")
    assert np.abs(fast - slow).max() < 1e-3


def test_agrees_with_opencv(simd):
    cv2 = pytest.importorskip("cv2")
    image, mask = scene(128, 160)
    full = cv2.ximgproc.guidedFilter(image, mask, 6, 1e-3 * 255**2)
    ours = guided_filter(image, mask, 6, 1e-3)
    inner = np.s_[8:-8, 8:-8]  # OpenCV mirrors the picture at its border
    assert np.abs(ours - full)[inner].mean() < 0.01
    edge = np.abs(mask - full)[inner] > 0.2
    assert edge.any()
    assert np.abs(ours - full)[inner][edge].mean() < 0.25 * np.abs(mask - full)[inner][edge].mean()


def test_keeps_a_flat_mask(simd):
    image, mask = scene(40, 64)
    assert np.abs(guided_filter(image, np.full_like(mask, 0.7), 6, 3e-5) - 0.7).max() < 1e-4


def test_wrong_arguments_are_named():
    image, mask = scene(20, 20)
    for bad in ((image[..., 0], mask), (image, mask[1:]), (image, mask.astype(np.float64))):
        with pytest.raises(ValueError, match="expected"):
            guided_filter(*bad, 6, 1e-3)
    with pytest.raises(ValueError, match="radius"):
        guided_filter(image, mask, 1, 1e-3)
