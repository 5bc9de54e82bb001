"""Normal equations and their solution against numpy and scipy in double precision."""

import numpy as np
import pytest
import torch
from scipy.linalg import cho_solve

from avatar3d.kernels import (
    factor_blocks,
    multiply_blocks,
    normal_equations,
    set_num_threads,
    solve_blocks,
)


def problem(frames: int, points: int, pairs: int, own: int, basis: int, seed: int = 0):
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.tensor(rng.normal(0, 1, shape), dtype=torch.float32)

    strength = normal(frames, points + pairs).clamp_min_(0)
    chosen = torch.tensor(rng.integers(0, points, (pairs, 2)), dtype=torch.int32)
    return (
        normal(frames, points, 2, own), normal(frames, points, 2, 3), normal(points, 3, basis),
        normal(frames, points + pairs, 2), strength, chosen,
    )  # fmt: skip


def blocks(frames: int, size: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    J = rng.normal(0, 1, (frames, 2 * size, size))
    return torch.tensor(J.swapaxes(1, 2) @ J, dtype=torch.float32), rng


SHAPES = [(1, 1, 0, 1, 0), (3, 37, 5, 10, 6), (2, 24, 0, 4, 28), (5, 61, 3, 10, 91)]


@pytest.mark.parametrize("shape", SHAPES)
def test_normal_equations_are_those_of_the_written_out_slopes(shape, simd, threads):
    own, view, basis, error, strength, pairs = given = problem(*shape)
    H, g = normal_equations(*given, backend="native")
    for t in range(shape[0]):
        J = np.concatenate([own[t].numpy(), view[t].numpy() @ basis.numpy()], -1).astype(float)
        J = np.concatenate([J, J[pairs[:, 0]] - J[pairs[:, 1]]])
        weighted = J * strength[t].numpy()[:, None, None]
        want = np.einsum("qai,qaj->ij", weighted, J)
        assert np.abs(H[t].numpy() - want).max() <= 2e-5 * max(np.abs(want).max(), 1)
        want = np.einsum("qai,qa->i", weighted, error[t].numpy())
        assert np.abs(g[t].numpy() - want).max() <= 2e-5 * max(np.abs(want).max(), 1)


def test_reference_agrees():
    given = problem(3, 37, 5, 10, 6)
    for native, slow in zip(
        normal_equations(*given), normal_equations(*given, backend="reference"), strict=True
    ):
        assert torch.allclose(native, slow, rtol=1e-4, atol=1e-4)
    H, _ = blocks(3, 21)
    mask, added = torch.ones(3, 21), torch.ones(3, 21)
    upper = factor_blocks(H, mask, added)
    slow = factor_blocks(H, mask, added, backend="reference")
    assert torch.allclose(upper.triu(), slow.triu(), rtol=1e-3, atol=1e-3)
    for operation, matrix in ((solve_blocks, upper), (multiply_blocks, H)):
        slow = operation(matrix, added, backend="reference")
        assert torch.allclose(operation(matrix, added), slow, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [1, 3, 16, 45, 100])
def test_solution_is_scipys(size, simd, threads):
    H, rng = blocks(4, size)
    mask = torch.tensor(rng.integers(0, 2, (4, size)), dtype=torch.float32)
    added, b = (torch.tensor(rng.uniform(1, 2, (4, size)), dtype=torch.float32) for _ in range(2))
    x = solve_blocks(factor_blocks(H, mask, added, backend="native"), b, backend="native")
    y = multiply_blocks(H, b, backend="native")
    for t in range(4):
        keep = mask[t].double().numpy()
        whole = H[t].double().numpy() * np.outer(keep, keep) + np.diag(added[t].double().numpy())
        want = cho_solve((np.linalg.cholesky(whole), True), b[t].double().numpy())
        assert np.allclose(x[t].numpy(), want, rtol=1e-3, atol=1e-4)
        want = H[t].double().numpy() @ b[t].double().numpy()
        assert np.allclose(y[t].numpy(), want, rtol=1e-4, atol=1e-4 * size)


def test_indefinite_blocks_are_refused(simd):
    H, _ = blocks(3, 5)
    H[1, 2, 2] = -1
    for poison in (H, torch.full_like(H, torch.nan)):
        with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
            factor_blocks(poison, torch.ones(3, 5), torch.zeros(3, 5), backend="native")


def test_threads_do_not_change_a_bit(simd):
    given = problem(7, 61, 3, 10, 91)
    results = []
    before = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            set_num_threads(count)
            H, g = normal_equations(*given)
            upper = factor_blocks(H, torch.ones_like(g), torch.full_like(g, 100.0)).triu()
            results.append([H, g, upper, solve_blocks(upper, g), multiply_blocks(H, g)])
    finally:
        torch.set_num_threads(before)
        set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("index", range(6))
def test_wrong_arguments_are_named(index):
    given = list(problem(3, 37, 5, 10, 6))
    given[index] = given[index][:, :-1]
    with pytest.raises(ValueError, match=r"expected|must be|has"):
        normal_equations(*given)
    given = list(problem(3, 37, 5, 10, 6))
    given[5] = given[5] + 37
    with pytest.raises(ValueError, match="outside"):
        normal_equations(*given)
