"""The fused renderer against march, field and composite one after the other."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from avatar3d import kernels
from avatar3d.kernels import (
    FieldWeights,
    HashGrid,
    Occupancy,
    WarpGrid,
    posed_mask,
    render_rays,
)

BOX = torch.tensor([[-0.2, -0.2, -0.2], [0.2, 0.2, 0.2]])
GROUPS = 3


def scene(frames: int = 2, rays: int = 500) -> tuple[tuple, FieldWeights, Tensor]:
    """Rays at a ball of a random field under a random warp."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float) -> Tensor:
        return scale * torch.randn(*shape, generator=g)

    grid = HashGrid(levels=8, features=2, log2_size=12, base=8, finest=64)
    attention = HashGrid(levels=1, features=GROUPS, log2_size=12, base=12, finest=12)
    weights = [normal(32, 16, scale=0.3), normal(32, 32, scale=0.2), normal(4, 32, scale=0.2)]
    field = FieldWeights(
        BOX[0].clone(), 0.4, grid, normal(grid.entries, 2, scale=0.5), attention,
        normal(attention.entries, GROUPS, scale=1), weights,
        [normal(n, scale=0.1) for n in (32, 32, 4)], log_density=4.0,
    )  # fmt: skip
    occupancy = Occupancy.full(BOX, 32)
    away = occupancy.points(torch.arange(32**3)).norm(dim=-1)
    occupancy.update((away < 0.13).float() * 100)
    warp = WarpGrid(BOX, normal(frames, 6, 6, 6, 4, scale=0.003))
    origin = torch.tensor([0.1, 0.1, 1.0]).expand(rays, 3).contiguous()
    target = (torch.rand(rays, 3, generator=g) - 0.5) * 0.4
    which = torch.randint(0, frames, (rays,), generator=g, dtype=torch.int32)
    directions = normalize(target - origin, dim=-1)
    return (
        (origin, directions, which, warp, occupancy, 0.004),
        field,
        normal(frames, GROUPS, 32, scale=0.3),
    )


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("log_density", [2.0, 4.0, 7.0])
def test_pictures_are_those_of_the_parts(log_density, masked, alike, simd, threads):
    rays, field, vectors = scene()
    field = replace(field, log_density=log_density)
    vectors = vectors[:1] if alike else vectors
    mask = posed_mask(rays[4], rays[3]) if masked else None
    found = render_rays(*rays, field, vectors, mask=mask, backend="native")
    truth = render_rays(*rays, field, vectors, mask=mask, backend="reference")
    assert 0.05 < truth.alpha.mean() < 0.95
    for ours, theirs in zip(found, truth, strict=True):
        # a step at the border of a cell may fall to either side
        apart = (ours - theirs).abs().reshape(len(ours), -1).amax(1) > 1e-4
        assert apart.sum() <= 2


def test_what_is_opaque_hides_no_more_than_was_asked_for(simd):
    rays, field, vectors = scene()
    field = replace(field, log_density=7.0)
    everything = render_rays(*rays, field, vectors, backend="reference")
    truth = render_rays(*rays, field, vectors, opaque=0.05, backend="reference")
    found = render_rays(*rays, field, vectors, opaque=0.05, backend="native")
    apart = (found.color - truth.color).abs().amax(1) > 1e-4
    assert apart.sum() <= 2
    missing = everything.alpha - found.alpha
    assert 0.005 < missing.max() <= 0.05
    with pytest.raises(ValueError, match="opaque is 1"):
        render_rays(*rays, field, vectors, opaque=1.0)


def test_without_a_warp_and_with_limits(simd):
    rays, field, vectors = scene()
    still = (*rays[:3], None, *rays[4:])
    limits = torch.full((500,), 0.8), torch.full((500,), 1.0)
    found = render_rays(*still, field, vectors[:1], limits=limits, backend="native")
    truth = render_rays(*still, field, vectors[:1], limits=limits, backend="reference")
    apart = (found.color - truth.color).abs().amax(1) > 1e-4
    assert apart.sum() <= 2
    assert (truth.alpha > 0.1).sum() > 100


def test_bits_do_not_depend_on_threads(simd):
    rays, field, vectors = scene()
    before = kernels.get_num_threads()
    results = []
    for threads in (1, 2, 5):
        kernels.set_num_threads(threads)
        results.append(render_rays(*rays, field, vectors))
    kernels.set_num_threads(before)
    assert all(a.equal(b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_poison_is_transparent(backend):
    rays, field, vectors = scene()
    nan = torch.full_like(field.table, float("nan"))
    out = render_rays(*rays, replace(field, table=nan), vectors, backend=backend)
    assert all((v == 0).all() for v in out)
    poisoned = vectors.clone()
    poisoned[1, 0, 3] = float("nan")
    out = render_rays(*rays, field, poisoned, backend=backend)
    clean = render_rays(*rays, field, vectors, backend=backend)
    assert out.color[rays[2] == 0].equal(clean.color[rays[2] == 0])
    assert (out.alpha[rays[2] == 1] == 0).all()


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_nothing_to_render(backend):
    rays, field, vectors = scene(rays=0)
    out = render_rays(*rays, field, vectors, backend=backend)
    assert [tuple(v.shape) for v in out] == [(0, 3), (0,), (0,), (0, GROUPS)]
    rays, field, vectors = scene()
    rays[4].update(torch.zeros(32**3), decay=0.0)
    out = render_rays(*rays, field, vectors, backend=backend)
    assert all((v == 0).all() for v in out)


def test_wrong_arguments_are_named():
    rays, field, vectors = scene()
    with pytest.raises(ValueError, match="vectors are of 2 frames"):
        render_rays(*rays[:3], None, *rays[4:], field, vectors)
    with pytest.raises(ValueError, match="vectors has shape"):
        render_rays(*rays, field, vectors[:, 1:])
    fewer = replace(field, table=field.attention, grid=field.attention_grid)
    with pytest.raises(ValueError, match="weights has 512 values"):
        render_rays(*rays, fewer, vectors)
