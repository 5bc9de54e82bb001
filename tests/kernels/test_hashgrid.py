"""The hash grid against one written from the paper, autograd and finite differences."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from avatar3d import kernels
from avatar3d.kernels import HashGrid, hash_encode
from avatar3d.kernels.hashgrid import _collect_gradient, _hash_encode

GRIDS = [
    HashGrid(levels=16, features=2, log2_size=12, base=4, finest=200),
    HashGrid(levels=5, features=2, log2_size=14, base=8, finest=64),
    HashGrid(levels=19, features=2, log2_size=9, base=3, finest=100),
    HashGrid(levels=1, features=4, log2_size=15, base=32, finest=32),
    HashGrid(levels=3, features=3, log2_size=8, base=5, finest=40),
    HashGrid(levels=2, features=8, log2_size=10, base=6, finest=30),
    HashGrid(levels=1, features=1, log2_size=3, base=2, finest=2),
]


def by_the_paper(points: np.ndarray, table: np.ndarray, grid: HashGrid) -> np.ndarray:
    """One point, level and corner at a time, in float64 with Python's integers."""
    out = []
    for point in points:
        features: list[float] = []
        offset = 0
        for level in range(grid.levels):
            growth = math.log(grid.finest / grid.base) / max(1, grid.levels - 1)
            scale = grid.base * math.exp(level * growth) - 1
            side = math.ceil(scale - 1e-6) + 1
            size = min((side**3 + 7) // 8 * 8, 2**grid.log2_size)
            position = point * scale + 0.5
            low = np.floor(position).astype(int)
            value = np.zeros(grid.features)
            for corner in np.ndindex(2, 2, 2):
                x, y, z = (int(v) for v in low + corner)
                weight = np.prod(np.where(corner, position - low, 1 - (position - low)))
                if side**3 <= size:
                    entry = x + y * side + z * side * side
                else:
                    entry = x ^ (y * 2654435761 % 2**32) ^ (z * 805459861 % 2**32)
                value += weight * table[offset + entry % size]
            features += list(value)
            offset += size
        assert offset <= len(table)
        out.append(features)
    return np.array(out)


def problem(grid: HashGrid, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Points away from the faces of cells, where a derivative is not one, table and weights."""
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(4 * count, 3, generator=g)
    scales = torch.tensor([level[0] for level in grid.levels_of_table])
    fraction = (points[:, :, None] * scales + 0.5) % 1
    inside = ((fraction - 0.5).abs() < 0.499).all(-1).all(-1)
    table = torch.randn(grid.entries, grid.features, generator=g)
    points = points[inside][:count].contiguous()
    assert len(points) > min(count, 5) - 1
    return points, table, torch.randn(len(points), grid.outputs, generator=g)


def gradients(points: Tensor, table: Tensor, weight: Tensor, grid: HashGrid, how: str):
    points, table = points.clone().requires_grad_(), table.clone().requires_grad_()
    features = hash_encode(points, table, grid, implementation=how)
    (features * weight).sum().backward()
    return features.detach(), points.grad, table.grad


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_features_are_those_of_the_paper(grid, simd, threads):
    points, table, _ = problem(grid, 60)
    points[:4] = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 1, 0.5], [1, 0.3, 0]])
    expected = by_the_paper(points.double().numpy(), table.double().numpy(), grid)
    for how in ("native", "torch"):
        found = hash_encode(points, table, grid, implementation=how)
        assert found.shape == (len(points), grid.outputs)
        # float32 places a point to 1e-5 of a cell of 1/200
        assert np.abs(found.numpy() - expected).max() <= 1e-5 * grid.finest + 1e-5
    exact = hash_encode(points.double(), table.double(), grid, implementation="torch")
    assert np.abs(exact.numpy() - expected).max() < 1e-9


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_gradients_are_those_of_autograd(grid, simd, threads, relative_error):
    points, table, weight = problem(grid, 700)
    _, v_points, v_table = gradients(points, table, weight, grid, "native")
    _, by_point, by_table = gradients(
        points.double(), table.double(), weight.double(), grid, "torch"
    )
    assert relative_error(v_points, by_point) < 1e-4
    assert relative_error(v_table, by_table) < 1e-4


def test_the_reference_has_the_derivatives_of_finite_differences():
    grid = GRIDS[1]
    points, table, _ = problem(grid, 6)
    assert torch.autograd.gradcheck(
        lambda p, t: hash_encode(p, t, grid, implementation="torch"),
        (points.double().requires_grad_(), table.double().requires_grad_()),
        eps=1e-7, fast_mode=True,
    )  # fmt: skip


def test_the_points_gradient_has_that_of_finite_differences(simd):
    grid = GRIDS[1]
    points, table, weight = problem(grid, 200)
    _, v_points, _ = gradients(points, table, weight, grid, "native")
    step = 1e-4
    for axis in range(3):
        shift = step * torch.eye(3)[axis]
        up, down = (
            hash_encode(p, table, grid, implementation="native").double() * weight
            for p in (points + shift, points - shift)
        )
        slope = (up - down).sum(1) / (2 * step)
        same_cell = (slope - v_points[:, axis]).abs() < 0.02 * (1 + slope.abs())
        assert same_cell.float().mean() > 0.9  # others crossed a face


@pytest.mark.parametrize("grid", GRIDS[:4], ids=str)
def test_threads_do_not_change_a_bit(grid, simd):
    points, table, weight = problem(grid, 3000)
    points = points.repeat(2, 1)
    weight = torch.cat([weight, weight.flip(0)])
    before = kernels.get_num_threads()
    results = []
    for threads in (1, 2, 3, 7):
        kernels.set_num_threads(threads)
        results.append(gradients(points, table, weight, grid, "native"))
    kernels.set_num_threads(before)
    for other in results[1:]:
        assert all(a.equal(b) for a, b in zip(results[0], other, strict=True))


def test_a_gradient_is_collected_instead_of_the_tables(relative_error, simd):
    grid = GRIDS[0]
    points, table, weight = problem(grid, 300)
    _, v_points, v_table = gradients(points, table, weight, grid, "native")
    for how in ("native", "torch"):
        collected = torch.ones_like(table)
        leaf, moved = table.clone().requires_grad_(), points.clone().requires_grad_()
        for _ in range(2):
            features = hash_encode(moved, leaf, grid, gradient=collected, implementation=how)
            (features * weight).sum().backward()
        assert leaf.grad is None
        assert relative_error(collected - 1, 2 * v_table) < 1e-4
        assert relative_error(moved.grad, 2 * v_points) < 1e-4


def test_what_lies_outside_is_moved_to_the_border_and_has_no_gradient_there(simd):
    grid = GRIDS[0]
    _, table, _ = problem(grid, 1)
    inf, nan = float("inf"), float("nan")
    outside = torch.tensor([[-3.0, 0.5, 2.0], [0.2, inf, 0.3], [-inf, 0.1, 1e30], [nan, 0.4, 0.7]])
    border = torch.tensor([[0.0, 0.5, 1.0], [0.2, 1.0, 0.3], [0.0, 0.1, 1.0], [0.0, 0.4, 0.7]])
    weight = torch.ones(4, grid.outputs)
    for how in ("native", "torch"):
        found, slopes, v_table = gradients(outside, table, weight, grid, how)
        expected, _, by_table = gradients(border, table, weight, grid, how)
        assert found.equal(expected)
        assert v_table.equal(by_table)
        assert slopes.isfinite().all()
        moved = outside != border  # NaN is not itself
        assert (slopes[moved] == 0).all()
        assert (slopes[~moved] != 0).all()


def test_a_number_that_is_none_stays_with_its_point(simd, threads):
    grid = GRIDS[0]
    points, table, weight = problem(grid, 100)
    clean = gradients(points, table, weight, grid, "native")
    weight[40] = float("nan")
    _, v_points, v_table = gradients(points, table, weight, grid, "native")
    others = torch.arange(len(points)) != 40
    assert v_points[others].equal(clean[1][others])
    alone = torch.zeros_like(weight)
    alone[40] = 1
    touched = gradients(points, table, alone, grid, "native")[2] != 0
    assert v_table[~touched].isfinite().all()


@pytest.mark.parametrize("how", ["native", "torch"])
def test_no_points(how):
    for grid in GRIDS[:5]:
        points, table = torch.zeros(0, 3), torch.ones(grid.entries, grid.features)
        found, v_points, v_table = gradients(points, table, torch.ones(0, grid.outputs), grid, how)
        assert found.shape == (0, grid.outputs)
        assert v_points.shape == (0, 3)
        assert (v_table == 0).all()


def test_the_operators_obey_torch():
    grid = HashGrid(levels=2, features=2, log2_size=8, base=3, finest=9)
    shape = [2, 2, 8, 3, 9]
    points, table, weight = problem(grid, 9)
    torch.library.opcheck(
        _hash_encode.overload, (points.requires_grad_(), table.requires_grad_(), shape)
    )
    points, table = points.detach(), table.detach()
    torch.library.opcheck(
        _collect_gradient.overload,
        (points, table, weight, torch.zeros_like(table), shape, True),
    )


def test_wrong_arguments_are_named():
    grid = GRIDS[1]
    points, table, _ = problem(grid, 9)
    with pytest.raises(ValueError, match=r"points has shape \(9, 2\), expected \(N, 3\)"):
        hash_encode(points[:, :2], table, grid)
    with pytest.raises(ValueError, match=r"table has shape .* expected \(P, features\)"):
        hash_encode(points, table[1:], grid)
    with pytest.raises(ValueError, match=r"points has dtype torch\.float64"):
        hash_encode(points.double(), table, grid)
    with pytest.raises(ValueError, match="gradient is not contiguous"):
        hash_encode(points, table, grid, gradient=torch.zeros(2, len(table)).t())
    with pytest.raises(ValueError, match="implementation is 'fast'"):
        hash_encode(points, table, grid, implementation="fast")
    for wrong in ({"levels": 0}, {"features": 9}, {"log2_size": 40}, {"base": 1}, {"finest": 3}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} of a hash grid is"):
            HashGrid(**wrong)
