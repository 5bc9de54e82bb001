"""AdamW on outer-product gradients, against torch's own AdamW and its float64 twin."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from avatar3d import kernels
from avatar3d.kernels import OuterGradient, bind_gaussians, outer_adamw_
from avatar3d.kernels.adam import _outer_adamw

RATES = {"lr": 3e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.05}


def _problem(shape: tuple[int, ...], frames: int, steps: int, seed: int = 0):
    """A start and, for every step, (F, ...) row gradients of wild sizes and (F, K) weights."""
    rng = np.random.default_rng(seed)

    def normal(*size: int) -> Tensor:
        return torch.tensor(rng.normal(size=size), dtype=torch.float32)

    rows = [normal(frames, *shape[:-1]) * 10 ** (2 * normal(*shape[:-1])) for _ in range(steps)]
    return normal(*shape), [(row, normal(frames, shape[-1])) for row in rows]


def _ours(start: Tensor, steps: list[tuple[Tensor, Tensor]], backend: str, dtype: torch.dtype):
    parameter = start.to(dtype).clone()
    moments = torch.zeros_like(parameter), torch.zeros_like(parameter)
    for number, (rows, weights) in enumerate(steps, 1):
        outer_adamw_(
            parameter, *moments, rows.to(dtype), weights.to(dtype), step=number, backend=backend,
            **RATES,
        )  # fmt: skip
    return parameter, *moments


def _torchs(start: Tensor, steps: list[tuple[Tensor, Tensor]], dtype: torch.dtype):
    parameter = torch.nn.Parameter(start.to(dtype).clone())
    optimizer = torch.optim.AdamW([parameter], fused=False, foreach=False, **RATES)
    for rows, weights in steps:
        parameter.grad = torch.einsum("f...,fk->...k", rows.to(dtype), weights.to(dtype))
        optimizer.step()
    state = optimizer.state[parameter]
    return parameter.detach(), state["exp_avg"], state["exp_avg_sq"]


SHAPES = [(1, 10, 16), (7, 10, 16), (33, 10, 8), (5, 3, 1), (4, 10, 33), (3, 2048), (0, 10, 4)]


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_is_torchs_adamw_in_float32(shape, frames, simd, threads):
    problem = _problem(shape, frames, steps=5)
    truth = _torchs(*problem, torch.float64)
    for ours, torchs, exact in zip(
        _ours(*problem, "native", torch.float32),
        _torchs(*problem, torch.float32),
        truth,
        strict=True,
    ):
        scale = exact.abs().clamp(min=exact.abs().median() if exact.numel() else 1)
        assert torch.allclose(ours / scale, torchs / scale, rtol=0, atol=5e-6)
        assert torch.allclose((ours / scale).double(), exact / scale, rtol=0, atol=5e-6)


def test_the_reference_is_torchs_adamw_in_float64():
    problem = _problem((6, 10, 5), frames=2, steps=4)
    for ours, torchs in zip(
        _ours(*problem, "reference", torch.float64), _torchs(*problem, torch.float64), strict=True
    ):
        assert torch.allclose(ours, torchs, rtol=1e-12, atol=0)


def test_threads_do_not_change_a_bit(simd):
    problem = _problem((203, 10, 16), frames=2, steps=3)
    before = kernels.get_num_threads()
    results = []
    for threads in (1, 2, 3, 7):
        kernels.set_num_threads(threads)
        results.append(_ours(*problem, "native", torch.float32))
    kernels.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_a_row_that_is_not_a_number_stays_alone(simd):
    start, [(rows, weights)] = _problem((9, 10, 16), frames=1, steps=1)
    good = _ours(start, [(rows, weights)], "native", torch.float32)
    rows[0, 4, 7] = float("nan")
    bad = _ours(start, [(rows, weights)], "native", torch.float32)
    for a, b in zip(good, bad, strict=True):
        assert b[4, 7].isnan().all()
        b[4, 7] = a[4, 7]
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_blended_basis_gets_the_gradient_in_factors(make_rig, backend):
    rig = make_rig(30, 20, 15, 6).leaves(torch.float32)
    torch.manual_seed(0)
    target = torch.randn(30, 3)

    def loss(rig) -> Tensor:
        total = torch.zeros(())
        for weights in (rig.weights, rig.weights.flip(0)):  # two frames of one step
            out = bind_gaussians(
                rig.binding, rig.attributes, rig.vertices, rig.head, rig.torso, weights,
                backend=backend,
            )  # fmt: skip
            total = total + (out.means - target).square().sum() + (out.colors * target).sum()
        return total

    loss(rig).backward()
    whole, v_weights = rig.attributes.basis.grad, rig.weights.grad
    rig.weights.grad = None
    collected = OuterGradient()
    frozen = rig.attributes.basis.detach()
    attributes = replace(rig.attributes, basis=frozen, basis_gradient=collected)
    loss(replace(rig, attributes=attributes)).backward()
    rows, weights = collected.factors()
    assert torch.allclose(torch.einsum("fbr,fk->brk", rows, weights), whole, rtol=1e-4, atol=1e-5)
    assert torch.allclose(rig.weights.grad, v_weights, rtol=1e-4, atol=1e-5)
    assert frozen.grad is None
    collected.clear()
    assert collected.factors() is None


def test_blends_without_gradient_leave_no_trace(make_rig):
    rig = make_rig(12, 8, 6, 3)
    rig.attributes.basis_gradient = OuterGradient()
    with torch.no_grad():
        rig.bind()
    assert not rig.attributes.basis_gradient._blends
    rig.bind()
    assert rig.attributes.basis_gradient.factors() is None


def test_the_operator_obeys_torch():
    start, [(rows, weights)] = _problem((4, 10, 3), frames=2, steps=1)
    moments = torch.zeros_like(start), torch.zeros_like(start)
    torch.library.opcheck(
        _outer_adamw.overload, (start, *moments, rows, weights, 1, 1e-3, 0.9, 0.999, 1e-8, 0.01)
    )


def test_wrong_arguments_are_named():
    start, [(rows, weights)] = _problem((4, 10, 3), frames=2, steps=1)
    moments = torch.zeros_like(start), torch.zeros_like(start)

    def step(parameter=start, rows=rows, weights=weights, step=1) -> None:
        outer_adamw_(parameter, *moments, rows, weights, step=step, lr=1e-3, backend="native")

    with pytest.raises(ValueError, match=r"weights has shape \(1, 3\), expected \(F, K\)"):
        step(weights=weights[:1])
    with pytest.raises(ValueError, match=r"parameter has shape \(4, 10, 2\)"):
        step(parameter=start[..., :2])
    with pytest.raises(ValueError, match="parameter is not contiguous"):
        step(parameter=start.transpose(0, 1).contiguous().transpose(0, 1))
    with pytest.raises(ValueError, match=r"rows has dtype torch\.float64"):
        step(rows=rows.double())
    with pytest.raises(ValueError, match="weights has 4000 columns"):
        step(weights=torch.zeros(2, 4000))
    with pytest.raises(ValueError, match="step is 0"):
        step(step=0)
