"""gsplat behind our operator. Its kernels need a GPU; here they are replaced by gsplat's own torch
projection and a dense blend, and everything around them is gsplat's."""

import inspect

import pytest
import torch
from torch import Tensor

from avatar3d.kernels import RasterStats, _backend, gsplat_backend, rasterize, rasterize_with_depth

rendering = pytest.importorskip("gsplat.rendering", reason="gsplat is not installed")
torch_impl = pytest.importorskip("gsplat.cuda._torch_impl")


@pytest.fixture
def without_cuda(monkeypatch):
    """gsplat.rasterization with torch in the place of its kernels."""
    depths_of_images: list[Tensor] = []

    def projection(means, covars, quats, scales, viewmats, Ks, width, height, **options):
        covars, _ = torch_impl._quat_scale_to_covar_preci(quats, scales, True, False)
        assert not options["packed"]
        assert options["opacities"] is not None
        known = ("eps2d", "near_plane", "far_plane", "calc_compensations", "camera_model")
        return torch_impl._fully_fused_projection(
            means, covars, viewmats, Ks, width, height, **{k: options[k] for k in known}
        )

    def isect_tiles(means2d, radii, depths, *sizes, **options):
        visible = (radii > 0).all(-1)
        depths_of_images[:] = [torch.where(visible, depths, torch.inf).flatten(0, -2)]
        return torch.zeros(1), torch.zeros(1), torch.zeros(1)

    def offsets(ids, images, tile_width, tile_height):
        return torch.zeros(images, tile_height, tile_width)

    def blend(means2d, conics, colors, opacities, width, height, *rest, absgrad, **options):
        batch = means2d.shape[:-2]
        flat = (t.flatten(0, len(batch) - 1) for t in (means2d, conics, colors, opacities))
        drawn, probes = [], []
        for *image, depths in zip(*flat, depths_of_images[0], strict=True):
            probe = torch.zeros_like(image[0]).requires_grad_()
            drawn.append(dense_blend(*image, depths, probe, width, height))
            probes.append(probe)
        if absgrad and means2d.requires_grad:
            # an attribute of the tensor it is given, set by the backward, as gsplat does it
            probes[-1].register_hook(
                lambda last: setattr(
                    means2d, "absgrad", torch.stack([p.grad for p in probes[:-1]] + [last])
                )
            )
        image, alpha = (
            torch.stack(t).reshape(*batch, height, width, -1) for t in zip(*drawn, strict=True)
        )
        return image, alpha

    for name, twin in (
        ("fully_fused_projection", projection),
        ("isect_tiles", isect_tiles),
        ("isect_offset_encode", offsets),
        ("rasterize_to_pixels", blend),
    ):
        signature = inspect.signature(getattr(rendering, name))

        def checked(*args, _twin=twin, _signature=signature, **kwargs):
            _signature.bind(*args, **kwargs)  # what gsplat's own function would accept
            return _twin(*args, **kwargs)

        monkeypatch.setattr(rendering, name, checked)


class Offsets(torch.autograd.Function):
    """pixels - centers, (N, P, 2); the backward also sums absolute gradients into a probe."""

    @staticmethod
    def forward(ctx, pixels, centers, probe):
        return pixels - centers[:, None]

    @staticmethod
    def backward(ctx, grad):
        return None, -grad.sum(1), grad.abs().sum(1)


def dense_blend(centers, conics, colors, opacities, depths, probe, width, height):
    """Every Gaussian at every pixel, by the rules of gsplat's kernel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([x, y], -1).reshape(-1, 2).to(centers) + 0.5
    d = Offsets.apply(pixels, centers, probe)
    a, b, c = conics[:, None].unbind(-1)
    sigma = 0.5 * (a * d[..., 0] ** 2 + c * d[..., 1] ** 2) + b * d[..., 0] * d[..., 1]
    alpha = (opacities[:, None] * torch.exp(-sigma)).clamp(max=0.999)
    order = depths.argsort(stable=True)
    alpha, colors = alpha[order], colors[order]
    alpha = alpha * (alpha >= 1 / 255) * (depths[order] < torch.inf)[:, None]
    after = torch.cumprod(1 - alpha, 0)
    alpha = alpha * ~(after.detach() <= 1e-4).cummax(0).values
    left = torch.cumprod(torch.cat([torch.ones_like(alpha[:1]), 1 - alpha]), 0)
    image = (alpha * left[:-1]).T @ colors
    return image, 1 - left[-1]


def draw(scene, width, height, stats=None):
    return gsplat_backend.rasterize(*scene, width, height, depth=True, absgrad=stats is not None)


@pytest.mark.parametrize("image_background", [False, True])
def test_draws_what_our_reference_draws(without_cuda, make_scene, image_background):
    scene = make_scene(60, 40, 28, 1, image_background=image_background)
    ours, theirs = scene.leaves(torch.float64), scene.leaves(torch.float64)
    stats = RasterStats()
    expected = rasterize_with_depth(*ours.arguments(), stats=stats, backend="reference")
    *tensors, width, height, background = theirs.arguments()
    drawn = draw([t[None] for t in (*tensors, background)], width, height, stats)
    g = torch.Generator().manual_seed(0)
    v = [torch.randn(t.shape, generator=g).double() for t in expected]
    torch.autograd.backward(expected, v)
    found = [drawn.image[0], drawn.alpha[0], drawn.depth[0]]
    torch.autograd.backward(found, v)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-9)
    for name, gradient in ours.gradients().items():
        other = theirs.gradients()[name]
        assert torch.allclose(other, gradient, rtol=1e-6, atol=1e-7 * gradient.abs().max()), name
    absgrad = torch.linalg.vector_norm(drawn.means2d.absgrad, dim=-1).reshape(-1)
    assert torch.allclose(absgrad, stats.mean2d_grad, rtol=1e-6, atol=1e-9)
    # gsplat rounds the box up, and without a GPU takes it for opacity 1.
    assert (drawn.radii[0] >= stats.radii).all()


def test_batches_of_frames_and_of_cameras(without_cuda, make_scene):
    scenes = [make_scene(30, 24, 20, seed) for seed in range(3)]
    width, height = 24, 20
    *tensors, _, _, _ = scenes[0].arguments()
    means = torch.stack([s.means for s in scenes])
    viewmats = torch.stack([s.viewmat for s in scenes])
    viewmats[1, 0, 3] += 0.2
    backgrounds = torch.rand(3, 3)
    for own_means in (means, means[:1]):
        scene = [own_means, *(t[None] for t in tensors[1:5]), viewmats, tensors[6][None]]
        drawn = draw([*scene, backgrounds], width, height)
        for i in range(3):
            one = [t[min(i, len(t) - 1)] for t in scene]
            image, alpha = rasterize(*one, width, height, backgrounds[i], backend="reference")
            assert torch.allclose(drawn.image[i], image, atol=1e-5)
            assert torch.allclose(drawn.alpha[i], alpha, atol=1e-5)
        assert drawn.radii.shape == (3, 30)


def test_poison_is_not_drawn(without_cuda, make_scene):
    scene = make_scene(40, 24, 20).leaves(torch.float32)
    for name, row, value in (
        ("means", 0, torch.nan), ("means", 1, torch.inf), ("quats", 2, torch.nan),
        ("scales", 3, torch.inf), ("scales", 4, 1e30), ("opacities", 5, torch.nan),
        ("colors", 6, torch.nan), ("quats", 7, 0.0), ("scales", 8, -torch.inf),
    ):  # fmt: skip
        getattr(scene, name).data[row] = value
    *tensors, width, height, background = scene.arguments()
    drawn = draw([t[None] for t in (*tensors, background)], width, height)
    image, alpha = rasterize(*scene.arguments(), backend="reference")
    assert torch.allclose(drawn.image[0], image, atol=1e-5)
    assert torch.allclose(drawn.alpha[0], alpha, atol=1e-5)
    drawn.image.sum().backward()
    for name, gradient in scene.gradients().items():
        assert gradient.isfinite().all(), name
    assert (scene.means.grad[[0, 1, 2, 3, 4, 5, 6, 8]] == 0).all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_reason_is_told():
    assert gsplat_backend.unusable() == "torch sees no CUDA GPU"


def test_without_gsplat_the_cpu_draws_after_one_warning(monkeypatch, make_scene):
    """A CPU tensor that says it is on a GPU; the copies then change nothing."""
    scene = make_scene(50, 32, 24).leaves(torch.float32)
    expected, _ = rasterize(*scene.arguments())
    monkeypatch.setattr(gsplat_backend, "unusable", lambda: "gsplat is not installed")
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: self is scene.means))
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: self.clone())
    _backend.warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="gsplat is not installed.*drawn by the CPU"):
        image, _ = rasterize(*scene.arguments())
    assert torch.equal(image, expected)
    image.sum().backward()
    assert all(gradient is not None for gradient in scene.gradients().values())
    with pytest.raises(RuntimeError, match="gsplat is not installed"):
        rasterize(*scene.arguments(), backend="native")
    _backend.warn_once.cache_clear()
