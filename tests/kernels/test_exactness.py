"""Every build on several threads against the float64 dense oracle, on scenes that hypothesis finds.

Pixels where rounding may decide about a Gaussian (see `steady_pixels`) are left out of the loss.
"""

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avatar3d import kernels
from avatar3d.kernels import rasterize, rasterize_with_depth
from avatar3d.kernels._backend import native

FORWARD, GRADIENT = 2e-6, 1e-4  # relative, L2 norm
TINY = 1e-5  # absolute, for what is next to nothing


def scenes(make_scene: Any) -> st.SearchStrategy[Any]:
    return st.builds(
        make_scene,
        st.integers(1, 40),
        st.integers(1, 72),
        st.integers(1, 72),
        st.integers(0, 10_000),
        image_background=st.booleans(),
    )


def solve(scene: Any, steady: Tensor, backend: str, dtype: torch.dtype) -> tuple[Tensor, Any]:
    """Image and alpha where steady, and gradients of a random linear loss over them."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(scene.height, scene.width, 4, generator=generator).to(dtype)
    leaves = scene.leaves(dtype)
    image, alpha = rasterize(*leaves.arguments(), backend=backend)
    picture = torch.cat([image, alpha[..., None]], -1) * steady[..., None]
    (picture * weight).sum().backward()
    return picture.detach(), leaves.gradients()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_build_agrees_with_the_oracle(data, make_scene, steady_pixels):
    scene = data.draw(scenes(make_scene))
    steady = steady_pixels(scene)
    truth, slopes = solve(scene, steady, "reference", torch.float64)
    before = native().simd(), kernels.get_num_threads()
    try:
        for simd in native().simd_levels():
            native().set_simd(simd)
            kernels.set_num_threads(data.draw(st.integers(1, 5)))
            picture, gradients = solve(scene, steady, "native", torch.float32)
            assert (picture - truth).norm() <= FORWARD * truth.norm() + TINY, simd
            for name, gradient in gradients.items():
                error = (gradient - slopes[name]).norm()
                assert error <= GRADIENT * slopes[name].norm() + TINY, (simd, name)
    finally:
        native().set_simd(before[0])
        kernels.set_num_threads(before[1])


def test_depth_is_that_of_one_gaussian(simd, threads):
    """A lone Gaussian at camera z = 3: blended depth is 3 alpha, for any focal length."""
    K = torch.tensor([[40.0, 0, 20], [0, 40, 16], [0, 0, 1]])
    viewmat = torch.eye(4)
    viewmat[2, 3] = 1.0
    _, alpha, depth = rasterize_with_depth(
        torch.tensor([[0.0, 0, 2]]), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.3),
        torch.tensor([0.9]), torch.rand(1, 3), viewmat, K, 40, 32, backend="native",
    )  # fmt: skip
    assert alpha.max() > 0.8
    assert torch.allclose(depth, 3 * alpha, atol=1e-6)


def test_a_large_picture_is_its_crops(simd, make_scene):
    """4096 x 2160, Gaussians up to the whole picture: a crop is the picture of a moved camera."""
    scene = make_scene(60, 4096, 2160, 7)
    side, x, y = 64, 1900, 1000
    # centres inside the crop, or the linearisation would be clamped in one picture alone
    generator = torch.Generator().manual_seed(0)
    pixels = torch.tensor([x, y]) + side * torch.rand(60, 2, generator=generator)
    focal, center = scene.K.diagonal()[:2], scene.K[:2, 2]
    scene.means[:, :2] = (pixels - center) / focal * scene.means[:, 2:]
    scene.viewmat = torch.eye(4)
    scene.scales[10:] *= 0.05
    scene.scales[0] = 2.0

    whole, crop = scene.leaves(torch.float32), scene.leaves(torch.float32)
    crop.K = scene.K.clone()
    crop.K[:2, 2] -= torch.tensor([x, y])
    crop.width = crop.height = side
    image, _ = rasterize(*whole.arguments(), backend="native")
    window = image[y : y + side, x : x + side]
    expected, _ = rasterize(*crop.arguments(), backend="native")
    weight = torch.randn(side, side, 3, generator=generator)
    (window * weight).sum().backward()
    (expected * weight).sum().backward()
    assert image.isfinite().all()
    assert (image - scene.background).abs().amax(-1).min() > 1e-3  # the large one reaches corners
    # pixel coordinates near 2000 are rounded to 1e-4
    assert (window - expected).abs().mean() < 1e-4
    for name in ("means", "scales", "opacities", "colors"):
        found, truth = getattr(whole, name).grad, getattr(crop, name).grad
        assert (found - truth).norm() < 2e-3 * truth.norm(), name
