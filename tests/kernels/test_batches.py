"""Several images in one call, and depth."""

from dataclasses import replace

import pytest
import torch

from avatar3d import kernels
from avatar3d.kernels import RasterStats, rasterize, rasterize_with_depth
from avatar3d.kernels._backend import native

NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmat", "background")


def batch_of(scenes, shared=()):
    """One scene whose tensors are those of several, stacked; the shared ones are the first's."""
    first = scenes[0]
    stacked = {
        name: torch.stack([getattr(s, name).detach() for s in scenes]).requires_grad_()
        for name in NAMES
        if name not in shared
    }
    kept = {name: getattr(first, name).detach().clone().requires_grad_() for name in shared}
    return replace(first, **stacked, **kept)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("image_background", [False, True])
def test_a_batch_is_its_images(make_scene, backend, image_background):
    scenes = [
        make_scene(40, 45, 37, seed, image_background=image_background).leaves(torch.float32)
        for seed in range(3)
    ]
    for scene in scenes:  # another intrinsic for each would do as well
        scene.K = scenes[0].K
    together = batch_of(scenes)
    image, alpha, depth = rasterize_with_depth(*together.arguments(), backend=backend)
    weight = torch.randn(3, 37, 45, 3, generator=torch.Generator().manual_seed(0))
    ((image * weight).sum() + alpha.square().sum() + depth.sum()).backward()
    for i, scene in enumerate(scenes):
        one, its_alpha, its_depth = rasterize_with_depth(*scene.arguments(), backend=backend)
        assert torch.equal(image[i], one)
        assert torch.equal(alpha[i], its_alpha)
        assert torch.equal(depth[i], its_depth)
        ((one * weight[i]).sum() + its_alpha.square().sum() + its_depth.sum()).backward()
        for name, gradient in scene.gradients().items():
            torch.testing.assert_close(
                getattr(together, name).grad[i], gradient, rtol=1e-5, atol=1e-6, msg=name
            )


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_what_images_share_gets_the_sum_of_their_gradients(make_scene, backend):
    scenes = [make_scene(30, 40, 33).leaves(torch.float32) for _ in range(4)]
    for i, scene in enumerate(scenes):
        with torch.no_grad():
            scene.viewmat[0, 3] += 0.1 * i
    together = batch_of(scenes, shared=[n for n in NAMES if n != "viewmat"])
    rasterize(*together.arguments(), backend=backend)[0].square().sum().backward()
    for scene in scenes:
        rasterize(*scene.arguments(), backend=backend)[0].square().sum().backward()
    for name, gradient in together.gradients().items():
        each = torch.stack([s.gradients()[name] for s in scenes])
        expected = each if name == "viewmat" else each.sum(0)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5, msg=name)


def test_statistics_of_a_batch(make_scene):
    scenes = [make_scene(20, 32, 32, seed).leaves(torch.float32) for seed in range(2)]
    scenes[1].K = scenes[0].K
    stats = RasterStats()
    image, _ = rasterize(*batch_of(scenes).arguments(), stats=stats)
    image.square().sum().backward()
    for i, scene in enumerate(scenes):
        own = RasterStats()
        rasterize(*scene.arguments(), stats=own)[0].square().sum().backward()
        assert torch.equal(stats.radii[i], own.radii)
        torch.testing.assert_close(stats.mean2d_grad[i], own.mean2d_grad, rtol=1e-5, atol=1e-6)


def test_depth_is_camera_z_blended_like_a_colour(make_scene):
    """Drawn as a colour, by the oracle, in every build; gradients too."""
    scene = make_scene(60, 50, 40, seed=4)
    truth = scene.leaves(torch.float64)
    z = truth.means @ truth.viewmat[2, :3] + truth.viewmat[2, 3]
    as_color = replace(truth, colors=z[:, None].expand(-1, 3), background=torch.zeros(3).double())
    expected = rasterize(*as_color.arguments(), backend="reference")[0][..., 0]
    expected.square().sum().backward()
    before = native().simd()
    try:
        for simd in native().simd_levels():
            native().set_simd(simd)
            leaves = scene.leaves(torch.float32)
            depth = rasterize_with_depth(*leaves.arguments(), backend="native")[2]
            assert (depth - expected).norm() <= 1e-5 * expected.norm(), simd
            depth.square().sum().backward()
            for name in ("means", "quats", "scales", "opacities", "viewmat"):
                slope = getattr(truth, name).grad
                error = (getattr(leaves, name).grad - slope).norm()
                assert error <= 1e-4 * slope.norm(), (simd, name)
    finally:
        native().set_simd(before)


@pytest.mark.parametrize("images", [1, 2, 5])
def test_bits_do_not_depend_on_threads(make_scene, images):
    """More Gaussians than one thread would sort alone, and depths that tie."""
    scene = make_scene(9000, 96, 80)
    scene.means[4000:8000] = scene.means[:4000]
    moved = [scene.viewmat + 0.01 * i * torch.eye(4)[:, [3, 0, 1, 2]] for i in range(images)]
    scene = replace(scene, viewmat=torch.stack(moved)).leaves(torch.float32)

    def solve(threads):
        kernels.set_num_threads(threads)
        for name in NAMES:
            getattr(scene, name).grad = None
        image, alpha, depth = rasterize_with_depth(*scene.arguments(), backend="native")
        (image.square().sum() + depth.sum()).backward()
        return [image, alpha, depth, *scene.gradients().values()]

    before = kernels.get_num_threads()
    try:
        alone = solve(1)
        for threads in (2, 3, 8):
            for one, many in zip(alone, solve(threads), strict=True):
                assert torch.equal(one, many)
    finally:
        kernels.set_num_threads(before)


def test_batches_that_do_not_fit_are_named(make_scene):
    a, b = (list(make_scene(5, 8, 8).arguments()) for _ in range(2))
    a[5] = torch.eye(4).expand(2, 4, 4)
    b[5], b[0] = torch.eye(4).expand(2, 4, 4), b[0].expand(3, 5, 3)
    rasterize(*a)
    with pytest.raises(ValueError, match=r"viewmat has shape \(2, 4, 4\), expected .* B = 3"):
        rasterize(*b)
    a[5] = torch.eye(4).expand(0, 4, 4)
    with pytest.raises(ValueError, match="the batch has no images"):
        rasterize(*a)
