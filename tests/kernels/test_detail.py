"""The detail term against its definition in plain numpy, and what it asks for."""

import numpy as np
import pytest
import torch

from avatar3d.kernels import detail_difference

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


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("weighed", [True, False])
def test_the_native_kernel_is_its_torch_twin(simd, threads, relative_error, whole, weighed):
    image, target, weight = (torch.tensor(p, dtype=torch.float32) for p in _pictures())
    region = (slice(None), slice(None)) if whole else REGION
    rows = []
    for backend, dtype in (("native", torch.float32), ("reference", torch.float64)):
        leaf = image.to(dtype).clone().requires_grad_()
        pixels = weight.to(dtype) if weighed else None
        loss = detail_difference(leaf, target.to(dtype), region, pixels, 3.0, backend=backend)
        loss.backward()
        rows.append((loss.detach(), leaf.grad))
    assert rows[0][0] == pytest.approx(float(rows[1][0]), rel=1e-5)
    assert rows[1][1].abs().max() > 0
    assert relative_error(rows[0][1], rows[1][1]) < 1e-4


def test_a_region_without_a_patch_is_refused():
    image = torch.zeros(20, 20, 3)
    with pytest.raises(ValueError, match="holds no patch"):
        detail_difference(image, image, (slice(0, 8), slice(0, 20)))


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
