"""Adam for rows with a gradient, against torch's Adam on those rows alone."""

import pytest
import torch
from torch import Tensor

from avatar3d import kernels
from avatar3d.kernels import sparse_adam_
from avatar3d.kernels.adam import _corrections, _sparse_adam

OPTIONS = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-15}


def ours(start: Tensor, gradients: list[Tensor], backend: str) -> list[Tensor]:
    table, moments = start.clone(), [torch.zeros_like(start) for _ in range(2)]
    steps = torch.zeros(len(start), dtype=torch.int32)
    for gradient in gradients:
        collected = gradient.clone()
        sparse_adam_(table, collected, *moments, steps, backend=backend, **OPTIONS)
        assert (collected == 0).all()
    return [table, *moments, steps]


def gradients_of(rows: int, size: int, steps: int) -> list[Tensor]:
    """Random ones, of wild sizes, for every other row at random."""
    g = torch.Generator().manual_seed(rows)
    found = []
    for _ in range(steps):
        gradient = torch.randn(rows, size, generator=g) * 10 ** torch.randn(rows, 1, generator=g)
        found.append(gradient * (torch.rand(rows, 1, generator=g) < 0.5))
    return found


@pytest.mark.parametrize("shape", [(300, 2), (77, 4), (33, 3), (1, 1), (5, 8)], ids=str)
def test_a_row_is_trained_as_by_torchs_adam_on_it_alone(shape, simd, threads):
    start = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    gradients = gradients_of(*shape, steps=12)
    found = ours(start, gradients, "native")
    reference = ours(start, gradients, "reference")
    for row in range(min(shape[0], 40)):
        alone = start[row].double().requires_grad_()
        optimizer = torch.optim.Adam([alone], **OPTIONS)
        seen = [g[row] for g in gradients if (g[row] != 0).any()]
        for gradient in seen:
            alone.grad = gradient.double()
            optimizer.step()
        for result in (found, reference):
            assert torch.allclose(result[0][row].double(), alone.detach(), rtol=1e-5, atol=1e-6)
            assert int(result[3][row]) == len(seen)


def test_threads_do_not_change_a_bit(simd):
    start, gradients = torch.randn(20_000, 2), gradients_of(20_000, 2, steps=3)
    before = kernels.get_num_threads()
    results = []
    for threads in (1, 2, 5):
        kernels.set_num_threads(threads)
        results.append(ours(start, gradients, "native"))
    kernels.set_num_threads(before)
    for other in results[1:]:
        assert all(a.equal(b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_row_that_is_not_finite_stays_as_it_is(backend, simd):
    start, (first, second) = torch.randn(100, 2), gradients_of(100, 2, steps=2)
    clean = ours(start, [first, second], backend)
    second[7, 1], second[8, 0] = float("nan"), -float("inf")
    before = ours(start, [first], backend)
    found = ours(start, [first, second], backend)
    stays = torch.zeros(100, dtype=torch.bool)
    stays[7:9] = True
    for now, then, other in zip(found, before, clean, strict=True):
        assert now[stays].equal(then[stays])
        assert now[~stays].equal(other[~stays])


def test_corrections_end_where_they_are_one():
    for betas in ((0.9, 0.99), (0.9, 0.999), (0.0, 0.0)):
        table = _corrections(betas)
        assert (table[-1] - 1).abs().max() < 1e-6
        assert float(table[1, 0]) == pytest.approx(1 / (1 - betas[0]))


def test_nothing_and_what_does_not_fit():
    none = torch.zeros(0, 2)
    sparse_adam_(none, none, none, none, torch.zeros(0, dtype=torch.int32), lr=1e-2)
    table = torch.zeros(4, 2)
    steps = torch.zeros(4, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"gradient has shape \(4, 1\)"):
        sparse_adam_(table, table[:, :1], table, table, steps, lr=1e-2)
    with pytest.raises(ValueError, match=r"steps is torch\.int64"):
        sparse_adam_(table, table, table, table, steps.long(), lr=1e-2)
    wide = torch.zeros(4, 9)
    with pytest.raises(ValueError, match="table has 9 columns, expected at most 8"):
        sparse_adam_(wide, wide, wide, wide, steps, lr=1e-2)


def test_the_operator_obeys_torch():
    tensors = [torch.randn(4, 2) for _ in range(4)]
    steps = torch.zeros(4, dtype=torch.int32)
    corrections = _corrections((0.9, 0.99))
    torch.library.opcheck(
        _sparse_adam.overload, (*tensors, steps, corrections, 1e-2, 0.9, 0.99, 1e-15)
    )
