"""Compositing against integrals, nerfacc and torch's autograd."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from avatar3d import kernels
from avatar3d.kernels import Samples, composite
from avatar3d.kernels.composite import _composite, _composite_backward

BACKENDS = ["native", "reference"]


def packed(t: Tensor, dt: float, counts: list[int]) -> Samples:
    """t of all rays, one after the other."""
    offsets = torch.tensor([0, *counts]).cumsum(0).int()
    rays = torch.repeat_interleave(
        torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64)
    ).int()
    return Samples(torch.zeros(len(t), 3), t, torch.full_like(t, dt), offsets, rays, len(counts))


def random_rays(seed: int = 0, channels: int = 3) -> tuple[Samples, list[Tensor]]:
    """Rays of 0 to 60 samples, thin and opaque ones; density, colour and extra."""
    g = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 60, (300,), generator=g).tolist()
    counts[0] = counts[17] = counts[-1] = 0
    t = torch.cat([1 + 0.004 * (torch.arange(n) + torch.rand(1, generator=g)) for n in counts])
    scale = torch.repeat_interleave(torch.rand(300, generator=g) ** 4 * 1e3, torch.tensor(counts))
    n = len(t)
    density = scale * torch.rand(n, generator=g) * (torch.rand(n, generator=g) < 0.8)
    color, extra = torch.rand(n, 3, generator=g), torch.randn(n, channels, generator=g)
    return packed(t, 0.004, counts), [density, color, extra]


@pytest.mark.parametrize("backend", BACKENDS)
def test_slabs_have_their_integrals(backend, simd, threads):
    """Constant density: 1 - exp(-s L). Linear density s z: 1 - exp(-s L^2 / 2); and the depth."""
    n, length, near = 4096, 0.3, 1.0
    dt = length / n
    z = (torch.arange(n, dtype=torch.float64) + 0.5) * dt
    samples = packed((near + torch.cat([z, z])).float(), dt, [n, n])
    s = 9.0
    density = torch.cat([torch.full_like(z, s), 60 * z]).float()
    color = torch.cat([z, z])[:, None].expand(-1, 3).float().contiguous()
    out = composite(density, color, samples, color[:, :2], backend=backend)
    whole = z.new_tensor([-math.expm1(-s * length), -math.expm1(-30 * length**2)])
    assert (out.alpha - whole).abs().max() < 1e-4
    # integral of z s exp(-s z), and of z 60 z exp(-30 z^2), by parts
    first = (1 - math.exp(-s * length) * (1 + s * length)) / s
    second = math.sqrt(math.pi / 120) * math.erf(length * math.sqrt(30)) - length * math.exp(
        -30 * length**2
    )
    mean = z.new_tensor([first, second])
    assert (out.depth - (near * whole + mean)).abs().max() < 1e-4
    assert (out.color - mean[:, None]).abs().max() < 1e-4
    assert (out.extra - mean[:, None]).abs().max() < 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_distortion_is_the_double_sum(backend, simd):
    samples, (density, color, _) = random_rays()
    out = composite(density, color, samples, backend=backend)
    o, w, t = samples.offsets.tolist(), out.weights.double(), samples.t.double()
    for ray in range(0, 300, 7):
        i = slice(o[ray], o[ray + 1])
        pairs = (w[i, None] * w[i] * (t[i, None] - t[i]).abs()).sum() + (
            w[i] ** 2
        ).sum() * 0.004 / 3
        assert abs(float(out.distortion[ray] - pairs)) < 1e-7


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_are_nerfaccs(backend):
    nerfacc = pytest.importorskip("nerfacc", reason="nerfacc is not installed: pip install nerfacc")
    g = torch.Generator().manual_seed(1)
    rays, n, dt = 50, 40, 0.01
    t = 1 + dt * (torch.arange(n) + 0.5).expand(rays, n)
    density = torch.rand(rays, n, generator=g) * 20  # none of the rays stops early
    color = torch.rand(rays, n, 3, generator=g)
    weights, _, _ = nerfacc.render_weight_from_density(t - dt / 2, t + dt / 2, density)
    samples = packed(t.reshape(-1).contiguous(), dt, [n] * rays)
    out = composite(density.view(-1), color.view(-1, 3), samples, backend=backend)
    assert (out.weights.view(rays, n) - weights).abs().max() < 1e-6
    sums = nerfacc.accumulate_along_rays(weights, color)
    assert (out.color - sums).abs().max() < 1e-5
    assert (out.alpha - nerfacc.accumulate_along_rays(weights)[:, 0]).abs().max() < 1e-5
    depth = nerfacc.accumulate_along_rays(weights, t[..., None])[:, 0]
    assert (out.depth - depth).abs().max() < 1e-5


def gradients(backend: str, dtype: torch.dtype, samples: Samples, inputs: list[Tensor]):
    leaves = [v.detach().to(dtype).requires_grad_() for v in (t.clone() for t in inputs)]
    exact = replace(samples, t=samples.t.to(dtype), dt=samples.dt.to(dtype))
    out = composite(leaves[0], leaves[1], exact, leaves[2], backend=backend)
    g = torch.Generator().manual_seed(5)
    loss = sum((v * torch.randn(v.shape, generator=g).to(dtype)).sum() for v in out[:5])
    return out, torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("channels", [0, 1, 5])
def test_gradients_are_autograds(channels, simd, threads, relative_error):
    samples, inputs = random_rays(channels=channels)
    out, found = gradients("native", torch.float32, samples, inputs)
    truth, expected = gradients("reference", torch.float64, samples, inputs)
    for a, b in zip(out, truth, strict=True):
        assert ((a - b).abs() <= 1e-6 * b.abs().clamp(min=1)).all()
    for a, b in zip(found, expected, strict=True):
        assert relative_error(a, b) < 1e-5


def test_gradients_are_finite_differences():
    samples, inputs = random_rays()
    samples = replace(samples, t=samples.t.double(), dt=samples.dt.double())
    few = replace(
        samples, t=samples.t[:90], dt=samples.dt[:90], points=samples.points[:90],
        rays=samples.rays[:90], offsets=samples.offsets.clamp(max=90),
    )  # fmt: skip
    leaves = [(0.1 * v[:90].double() + 0.01).requires_grad_() for v in inputs]
    torch.autograd.gradcheck(
        lambda d, c, e: composite(d, c, few, e, backend="reference")[:5], leaves
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_hidden_has_neither_value_nor_gradient(backend):
    samples = packed(torch.arange(6.0), 1.0, [6])
    density = torch.tensor([1.0, 4.0, 3.0, 3.0, 100.0, 100.0], requires_grad=True)
    color = torch.ones(6, 3, requires_grad=True)
    out = composite(density, color, samples, backend=backend)
    assert out.weights[4] == 0
    assert out.weights[5] == 0
    out.color.sum().backward()
    assert (density.grad[:4] > 0).all()
    assert (density.grad[4:] == 0).all()
    assert (color.grad[:4] > 0).all()
    assert (color.grad[4:] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_poison_stays_where_it_is(backend, simd):
    samples, (density, color, extra) = random_rays()
    nan, infinity = float("nan"), float("inf")
    bad = [50, 51, 52, 53, 500]
    density[50], density[51], color[52, 1], extra[53, 0], color[500, 2] = (
        nan,
        -3,
        nan,
        infinity,
        nan,
    )
    density[1000] = infinity  # opaque
    density[1001] = 3e38
    out, found = gradients(backend, torch.float32, samples, [density, color, extra])
    clean = [v.clone() for v in (density, color, extra)]
    for v in clean:
        v[bad] = 0
    truth, expected = gradients("reference", torch.float64, samples, clean)
    for a, b in zip(out, truth, strict=True):
        assert ((a - b).abs() <= 1e-6 * b.abs().clamp(min=1)).all()
    assert all(v.isfinite().all() for v in found)
    assert (found[0][bad] == 0).all()
    assert (found[1][bad] == 0).all()
    keep = torch.ones(len(density), dtype=torch.bool)
    keep[bad] = False
    for a, b in zip(found, expected, strict=True):
        assert (a[keep] - b[keep]).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_composite(backend):
    for counts in ([], [0, 0, 0]):
        samples = packed(torch.empty(0), 1.0, counts)
        density, color = torch.empty(0, requires_grad=True), torch.empty(0, 3, requires_grad=True)
        out = composite(density, color, samples, backend=backend)
        assert [len(v) for v in out] == [len(counts)] * 5 + [0]
        assert all((v == 0).all() for v in out)
        torch.autograd.grad(out.color.sum() + out.alpha.sum(), (density, color))


def test_bits_do_not_depend_on_threads(simd):
    samples, inputs = random_rays(3)
    results = []
    before = kernels.get_num_threads()
    for threads in (1, 2, 5):
        kernels.set_num_threads(threads)
        out, found = gradients("native", torch.float32, samples, inputs)
        results.append([*out, *found])
    kernels.set_num_threads(before)
    assert all(a.equal(b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_the_operators_obey_torch():
    samples, inputs = random_rays()
    tensors = (*inputs, samples.t, samples.dt, samples.offsets)
    torch.library.opcheck(_composite.overload, tensors)
    v_outputs = [torch.ones_like(v) for v in _composite(*tensors)[:5]]
    torch.library.opcheck(_composite_backward.overload, (list(tensors), v_outputs))


def test_wrong_arguments_are_named():
    samples, (density, color, extra) = random_rays()
    with pytest.raises(ValueError, match="density has shape"):
        composite(density[1:], color, samples)
    with pytest.raises(ValueError, match="color has shape"):
        composite(density, color[:, :2], samples)
    with pytest.raises(ValueError, match="extra has shape"):
        composite(density, color, samples, extra[1:])
    broken = replace(samples, offsets=samples.offsets.flip(0))
    with pytest.raises(ValueError, match="offsets"):
        composite(density, color, broken, backend="native")
