"""The radiance field's kernels on samples along rays: hash grid, MLP and the table's Adam."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from avatar3d import kernels
from avatar3d.kernels import HashGrid
from benchmarks.cases import FLOAT, Case, Run

__all__ = ["field_cases"]

RAYS, SAMPLES = 2048, 24
COUNT = RAYS * SAMPLES
GRID = HashGrid(levels=16, features=2, log2_size=16, base=16, finest=1024)
HIDDEN, OUTPUTS, GROUPS, FRAMES = 64, 4, 4, 16
CORNERS = 8


def field_cases() -> Iterator[Case]:
    """Forward and backward, each beside torch doing the same."""
    yield from _grid_cases()
    yield from _mlp_cases()
    yield _adam_case()


def _samples(device: str) -> Tensor:
    """Consecutive ones 1/200 of the box apart, along rays in all directions."""
    g = torch.Generator().manual_seed(0)
    start = 0.2 + 0.6 * torch.rand(RAYS, 1, 3, generator=g)
    direction = torch.nn.functional.normalize(torch.randn(RAYS, 1, 3, generator=g), dim=-1)
    points = start + direction * torch.arange(SAMPLES)[:, None] / 200
    return points.clamp(0, 1).reshape(-1, 3).to(device)


def _case(
    name: str, make: Callable[[str], Callable[[str], Run]], flops: float, numbers: float, **options
) -> Case:
    """Per sample: operations, and numbers read and written."""
    return Case(
        f"field {name}", make("native"), {"torch": make("torch")},
        lambda: (flops * COUNT, FLOAT * numbers * COUNT), samples=COUNT, **options,
    )  # fmt: skip


def _grid_cases() -> Iterator[Case]:
    def leaves(device: str) -> tuple[Tensor, Tensor, Tensor]:
        g = torch.Generator().manual_seed(1)
        table = torch.randn(GRID.entries, GRID.features, generator=g).to(device)
        return _samples(device), table, torch.randn(COUNT, GRID.outputs, generator=g).to(device)

    def forward(how: str) -> Callable[[str], Run]:
        def make(device: str) -> Run:
            points, table, _ = leaves(device)
            return lambda: [kernels.hash_encode(points, table, GRID, implementation=how)]

        return make

    def backward(which: int) -> Callable[[str], Callable[[str], Run]]:
        def by(how: str) -> Callable[[str], Run]:
            def make(device: str) -> Run:
                *given, weight = leaves(device)
                given[which].requires_grad_()
                features = kernels.hash_encode(*given, GRID, implementation=how)
                leaf = given[which]
                return lambda: torch.autograd.grad(features, leaf, weight, retain_graph=True)

            return make

        return by

    # interpolation is a multiply-add a corner and number, its weight two more products
    fetched = CORNERS * GRID.outputs
    weights = CORNERS * GRID.levels * 2
    yield _case("encode fwd", forward, 2 * fetched + weights, 3 + GRID.outputs, quick=True)
    yield _case("encode bwd table", backward(1), 2 * fetched + weights, 3 + GRID.outputs)
    # a point where rounding chooses another cell has another slope
    yield _case("encode bwd points", backward(0), 3 * (2 * fetched + weights), 6 + GRID.outputs,
                compare=False)  # fmt: skip


def _mlp_cases() -> Iterator[Case]:
    inputs = GRID.outputs

    def leaves(device: str) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
        g = torch.Generator().manual_seed(2)

        def normal(*shape: int) -> Tensor:
            return (torch.randn(*shape, generator=g) / shape[-1] ** 0.5).to(device)

        weights = [normal(HIDDEN, inputs), normal(HIDDEN, HIDDEN), normal(OUTPUTS, HIDDEN)]
        biases = [normal(HIDDEN), normal(HIDDEN), normal(OUTPUTS)]
        rows = torch.randint(FRAMES, (RAYS, 1), generator=g).int().expand(-1, SAMPLES)
        given = [normal(COUNT, inputs), normal(COUNT, GROUPS), normal(FRAMES, GROUPS, HIDDEN)]
        return given, weights, biases, rows.reshape(-1).to(device)

    def run(how: str, gradient: bool) -> Callable[[str], Run]:
        def make(device: str) -> Run:
            (x, gates, vectors), weights, biases, rows = leaves(device)
            every = [x, gates, vectors, *weights, *biases]
            for leaf in every:
                leaf.requires_grad_(gradient)

            def forward() -> Tensor:
                return kernels.conditioned_mlp(
                    x, weights, biases, gates, vectors, rows, implementation=how
                )

            if not gradient:
                return lambda: [forward()]
            out = forward()
            weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(device)
            return lambda: torch.autograd.grad(out, every, weight, retain_graph=True)

        return make

    products = HIDDEN * (inputs + HIDDEN + OUTPUTS + GROUPS)
    numbers = inputs + GROUPS + OUTPUTS
    yield _case("mlp fwd", lambda how: run(how, False), 2 * products, numbers, quick=True)
    # activations again, then gradients of both factors of every product
    yield _case("mlp bwd", lambda how: run(how, True), 6 * products, 2 * numbers)


def _adam_case() -> Case:
    """Every entry has a gradient; torch's Adam is the fused one, and clears nothing."""
    shape = (GRID.entries, GRID.features)

    def kernel(device: str) -> Run:
        table, exp_avg, exp_avg_sq, collected = (
            torch.zeros(shape, device=device) for _ in range(4)
        )
        steps = torch.zeros(len(table), dtype=torch.int32, device=device)
        gradient = torch.ones(shape, device=device)

        def run() -> Sequence[Tensor]:
            collected.copy_(gradient)
            kernels.sparse_adam_(table, collected, exp_avg, exp_avg_sq, steps, lr=1e-2)
            return [table]

        return run

    def in_torch(device: str) -> Run:
        table = torch.zeros(shape, device=device, requires_grad=True)
        table.grad = torch.zeros_like(table)
        gradient = torch.ones(shape, device=device)
        optimizer = torch.optim.Adam([table], lr=1e-2, fused=True)

        def run() -> Sequence[Tensor]:
            assert table.grad is not None
            table.grad.copy_(gradient)
            optimizer.step()
            return [table]

        return run

    def work() -> tuple[float, float]:
        numbers = GRID.entries * GRID.features
        return 13.0 * numbers, FLOAT * (8.0 * numbers + 2.0 * GRID.entries)

    return Case("field adam", kernel, {"torch": in_torch}, work, compare=False)
