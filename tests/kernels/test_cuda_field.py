"""The CUDA kernels of the radiance field against float64, emulated and on a GPU if there is one."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from avatar3d.kernels import HashGrid, field_reference
from avatar3d.kernels.adam import _corrections
from avatar3d.kernels.cuda import adam, hashgrid, mlp, modules

GRIDS = [
    HashGrid(levels=6, features=2, log2_size=10, base=4, finest=60),
    HashGrid(levels=1, features=4, log2_size=9, base=8, finest=8),
    HashGrid(levels=2, features=3, log2_size=7, base=3, finest=20),
]


def numbers_of(grid: HashGrid) -> list[int]:
    return [grid.levels, grid.features, grid.log2_size, grid.base, grid.finest]


def grid_problem(grid: HashGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Points away from the faces of cells, some outside; table; gradient of the features."""
    g = torch.Generator().manual_seed(0)
    points = 1.1 * torch.rand(600, 3, generator=g) - 0.05
    scales = torch.tensor([level[0] for level in grid.levels_of_table])
    fraction = (points[:, :, None] * scales + 0.5) % 1
    points = points[((fraction - 0.5).abs() < 0.499).all(-1).all(-1)].contiguous()
    return (
        points,
        torch.randn(grid.entries, grid.features, generator=g),
        torch.randn(len(points), grid.outputs, generator=g),
    )


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_hash_grid_agrees_with_the_float64_oracle(grid, device, relative_error):
    points, table, v_features = grid_problem(grid)
    exact = points.double().requires_grad_(), table.double().requires_grad_()
    truth = field_reference.hash_encode(*exact, grid)
    truth.backward(v_features.double())
    inputs = [t.to(device) for t in (points, table)]
    shape = numbers_of(grid)
    features = hashgrid.hash_encode(*inputs, shape)
    assert relative_error(features.cpu(), truth.detach()) < 1e-5
    v_points, v_table = hashgrid.hash_encode_backward(
        *inputs, v_features.to(device), shape, [True, True]
    )
    assert relative_error(v_points.cpu(), exact[0].grad) < 1e-4
    assert relative_error(v_table.cpu(), exact[1].grad) < 1e-5
    collected = torch.ones_like(inputs[1])
    again = hashgrid.collect_gradient(*inputs, v_features.to(device), collected, shape, True)
    assert again.equal(v_points)
    assert relative_error(collected.cpu() - 1, exact[1].grad) < 1e-5
    none = hashgrid.hash_encode_backward(*inputs, v_features.to(device), shape, [False, False])
    assert [t.numel() for t in none] == [0, 0]


# inputs, hidden, outputs, layers, groups, frames
SIZES = [(32, 64, 4, 3, 3, 4), (5, 16, 2, 2, 0, 1), (35, 128, 16, 4, 1, 2)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_mlp_agrees_with_the_float64_oracle(sizes, device, relative_error):
    inputs, hidden, outputs, layers, groups, frames = sizes
    g = torch.Generator().manual_seed(0)
    count = 70
    widths = [inputs, *[hidden] * (layers - 1), outputs]
    x = torch.randn(count, inputs, generator=g)
    weights = [torch.randn(b, a, generator=g) / a**0.5 for a, b in pairwise(widths)]
    biases = [torch.randn(width, generator=g) for width in widths[1:]]
    gates = torch.rand(count, groups, generator=g) if groups else None
    vectors = torch.randn(frames, groups, hidden, generator=g) if groups else None
    rows = torch.randint(frames, (count,), generator=g).int() if groups else None
    v_outputs = torch.randn(count, outputs, generator=g)

    def exact(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.double().requires_grad_()

    leaves = [exact(x), exact(gates), exact(vectors)]
    layered = [exact(w) for w in weights], [exact(b) for b in biases]
    truth = field_reference.conditioned_mlp(leaves[0], *layered, leaves[1], leaves[2], rows)
    truth.backward(v_outputs.double())

    def there(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.to(device)

    given = [
        x.to(device), [w.to(device) for w in weights], [b.to(device) for b in biases],
        there(gates), there(vectors), there(rows),
    ]  # fmt: skip
    assert relative_error(mlp.conditioned_mlp(*given).cpu(), truth.detach()) < 1e-5
    wanted = [True] * (3 + 2 * layers)
    found = mlp.conditioned_mlp_backward(*given, v_outputs.to(device), wanted)
    for gradient, leaf in zip(found, [*leaves, *layered[0], *layered[1]], strict=True):
        if leaf is None:
            assert gradient.numel() == 0
        else:
            assert relative_error(gradient.cpu(), leaf.grad) < 2e-5
    nothing = mlp.conditioned_mlp_backward(*given, v_outputs.to(device), [False] * len(wanted))
    assert all(t.numel() == 0 for t in nothing)


def test_nothing_and_what_does_not_fit(device):
    grid = GRIDS[0]
    table = torch.ones(grid.entries, 2, device=device)
    none = torch.zeros(0, 3, device=device)
    assert hashgrid.hash_encode(none, table, numbers_of(grid)).shape == (0, 12)
    weights = [torch.ones(16, 3, device=device), torch.ones(2, 16, device=device)]
    biases = [torch.ones(16, device=device), torch.ones(2, device=device)]
    given = [none, weights, biases, None, None, None]
    assert mlp.conditioned_mlp(*given).shape == (0, 2)
    v_outputs = torch.zeros(0, 2, device=device)
    found = mlp.conditioned_mlp_backward(*given, v_outputs, [True, False, False, *[True] * 4])
    assert all((t == 0).all() for t in found)
    wide = [torch.ones(256, 3, device=device), torch.ones(2, 256, device=device)]
    with pytest.raises(ValueError, match="256 hidden neurons, our CUDA kernels take up to 128"):
        mlp.conditioned_mlp(torch.zeros(1, 3, device=device), wide, biases, None, None, None)


def test_adam_for_rows_agrees_with_the_reference(device):
    g = torch.Generator().manual_seed(0)
    truth = [torch.randn(600, 2, generator=g), torch.zeros(600, 2), torch.zeros(600, 2)]
    found = [t.to(device) for t in truth]
    truth = [t.double() for t in truth]
    steps, ours = torch.zeros(600).int(), torch.zeros(600).int().to(device)
    corrections = _corrections((0.9, 0.99)).to(device)
    for _ in range(4):
        gradient = torch.randn(600, 2, generator=g) * (torch.rand(600, 1, generator=g) < 0.5)
        gradient[17, 1] = float("nan")
        collected = gradient.clone().to(device)
        table, *moments = found
        adam.sparse_adam(table, collected, *moments, ours, corrections, 1e-2, 0.9, 0.99, 1e-15)
        assert (collected == 0).all()
        table, *moments = truth
        field_reference.sparse_adam(
            table, gradient.double(), *moments, steps, 1e-2, (0.9, 0.99), 1e-15
        )
    assert ours.cpu().equal(steps)
    for value, expected in zip(found, truth, strict=True):
        assert torch.allclose(value.cpu().double(), expected, rtol=1e-5, atol=1e-6)


def test_results_do_not_depend_on_the_order_of_threads(emulated, monkeypatch):
    """A missing barrier would show here: between two, threads run in any order."""
    monkeypatch.setattr(modules, "load", lambda source, device: emulated[source])
    g = torch.Generator().manual_seed(0)
    weights = [torch.randn(32, 9, generator=g), torch.randn(3, 32, generator=g)]
    x, biases = torch.randn(40, 9, generator=g), [torch.zeros(32), torch.zeros(3)]
    results = []
    for order in range(4):
        monkeypatch.setattr(emulated["mlp.cu"], "order", order)
        given = [x, weights, biases, None, None, None]
        wanted = [True, False, False, *[True] * 4]
        results.append(
            [
                mlp.conditioned_mlp(*given),
                *mlp.conditioned_mlp_backward(*given, torch.ones(40, 3), wanted),
            ]
        )
    for other in results[1:]:
        assert all(a.equal(b) for a, b in zip(results[0], other, strict=True))
