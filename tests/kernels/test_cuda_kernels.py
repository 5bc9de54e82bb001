"""The CUDA kernels against float64 twins: run thread by thread on the CPU, and on a GPU if any."""

from functools import cache

import pytest
import torch
from torch import Tensor

from avatar3d.kernels import reference
from avatar3d.kernels.cuda import adam, availability, binding, modules, ssim


@cache
def images(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(height * 1000 + width)
    smooth = torch.linspace(0, 6, height * width * 3).sin().reshape(height, width, 3)
    target = 0.5 + 0.3 * smooth + 0.05 * torch.randn(height, width, 3, generator=g)
    image = (target + 0.1 * torch.randn(target.shape, generator=g)).clamp(0, 1)
    if height * width > 1:
        image[0, 0] = target[0, 0]  # where |x - y| has no derivative, torch says 0
    return image, target, torch.rand(height, width, generator=g)


@pytest.mark.parametrize("size", [(40, 53), (16, 16), (5, 3), (1, 1), (1, 40), (33, 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradient_agree_with_the_float64_oracle(size, weighted, device, relative_error):
    image, target, weight = images(*size)
    weight = weight if weighted else None
    for ssim_weight in (0.0, 0.2, 1.0):
        exact = image.double().requires_grad_()
        truth = reference.l1_ssim_loss(
            exact, target.double(), None if weight is None else weight.double(), ssim_weight
        )
        truth.backward()
        loss, gradient = ssim.l1_ssim(
            image.to(device), target.to(device), None if weight is None else weight.to(device),
            ssim_weight, True,
        )  # fmt: skip
        expected = float(truth.detach())
        assert abs(float(loss) - expected) <= 2e-6 * expected + 1e-7
        assert relative_error(gradient.cpu(), exact.grad) < 1e-4
        only, none = ssim.l1_ssim(image.to(device), target.to(device), None, ssim_weight, False)
        assert none.numel() == 0
        assert weighted or torch.equal(only, loss)


def rig(count: int, bound: int, blended: int, size: int, seed: int = 0) -> list[Tensor]:
    """The operator's tensors."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=g)

    def rigid() -> Tensor:
        transform = torch.eye(4)
        transform[:3, :3] = torch.linalg.qr(normal(3, 3)).Q
        transform[:3, :3] *= torch.linalg.det(transform[:3, :3])
        transform[:3, 3] = normal(3, scale=0.1)
        return transform

    return [
        normal(count, 3, scale=0.01), normal(count, 4), normal(count, 3) - 5, normal(count),
        normal(count, 3), normal(blended, 10, size, scale=0.3), normal(size),
        torch.tensor([0.01] * 3 + [1.0] * 4 + [0.7] * 3), normal(30, 3, scale=0.1),
        torch.rand(bound, 30, generator=g).argsort(1)[:, :3].int().contiguous(),
        torch.rand(bound, 3, generator=g), torch.rand(count, generator=g), rigid(), rigid(),
        torch.zeros(blended, 10),
    ]  # fmt: skip


PROBE = 14
DIFFERENTIABLE = (0, 1, 2, 3, 4, 5, PROBE, 6, 8, 12, 13)
RIGS = [(300, 200, 170, 16), (130, 130, 130, 5), (129, 0, 128, 33), (9, 4, 0, 3), (40, 20, 0, 0)]


@pytest.mark.parametrize("sizes", RIGS, ids=str)
def test_binding_agrees_with_the_float64_oracle(sizes, device, relative_error):
    tensors = rig(*sizes)
    exact = [t.double() if t.is_floating_point() else t for t in tensors]
    for i in DIFFERENTIABLE:
        exact[i].requires_grad_()
    truth = reference.bind(*exact)
    g = torch.Generator().manual_seed(1)
    v_outputs = [torch.randn(v.shape, generator=g) for v in truth]
    torch.autograd.backward(truth, [v.double() for v in v_outputs])

    inputs = [t.to(device) for t in tensors]
    for value, expected in zip(binding.bind(*inputs), truth, strict=True):
        assert ((value.cpu() - expected).abs() <= 3e-6 * expected.abs().clamp(min=1)).all()
    gradients = binding.bind_backward(inputs[:PROBE], [v.to(device) for v in v_outputs], [True] * 6)
    for i, gradient in zip(DIFFERENTIABLE, gradients, strict=True):
        expected = exact[i].grad if exact[i].grad is not None else torch.zeros_like(exact[i])
        assert gradient.shape == expected.shape
        assert relative_error(gradient.cpu(), expected) < 2e-5, i


def test_only_what_is_wanted_is_computed(device):
    *inputs, probe = (t.to(device) for t in rig(150, 100, 60, 7))
    v_outputs = [torch.ones_like(v) for v in binding.bind(*inputs, probe)]
    whole = binding.bind_backward(inputs, v_outputs, [True] * 6)
    groups = [range(5), *(range(i, i + 1) for i in (5, 6, 7, 8)), range(9, 11)]
    for choice in ("100000", "110000", "101000", "100100", "111100", "000010", "000001"):
        wanted = [letter == "1" for letter in choice]
        part = binding.bind_backward(inputs, v_outputs, wanted)
        for want, group in zip(wanted, groups, strict=True):
            for i in group:
                if want:
                    assert torch.allclose(part[i], whole[i], rtol=1e-5, atol=1e-6)
                else:
                    assert part[i].numel() == 0


@pytest.mark.parametrize("frames", [1, 3])
def test_adamw_with_a_gradient_in_factors_is_torchs(frames, device):
    g = torch.Generator().manual_seed(0)
    start = torch.randn(23, 10, 17, generator=g)
    truth = start.double().requires_grad_()
    options = {"lr": 3e-3, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}
    optimizer = torch.optim.AdamW([truth], **options)
    parameter = start.to(device)
    moments = torch.zeros_like(parameter), torch.zeros_like(parameter)
    for step in range(1, 4):
        rows = torch.randn(frames, 23, 10, generator=g)
        weights = torch.randn(frames, 17, generator=g)
        truth.grad = torch.einsum("frc,fk->rck", rows.double(), weights.double())
        optimizer.step()
        adam.outer_adamw(
            parameter, *moments, rows.to(device), weights.to(device), step, 3e-3, 0.8, 0.95, 1e-4,
            0.1,
        )  # fmt: skip
    assert (parameter.cpu() - truth.detach()).abs().max() < 1e-6


def test_the_trial_run_notices_whether_a_kernel_ran(device, monkeypatch):
    assert availability.computes(device)

    class Idle:
        def launch(self, *arguments) -> None:
            pass

    monkeypatch.setattr(modules, "load", lambda source, device: Idle())
    assert not availability.computes(device)


def test_nothing_to_bind(device):
    *inputs, probe = (t.to(device) for t in rig(0, 0, 0, 4))
    out = binding.bind(*inputs, probe)
    assert [tuple(v.shape) for v in out] == [(0, 3), (0, 4), (0, 3), (0,), (0, 3)]
    gradients = binding.bind_backward(inputs, out, [True] * 6)
    assert all((g == 0).all() for g in gradients)


def test_results_do_not_depend_on_the_order_of_threads(emulated, monkeypatch):
    """A missing barrier would show here: between two, threads run in any order."""
    monkeypatch.setattr(modules, "load", lambda source, device: emulated[source])
    image, target, weight = images(21, 19)
    *inputs, probe = rig(140, 90, 100, 9)
    v_outputs = [torch.ones_like(v) for v in binding.bind(*inputs, probe)]
    results = []
    for order in range(4):
        for kernels in emulated.values():
            monkeypatch.setattr(kernels, "order", order)
        loss = ssim.l1_ssim(image, target, weight, 0.2, True)
        out = binding.bind(*inputs, probe)
        gradients = binding.bind_backward(inputs, v_outputs, [True] * 6)
        results.append([*loss, *out, *gradients])
    vertices = 2 + 5 + 8  # added up in the order of arrival
    for other in results[1:]:
        for i, (a, b) in enumerate(zip(results[0], other, strict=True)):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-6) if i == vertices else a.equal(b)
