"""Our projection against gsplat's own torch functions, which run on the CPU."""

import pytest
import torch

from avatar3d.kernels import RasterStats, rasterize, reference


@pytest.fixture(scope="module")
def gsplat():
    return pytest.importorskip("gsplat.cuda._torch_impl", reason="gsplat is not installed")


@pytest.mark.parametrize("seed", range(3))
def test_the_reference_projects_like_gsplat(gsplat, seed, make_scene):
    s = make_scene(200, 64, 48, seed).leaves(torch.float64)
    s.means.data[::2] *= 4  # some far outside, where the Jacobian is clamped
    covariances, _ = gsplat._quat_scale_to_covar_preci(s.quats, s.scales, True, False)
    _, centers, depths, conics, _ = gsplat._fully_fused_projection(
        s.means, covariances, s.viewmat[None], s.K[None], s.width, s.height
    )
    ours = reference.project(s.means, s.quats, s.scales, s.viewmat, s.K, s.width, s.height)
    inverse = torch.linalg.inv(ours[1])
    assert torch.allclose(ours[0], centers[0], rtol=1e-9, atol=1e-9)
    assert torch.allclose(ours[2], depths[0], rtol=1e-9)
    upper = torch.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], -1)
    assert torch.allclose(upper, conics[0], rtol=1e-7, atol=1e-10)

    g = torch.Generator().manual_seed(seed)
    weights = [torch.randn(t.shape, generator=g).double() for t in (centers, conics)]
    loss = (centers * weights[0]).sum() + (conics * weights[1]).sum()
    theirs = torch.autograd.grad(loss, (s.means, s.quats, s.scales, s.viewmat))
    loss = (ours[0] * weights[0][0]).sum() + (upper * weights[1][0]).sum()
    mine = torch.autograd.grad(loss, (s.means, s.quats, s.scales, s.viewmat))
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8 * float(b.abs().max()))


def test_the_native_kernel_draws_what_gsplat_projects(gsplat, simd, make_scene):
    """One Gaussian at a time, its alpha compared with gsplat's centre and conic."""
    scene = make_scene(40, 64, 48, 3)
    covariances, _ = gsplat._quat_scale_to_covar_preci(
        scene.quats.double(), scene.scales.double(), True, False
    )
    radii, centers, _, conics, _ = gsplat._fully_fused_projection(
        scene.means.double(),
        covariances,
        scene.viewmat.double()[None],
        scene.K.double()[None],
        64,
        48,
    )
    y, x = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    compared = 0
    for i in range(40):
        stats = RasterStats()
        one = slice(i, i + 1)
        _, alpha = rasterize(
            scene.means[one], scene.quats[one], scene.scales[one], torch.tensor([0.9]),
            scene.colors[one], scene.viewmat, scene.K, 64, 48, stats=stats, backend="native",
        )  # fmt: skip
        dx, dy = x - centers[0, i, 0], y - centers[0, i, 1]
        a, b, c = conics[0, i]
        expected = 0.9 * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
        steady = (expected * 255 - 1).abs() > 1e-3
        expected = torch.where(expected >= 1 / 255, expected, 0)
        assert ((alpha - expected).abs() * steady).max() < 2e-6
        # gsplat rounds 3.33 sigma up; ours is where alpha reaches 1/255
        assert stats.radii[0] <= radii[0, i].max() or radii[0, i].max() == 0
        compared += bool(alpha.any())
    assert compared > 20
