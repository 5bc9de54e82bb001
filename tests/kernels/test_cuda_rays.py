"""The CUDA kernels of volume rendering against their twins in torch, emulated or on a GPU."""

import torch

from avatar3d.kernels import Occupancy, WarpGrid, march, posed_mask
from avatar3d.kernels import radiance_reference as reference
from avatar3d.kernels.cuda import rays

BOX = torch.tensor([[-0.2, -0.2, -0.2], [0.2, 0.2, 0.2]])
FINE = torch.tensor([[-0.05, -0.1, 0.0], [0.1, 0.05, 0.1]])


def warped() -> WarpGrid:
    g = torch.Generator().manual_seed(0)
    return WarpGrid(
        BOX, 0.006 * torch.randn(2, 5, 6, 7, 4, generator=g),
        FINE, 0.002 * torch.randn(2, 8, 7, 9, 4, generator=g),
    )  # fmt: skip


def on(device, lattices):
    return [(box.to(device), nodes.to(device)) for box, nodes in lattices]


def test_warps_are_inverted(device):
    grid = warped()
    found = rays.invert(on(device, grid.lattices()))
    for ours, theirs in zip(found, reference.invert(grid.lattices()), strict=True):
        assert (ours.cpu()[..., :3] - theirs[..., :3]).abs().max() < 2e-5
    points = 0.5 * torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) - 0.25
    frames = torch.arange(200, dtype=torch.int32) % 2
    inverse = grid.inverse.lattices()
    ours = rays.displace(points.to(device), frames.to(device), on(device, inverse))
    assert (ours.cpu() - reference.displace(points, frames, inverse)).abs().max() < 1e-6


def ball() -> Occupancy:
    occupancy = Occupancy.full(BOX, 16)
    away = occupancy.points(torch.arange(16**3)).norm(dim=-1)
    occupancy.update((away < 0.12).float() * 100)
    return occupancy


def test_samples_are_those_of_torch(device):
    grid, occupancy = warped(), ball()
    g = torch.Generator().manual_seed(0)
    origins = torch.tensor([0.1, 0.2, 1.0]).expand(300, 3).contiguous()
    target = (torch.rand(300, 3, generator=g) - 0.5) * 0.4
    directions = torch.nn.functional.normalize(target - origins, dim=-1)
    directions[5] = float("nan")
    frames = torch.randint(0, 2, (300,), generator=g, dtype=torch.int32)
    jitter = torch.rand(300, generator=g)
    inverse, mask = grid.inverse.lattices(), posed_mask(occupancy, grid)
    limits = torch.full((300,), 0.9), torch.full((300,), 1.1)
    for lattices, skip, cut, most in (
        (inverse, mask, None, 10**6), (inverse, None, limits, 10**6), ([], None, None, 2000),
    ):  # fmt: skip
        inputs = (origins, directions, frames, lattices, BOX, 16, occupancy.bits, skip, 0.005,
                  jitter, cut, most)  # fmt: skip

        def move(v):
            if isinstance(v, torch.Tensor):
                return v.to(device)
            return tuple(w.to(device) for w in v) if isinstance(v, tuple) else v

        moved = [on(device, v) if isinstance(v, list) else move(v) for v in inputs]
        points, t, ray, marched = rays.march(*moved)
        expected = reference.march(*inputs)
        assert len(t) > 1000
        assert marched == expected[3]
        assert ray.cpu().equal(expected[2])
        assert (points.cpu() - expected[0]).abs().max() < 1e-6
        assert (t.cpu() - expected[1]).abs().max() < 1e-6


def test_compositing_is_that_of_torch(device, relative_error):
    g = torch.Generator().manual_seed(0)
    origins = torch.tensor([0.1, 0.2, 1.0]).expand(150, 3).contiguous()
    target = (torch.rand(150, 3, generator=g) - 0.5) * 0.4
    directions = torch.nn.functional.normalize(target - origins, dim=-1)
    frames = torch.zeros(150, dtype=torch.int32)
    s = march(origins, directions, frames, None, ball(), 0.004)
    n = len(s)
    scale = torch.rand(150, generator=g)[s.rays.long()] ** 3 * 600
    inputs = [scale * torch.rand(n, generator=g), torch.rand(n, 3, generator=g),
              torch.randn(n, 2, generator=g)]  # fmt: skip
    inputs[0][3], inputs[0][40], inputs[1][70, 1] = float("nan"), float("inf"), float("nan")
    inputs[2][90, 0], inputs[0][100:110] = float("inf"), 0
    tensors = [*inputs, s.t, s.dt, s.offsets]
    leaves = [v.double().requires_grad_() for v in inputs]
    exact = reference.composite(*leaves, s.t.double(), s.dt.double(), s.offsets)
    moved = [v.to(device) for v in tensors]
    found = rays.composite(*moved)
    for ours, theirs in zip(found, exact, strict=True):
        assert ((ours.cpu() - theirs).abs() <= 2e-6 * theirs.abs().clamp(min=1)).all()
    v_outputs = [torch.randn(v.shape, generator=g) for v in found[:5]]
    loss = sum((v * w.double()).sum() for v, w in zip(exact, v_outputs, strict=False))
    truth = torch.autograd.grad(loss, leaves)
    grads = rays.composite_backward(moved, [v.to(device) for v in v_outputs])
    for ours, theirs in zip(grads, truth, strict=True):
        assert relative_error(ours.cpu(), theirs) < 2e-5


def test_nothing_to_do(device):
    empty = [torch.empty(0), torch.empty(0, 3), torch.empty(0, 2), torch.empty(0), torch.empty(0)]
    offsets = torch.zeros(4, dtype=torch.int32)
    out = rays.composite(*(v.to(device) for v in (*empty, offsets)))
    assert [len(v) for v in out] == [3] * 5 + [0]
    assert all((v == 0).all() for v in out)
