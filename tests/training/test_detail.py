"""The detail term against its definition in plain numpy, and what it asks for."""

import numpy as np
import torch

from avatar3d.training.detail import detail_difference, face_region

HEIGHT, WIDTH = 40, 52
REGION = slice(3, 37), slice(5, 48)  # neither is whole patches


def _pictures() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    target = rng.random((HEIGHT, WIDTH, 3)) * 0.2
    image = 0.7 * target + rng.random((HEIGHT, WIDTH, 3)) * 0.05
    return image, target, rng.random((HEIGHT, WIDTH)) + 0.5


def _in_numpy(image: np.ndarray, target: np.ndarray, weight: np.ndarray) -> float:
    total, patches = 0.0, 0
    rows, columns = REGION
    floor = (1 / 255) ** 2
    for top in range(rows.start, rows.stop - 8, 8):
        for left in range(columns.start, columns.stop - 8, 8):
            inside = slice(top, top + 8), slice(left, left + 8)
            a, b = (_steps(picture.mean(-1))[inside] for picture in (image, target))
            wanted = (b**2).sum(-1).mean() + floor
            both = (a**2).sum(-1).mean() + wanted + floor
            share = ((a - b) ** 2).sum(-1).mean() / both
            total += np.sqrt(wanted) * share / weight[inside].mean()
            patches += 1
    return total / patches


def _steps(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey[:-1, 1:] - grey[:-1, :-1], grey[1:, :-1] - grey[:-1, :-1]], -1)


def test_value_is_that_of_the_definition():
    image, target, weight = _pictures()
    ours = detail_difference(*(torch.tensor(p) for p in (image, target)), REGION,
                             torch.tensor(weight))  # fmt: skip
    assert np.isclose(float(ours), _in_numpy(image, target, weight), rtol=1e-12)


def test_gradient_is_that_of_the_value():
    image, target, weight = (torch.tensor(p) for p in _pictures())
    image.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: 3 * detail_difference(x, target, REGION, weight), image, fast_mode=True
    )


def test_asks_for_the_targets_strength_where_detail_correlates_and_for_nothing_elsewhere():
    rng = np.random.default_rng(1)
    target, other = (
        torch.tensor(rng.random((65, 65, 1)) * 0.3).expand(-1, -1, 3) for _ in range(2)
    )
    everything = slice(None), slice(None)
    gains = np.linspace(0, 2, 41)

    def losses(detail: torch.Tensor) -> np.ndarray:
        return np.array([float(detail_difference(g * detail, target, everything)) for g in gains])

    half_right = 0.5 * target + 0.5 * other
    as_strong = float((target[..., 0].var() / half_right[..., 0].var()) ** 0.5)
    x, y = half_right[..., 0].flatten(), target[..., 0].flatten()
    least_squares = float(torch.cov(torch.stack([x, y]))[0, 1] / x.var())
    found = losses(half_right)
    assert abs(gains[found.argmin()] - as_strong) < 0.1 < as_strong - least_squares
    assert found.min() < 0.5 * found[0]
    assert np.ptp(losses(other)) < 0.05 * losses(other).mean()


def test_region_is_the_head_down_to_the_chin_inside_the_picture():
    landmarks = np.full((478, 2), 50.0)
    landmarks[0], landmarks[1] = (20, 30), (80, 90)
    assert face_region(landmarks, 100, 90) == (slice(18, 90), slice(8, 90))
    assert face_region(landmarks + 1000, 100, 90) is None
    assert face_region(landmarks * 0.01, 100, 90) is None
