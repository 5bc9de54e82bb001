"""Marching against lengths known from geometry, nerfacc, and its twin in torch."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from avatar3d import kernels
from avatar3d.kernels import Occupancy, WarpGrid, composite, march, near_far, posed_mask
from avatar3d.kernels import radiance_reference as reference

BOX = torch.tensor([[-0.2, -0.25, -0.2], [0.2, 0.25, 0.2]])
BACKENDS = ["native", "reference"]


def ball(radius: float = 0.15, resolution: int = 32, shell: float = 1.0) -> Occupancy:
    """Cells whose centre is at most `radius` away, and at least shell radii less."""
    occupancy = Occupancy.full(BOX, resolution)
    away = occupancy.points(torch.arange(resolution**3)).norm(dim=-1)
    inside = (away <= radius) & (away >= radius * (1 - shell))
    occupancy.update(inside.float() * 100)
    return occupancy


def camera(size: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    origin = normalize(torch.randn(3, generator=g), dim=0)
    target = (torch.rand(size * size, 3, generator=g) - 0.5) * 0.5
    frames = torch.zeros(size * size, dtype=torch.int32)
    return origin.expand(size * size, 3).contiguous(), normalize(target - origin, dim=-1), frames


def wave(frames: int = 2) -> WarpGrid:
    """A smooth warp by up to 15 mm, another for each frame."""
    z, y, x = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in (21, 26, 21)], indexing="ij")
    moves = [
        torch.stack([(2 * y + f).sin(), (2 * z + f).cos(), (2 * x - f).sin(), 0 * x], -1)
        for f in range(frames)
    ]
    return WarpGrid(BOX, 0.015 * torch.stack(moves) / 3**0.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_ball_of_fog_dims_by_its_chords(backend, simd, threads):
    """exp(-density chord), for a density that ends at the ball and rays that stop at 1e-4."""
    origins, directions, frames = camera(30)
    radius, sigma, step = 0.15, 10.0, 3e-4
    samples = march(origins, directions, frames, None, ball(0.2, 16), step, backend=backend)
    density = sigma * (samples.points.norm(dim=-1) <= radius).float()
    out = composite(density, torch.ones(len(samples), 3), samples, backend=backend)
    along = -(origins * directions).sum(-1)
    square = radius**2 - ((origins**2).sum(-1) - along**2)
    chord = 2 * square.clamp(min=0).sqrt()
    assert (chord > 0).sum() > 200
    # a chord begins and ends within a step
    assert ((out.alpha + torch.expm1(-sigma * chord)).abs() < sigma * step).all()
    assert (out.alpha + torch.expm1(-sigma * chord)).abs().mean() < 1e-4
    middle = out.depth / out.alpha.clamp(min=1e-9)
    assert (middle < along)[chord > 0.02].all()  # light comes from the nearer half


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_linear_slab_dims_by_its_integral(backend):
    """Density 200 z for z in [0, 0.2], through which rays go at an angle."""
    occupancy = Occupancy.full(BOX, 8)
    directions = normalize(torch.tensor([[0.0, 0, 1], [0.2, 0.1, 1], [-0.3, 0.3, 1]]), dim=-1)
    origins = torch.tensor([[0.0, 0, -1], [-0.15, -0.1, -1], [0.2, -0.3, -1]])
    frames = torch.zeros(3, dtype=torch.int32)
    samples = march(origins, directions, frames, None, occupancy, 5e-4, backend=backend)
    density = 200 * samples.points[:, 2].clamp(min=0)
    out = composite(density, torch.ones(len(samples), 3), samples, backend=backend)
    entry, leave = near_far(origins, directions, torch.tensor([[-0.2, -0.25, 0], [0.2, 0.25, 0.2]]))
    # along a ray z = d_z (t - entry), as all three enter through z = 0
    depth = 100 * directions[:, 2] * (leave - entry) ** 2
    # the last sample may reach half a step beyond the box
    assert (out.alpha + torch.expm1(-depth)).abs().max() < 1e-4 + 40 * 2.5e-4 * torch.exp(
        -depth
    ).max()


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_are_where_they_should_be(backend, simd, threads):
    """All of them, against the definition: every step of every ray, looked up one by one."""
    origins, directions, frames = camera(12, seed=3)
    occupancy = ball(0.14, 20, 0.2)
    jitter = torch.rand(144, generator=torch.Generator().manual_seed(2))
    step = 0.004
    samples = march(origins, directions, frames, None, occupancy, step, jitter, backend=backend)
    near, far = near_far(origins, directions, BOX)
    cells = occupancy.cells()
    expected = []
    for ray in range(144):
        t = near[ray] + (torch.arange(200) + jitter[ray]) * step
        t = t[t <= far[ray]]
        points = origins[ray] + t[:, None] * directions[ray]
        place = ((points - BOX[0]) / ((BOX[1] - BOX[0]) / 20)).long().clamp(0, 19)
        hit = cells[place[:, 2], place[:, 1], place[:, 0]]
        expected += [(ray, float(v)) for v in t[hit]]
        assert samples.offsets[ray + 1] == len(expected)
    assert len(expected) > 500
    assert samples.rays.tolist() == [ray for ray, _ in expected]
    assert (samples.t - torch.tensor([t for _, t in expected])).abs().max() < 1e-6
    there = origins[samples.rays.long()] + samples.t[:, None] * directions[samples.rays.long()]
    assert (samples.points - there).abs().max() < 1e-6
    assert (samples.dt == torch.tensor(step)).all()
    assert samples.marched == 144


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_native_samples_are_those_of_torch(masked, seed, simd, threads):
    warp, occupancy = wave(), ball(0.12, 32, 0.2)
    origins, directions, _ = camera(30, seed)
    g = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 2, (900,), generator=g, dtype=torch.int32)
    jitter = torch.rand(900, generator=g)
    mask = posed_mask(occupancy, warp) if masked else None
    ours, theirs = (
        march(
            origins, directions, frames, warp, occupancy, 0.003, jitter, mask=mask, backend=b
        )
        for b in BACKENDS
    )  # fmt: skip
    assert len(ours) > 3000
    # the two may round a point at the border of a cell to different sides
    assert abs(len(ours) - len(theirs)) <= 2
    same = ours.offsets.diff() == theirs.offsets.diff()
    assert (~same).sum() <= 2
    for name, tolerance in (("points", 1e-6), ("t", 1e-6)):
        a, b = (getattr(s, name)[same[s.rays.long()]] for s in (ours, theirs))
        assert (a - b).abs().max() < tolerance


def test_the_mask_loses_no_sample(simd, threads):
    warp, occupancy = wave(3), ball(0.12, 32, 0.1)
    mask = posed_mask(occupancy, warp)
    expected = posed_mask(occupancy, warp, backend="reference")
    cells = [reference.unpack_bits(m, 32) for m in (mask, expected)]
    assert (cells[0] != cells[1]).sum() <= 3  # rounding at the border of a cell
    assert cells[0].float().mean() < 0.2
    origins, directions, _ = camera(30)
    frames = torch.arange(900, dtype=torch.int32) % 3
    with_mask = march(origins, directions, frames, warp, occupancy, 0.003, mask=mask)
    without = march(origins, directions, frames, warp, occupancy, 0.003)
    assert with_mask.t.equal(without.t)
    assert with_mask.points.equal(without.points)


@pytest.mark.parametrize("backend", BACKENDS)
def test_limits_cut_samples_off(backend):
    origins, directions, frames = camera(20)
    arguments = (origins, directions, frames, None, ball(), 0.003)
    whole = march(*arguments, backend=backend)
    first, last = torch.full((400,), 0.95), torch.full((400,), 1.1)
    cut = march(*arguments, limits=(first, last), backend=backend)
    keep = (whole.t >= 0.95) & (whole.t <= 1.1)
    assert 0 < len(cut) < len(whole)
    assert cut.t.equal(whole.t[keep])
    assert cut.points.equal(whole.points[keep])


@pytest.mark.parametrize("backend", BACKENDS)
def test_rays_that_do_not_fit_are_left_out(backend):
    arguments = (*camera(20), None, ball(), 0.003)
    whole = march(*arguments, backend=backend)
    some = march(*arguments, max_samples=1000, backend=backend)
    assert some.marched < 400
    assert 900 < len(some) <= 1000
    assert whole.offsets[some.marched + 1] > 1000
    assert some.offsets[: some.marched + 1].equal(whole.offsets[: some.marched + 1])
    assert (some.offsets[some.marched :] == len(some)).all()
    assert some.t.equal(whole.t[: len(some)])


def test_points_move_with_their_rays():
    origins, directions, frames = camera(6)
    origins.requires_grad_(), directions.requires_grad_()
    samples = march(origins, directions, frames, wave(1), ball(), 0.004)
    pull = torch.randn(len(samples), 3, generator=torch.Generator().manual_seed(0))
    (samples.points * pull).sum().backward()
    rays = samples.rays.long()
    by_origin = torch.zeros_like(origins).index_add(0, rays, pull)
    by_direction = torch.zeros_like(origins).index_add(0, rays, samples.t[:, None] * pull)
    assert torch.allclose(origins.grad, by_origin, atol=1e-5)
    assert torch.allclose(directions.grad, by_direction, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # nerfacc's own
def test_near_and_far_are_nerfaccs():
    nerfacc = pytest.importorskip("nerfacc", reason="nerfacc is not installed: pip install nerfacc")
    from nerfacc.grid import _ray_aabb_intersect

    assert nerfacc.__version__
    origins, directions, _ = camera(30)
    near, far, hit = _ray_aabb_intersect(origins, directions, BOX.view(1, 6), 0.0)
    ours = near_far(origins, directions, BOX)
    hit = hit[:, 0]
    assert (ours[1] > ours[0]).equal(hit)
    assert 100 < hit.sum() < 900
    assert (ours[0] - near[:, 0])[hit].abs().max() < 1e-6
    assert (ours[1] - far[:, 0])[hit].abs().max() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_odd_rays(backend, simd):
    """Parallel to faces inside and outside, from inside, backwards, of no direction, poisoned."""
    nan, inf = float("nan"), float("inf")
    rays = {
        "parallel inside": ([-1, 0.1, 0.1], [1, 0, 0], 0.4),
        "parallel outside": ([-1, 0.3, 0.1], [1, 0, 0], 0),
        "on an edge": ([-1, 0.25, 0.2], [1, 0, 0], None),
        "from inside": ([0, 0, 0], [0, 1, 0], 0.25),
        "backwards": ([0, 0, 1], [0, 0, 1], 0),
        "no direction": ([0, 0, 0], [0, 0, 0], 0),
        "nan origin": ([0, nan, 1], [0, 0, -1], 0),
        "nan direction": ([0, 0, 1], [0, nan, -1], 0),
        "infinite origin": ([0, 0, inf], [0, 0, -1], 0),
        "infinite direction": ([0, 0, 1], [0, 0, -inf], 0),
        "far away": ([0, 0, 1e20], [0, 0, -1], 0),
        "by a corner": ([-1.2, 0.25, 0.2], normalize(torch.tensor([1.0, 1e-9, 0]), dim=0), None),
    }
    origins = torch.tensor([o for o, _, _ in rays.values()])
    directions = torch.stack([torch.as_tensor(d).float() for _, d, _ in rays.values()])
    frames = torch.zeros(len(rays), dtype=torch.int32)
    occupancy = Occupancy.full(BOX, 16)
    samples = march(origins, directions, frames, None, occupancy, 0.01, backend=backend)
    for (name, (_, _, length)), n in zip(rays.items(), samples.offsets.diff(), strict=True):
        if length is not None:
            assert abs(int(n) - length / 0.01) <= 1, name
    assert samples.points.isfinite().all()
    poisoned = torch.full((len(rays),), nan)
    assert (
        len(march(origins, directions, frames, None, occupancy, 0.01, poisoned, backend=backend))
        == 0
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_march(backend):
    empty = ball(0.0)
    assert empty.occupied_fraction == 0
    samples = march(*camera(5), None, empty, 0.003, backend=backend)
    assert len(samples) == 0
    assert (samples.offsets == 0).all()
    warp = wave(1)
    mask = posed_mask(empty, warp, backend=backend)
    assert (mask == 0).all()
    assert len(march(*camera(5), warp, empty, 0.003, mask=mask, backend=backend)) == 0
    nothing = torch.empty(0, 3), torch.empty(0, 3), torch.empty(0, dtype=torch.int32)
    samples = march(*nothing, None, ball(), 0.003, backend=backend)
    assert samples.offsets.tolist() == [0]
    out = composite(torch.empty(0), torch.empty(0, 3), samples, backend=backend)
    assert out.color.shape == (0, 3)


def test_bits_do_not_depend_on_threads(simd):
    warp, occupancy = wave(1), ball()
    results = []
    before = kernels.get_num_threads()
    for threads in (1, 2, 5):
        kernels.set_num_threads(threads)
        mask = posed_mask(occupancy, warp)
        s = march(*camera(30), warp, occupancy, 0.003, mask=mask)
        results.append([mask, s.points, s.t, s.offsets, s.rays])
    kernels.set_num_threads(before)
    assert all(a.equal(b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_wrong_arguments_are_named():
    origins, directions, frames = camera(4)
    occupancy = ball()
    with pytest.raises(ValueError, match="directions has shape"):
        march(origins, directions[1:], frames, None, occupancy, 0.003)
    with pytest.raises(ValueError, match=r"frames is torch\.int64"):
        march(origins, directions, frames.long(), None, occupancy, 0.003)
    with pytest.raises(ValueError, match="frames has numbers outside"):
        march(origins, directions, frames + 7, wave(1), occupancy, 0.003)
    for step in (0.0, -1.0, float("nan"), 1e-7):
        with pytest.raises(ValueError, match="step is"):
            march(origins, directions, frames, None, occupancy, step)
    with pytest.raises(ValueError, match="mask is"):
        march(origins, directions, frames, wave(2), occupancy, 0.003, mask=occupancy.bits[None])
    with pytest.raises(ValueError, match="mask is given without a warp"):
        march(origins, directions, frames, None, occupancy, 0.003, mask=occupancy.bits[None])
    with pytest.raises(ValueError, match="multiple of 4"):
        Occupancy.full(BOX, 30)
    with pytest.raises(ValueError, match="bits is"):
        replace(occupancy, bits=occupancy.bits[1:])


def test_occupancy_follows_the_field():
    g = torch.Generator().manual_seed(0)
    occupancy = Occupancy.full(BOX, 16)
    assert occupancy.occupied_fraction == 1
    cells = torch.randperm(4096, generator=g)[:3000]
    low = (
        BOX[0]
        + (BOX[1] - BOX[0]) * torch.stack([cells % 16, cells // 16 % 16, cells // 256], -1) / 16
    )
    points = occupancy.points(cells, g)
    assert ((points >= low - 1e-6) & (points <= low + (BOX[1] - BOX[0]) / 16 + 1e-6)).all()
    density = torch.zeros(3000)
    density[:100] = 50
    density[7] = float("nan")
    occupancy.update(density, cells)
    assert occupancy.cells().flatten().nonzero()[:, 0].equal(cells[:100].sort().values)
    assert reference.bit_set(points, BOX, 16, occupancy.bits)[:100].all()
    for _ in range(200):
        occupancy.update(torch.full((3000,), 1e-3), cells, decay=0.9)
    assert occupancy.cells().flatten()[cells[100]] == 0
    occupancy.update(torch.zeros(4096), decay=0.0)
    assert occupancy.occupied_fraction == 0


def test_packing_is_undone():
    g = torch.Generator().manual_seed(0)
    cells = torch.rand(3, 12, 12, 12, generator=g) < 0.3
    bits = reference.pack_bits(cells)
    assert bits.shape == (3, 216)
    assert reference.unpack_bits(bits, 12).equal(cells)
    one = torch.zeros(8, 8, 8, dtype=torch.bool)
    one[5, 2, 7] = True  # z y x: brick (1, 0, 1), cell (3, 2, 1) of it, bit 16 + 8 + 3
    assert reference.pack_bits(one).nonzero()[:, 0].tolist() == [5 * 8 + 3]
    assert reference.pack_bits(one)[43] == 1 << 3
