"""Every operation fed with NaN, infinity, denormals and absurd numbers: no crash, no silent NaN."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avatar3d import kernels
from avatar3d.kernels import l1_ssim_loss, outer_adamw_, rasterize, rasterize_mesh, ssim
from avatar3d.kernels._backend import native

NAN, INF = float("nan"), float("inf")
DENORMAL = 1e-40
POISON = (NAN, INF, -INF, 0.0, -0.0, DENORMAL, -DENORMAL, 1e-20, -1.0, 1e10, -1e10, 1e30, 3e38)
ATTRIBUTES = ("position", "quat", "log_scale", "opacity", "color", "basis")
GAUSSIAN = ("means", "quats", "scales", "opacities", "colors")


def draw(scene: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    leaves = scene.leaves(torch.float32)
    image, alpha = rasterize(*leaves.arguments(), backend="native")
    (image.sum() + alpha.sum()).backward()
    return image.detach(), alpha.detach(), leaves.gradients()


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_poisoned_scenes_stay_finite(data, make_scene):
    """Any numbers anywhere in the Gaussians, in every build."""
    count = data.draw(st.integers(1, 20))
    scene = make_scene(count, *data.draw(st.sampled_from([(1, 1), (7, 50), (37, 21)])), 3)
    for name in data.draw(st.lists(st.sampled_from(GAUSSIAN), min_size=1, max_size=4)):
        flat = getattr(scene, name).view(-1)
        where = data.draw(st.lists(st.integers(0, len(flat) - 1), min_size=1, max_size=6))
        # a colour is legal at any size and overflows in the sum; that is the caller's
        values = POISON if name != "colors" else POISON[:-2]
        flat[where] = torch.tensor([data.draw(st.sampled_from(values)) for _ in where])
    before = native().simd()
    try:
        for simd in native().simd_levels():
            native().set_simd(simd)
            image, alpha, gradients = draw(scene)
            assert image.isfinite().all(), simd
            assert ((alpha >= 0) & (alpha <= 1)).all(), simd
            for name, gradient in gradients.items():
                assert gradient.isfinite().all(), (simd, name)
    finally:
        native().set_simd(before)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("image_background", [False, True])
@pytest.mark.parametrize("count", [0, 20])
def test_a_poisoned_background_is_an_error(value, image_background, count, simd, make_scene):
    """Its value would reach the picture wherever a pixel is not opaque."""
    scene = make_scene(count, 45, 70, image_background=image_background)
    scene.background[(-1,) * scene.background.ndim] = value
    with pytest.raises(ValueError, match="background is not finite"):
        rasterize(*scene.arguments(), backend="native")


@pytest.mark.parametrize("value", [NAN, INF, -INF, 0.0, 1e30, DENORMAL])
@pytest.mark.parametrize("place", ["rotation", "translation", "fx", "cy"])
def test_a_broken_camera_draws_nothing_or_something_finite(place, value, simd, make_scene):
    scene = make_scene(20, 33, 19)
    if place == "rotation":
        scene.viewmat[0, 0] = value
    elif place == "translation":
        scene.viewmat[2, 3] = value
    elif place == "fx":
        scene.K[0, 0] = value
    else:
        scene.K[1, 2] = value
    image, alpha, gradients = draw(scene)
    assert image.isfinite().all()
    assert ((alpha >= 0) & (alpha <= 1)).all()
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), name
    if value != value:
        assert not alpha.any()


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_poisoned_gaussian_leaves_shared_gradients_alone(name, simd, make_rig):
    """Posed and drawn: NaN in one Gaussian reaches neither the picture nor the head's pose."""
    K = torch.tensor([[40.0, 0, 16], [0, 40, 16], [0, 0, 1]])

    def solve(poison: float | None) -> tuple[Tensor, dict[str, Tensor]]:
        rig = make_rig(40, 30, 20, 4)
        rig.head[:3, 3] = rig.torso[:3, 3] = torch.tensor([0.0, 0, 0.8])
        if poison is None:
            rig.attributes.opacity[7] = -100.0  # the same Gaussian, not drawn
        else:
            getattr(rig.attributes, name)[7] = poison
        leaves = rig.leaves(torch.float32)
        image, _ = rasterize(*leaves.bind(), torch.eye(4), K, 32, 32)
        image.square().sum().backward()
        return image.detach(), leaves.gradients()

    clean, truth = solve(None)
    image, found = solve(NAN)
    assert clean.any()
    assert torch.equal(image, clean)
    for shared in ("vertices", "head", "torso", "weights"):
        error = (found[shared] - truth[shared]).norm()
        assert error <= 1e-5 * truth[shared].norm(), shared


@pytest.mark.parametrize("value", [NAN, INF, -INF, 3e38])
@pytest.mark.parametrize("name", ["image", "target", "weight"])
def test_a_poisoned_picture_is_an_error_that_names_it(name, value, simd):
    if (name, value) == ("weight", 3e38):
        value = INF  # large weights alone are legal
    pictures = {
        "image": torch.rand(40, 30, 3).requires_grad_(),
        "target": torch.rand(40, 30, 3),
        "weight": torch.rand(40, 30),
    }
    with torch.no_grad():
        pictures[name][20, 10] = value
    with pytest.raises(ValueError, match=f"{name} .* expected"):
        l1_ssim_loss(**pictures, backend="native")


@pytest.mark.parametrize("value", [0.0, DENORMAL, -1.0, 1e4, 1e8])
def test_odd_but_finite_pictures_have_a_finite_loss(value, simd):
    image = torch.rand(23, 31, 3)
    image[::3] = value
    image.requires_grad_()
    for target in (torch.rand(23, 31, 3), torch.full((23, 31, 3), value)):
        loss = l1_ssim_loss(image, target, backend="native")
        (gradient,) = torch.autograd.grad(loss, image)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_the_loss_of_a_large_picture_is_that_of_its_crop(simd):
    """2160 x 4096: with weight on a window alone, only what is around the window matters."""
    g = torch.Generator().manual_seed(0)
    image, target = (torch.rand(2160, 4096, 3, generator=g) for _ in range(2))
    weight = torch.zeros(2160, 4096)
    weight[1000:1060, 3000:3070] = torch.rand(60, 70, generator=g)
    around = np.s_[990:1070, 2990:3080]
    whole, crop = image.clone().requires_grad_(), image[around].clone().requires_grad_()
    loss = l1_ssim_loss(whole, target, weight, backend="native") * whole.numel()
    small = l1_ssim_loss(crop, target[around], weight[around], backend="native") * crop.numel()
    assert torch.allclose(loss, small, rtol=1e-5)
    loss.backward()
    small.backward()
    assert torch.allclose(whole.grad[around], crop.grad, rtol=1e-4, atol=1e-6)
    assert whole.grad.count_nonzero() == crop.grad.count_nonzero()


@pytest.mark.parametrize("value", POISON)
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_binding_keeps_poison_in_its_lane(name, value, simd, make_rig):
    clean = make_rig(33, 20, 20, 4)
    poisoned = make_rig(33, 20, 20, 4)
    getattr(poisoned.attributes, name)[7] = value
    others = torch.arange(33) != 7
    found, expected = poisoned.bind("native"), clean.bind("native")
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a[others], b[others])
    # a lane that is not finite is what rasterize leaves out
    assert (found.opacities[7] >= 0) | found.opacities[7].isnan()


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("name", ["weights", "head", "torso"])
def test_what_all_gaussians_share_must_be_finite(name, value, simd, make_rig):
    rig = make_rig(20, 12, 8, 3)
    broken = getattr(rig, name).clone()
    broken.view(-1)[1] = value
    words = {"weights": "weights", "head": "T_camera_head", "torso": "T_camera_torso"}[name]
    with pytest.raises(ValueError, match=f"{words} .*not finite"):
        replace(rig, **{name: broken}).bind("native")


@pytest.mark.parametrize("value", [NAN, INF, DENORMAL, 3e38])
def test_an_optimizer_step_keeps_poison_in_its_lane(value, simd):
    """As torch.optim.AdamW, a poisoned gradient spoils the numbers that it is the gradient of."""

    def step(poison: float | None) -> Tensor:
        g = torch.Generator().manual_seed(0)
        parameter, rows = torch.rand(9, 10, 5, generator=g), torch.rand(1, 9, 10, generator=g)
        if poison is not None:
            rows[0, 4, 3] = poison
        moments = torch.zeros_like(parameter), torch.zeros_like(parameter)
        weights = torch.rand(1, 5, generator=g)
        outer_adamw_(parameter, *moments, rows, weights, step=1, lr=1e-2, backend="native")
        return parameter

    found, expected = step(value), step(None)
    others = torch.ones(9, 10, dtype=torch.bool)
    others[4, 3] = False
    assert torch.equal(found[others], expected[others])
    if value == DENORMAL:
        assert found.isfinite().all()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (4096, 2160)])
def test_meshes_at_the_extremes_of_size(width, height, simd):
    """Triangles that cover the picture at the depths 2 and 3, one poisoned, one tiny."""
    w, h = 3.0 * width, 3.0 * height
    points = np.array(
        [[-w, -h, 2], [w, -h, 2], [0, h, 2], [-w, -h, 3], [w, -h, 3], [0, h, 3], [NAN, 0, 1],
         [0.2, 0.2, DENORMAL], [0.21, 0.2, 1], [0.2, 0.21, 1]],
        np.float32,
    )  # fmt: skip
    faces = np.array([[3, 4, 5], [0, 1, 2], [0, 1, 6], [7, 8, 9]], np.int32)
    face, bary, depth = rasterize_mesh(points, faces, width, height)
    assert (face == 1).all()
    assert np.allclose(depth, 2, rtol=1e-6)
    assert np.allclose(bary.sum(-1), 1, atol=1e-5)


def test_nothing_at_all(simd, make_rig, make_scene):
    """Zero Gaussians, zero vertices, zero rows."""
    rig = make_rig(0, 0, 0, 3)
    assert all(len(out) == 0 for out in rig.bind("native"))
    empty = make_rig(4, 0, 0, 3)
    empty.vertices = torch.zeros(0, 3)
    assert empty.bind("native").means.isfinite().all()
    arrays = [torch.zeros(0, 10, 4) for _ in range(3)]
    outer_adamw_(*arrays, torch.zeros(1, 0, 10), torch.zeros(1, 4), step=1, lr=1e-2)
    image, alpha, _ = draw(make_scene(0, 1, 1))
    assert image.isfinite().all()
    assert not alpha.any()
    assert float(ssim(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3))) == pytest.approx(1)


def test_wrong_devices_and_dtypes_are_named(make_rig):
    """Shapes are tested with each operation; here what they have in common."""
    rig = make_rig(8, 5, 4, 3)
    with pytest.raises(ValueError, match=r"weights is on meta, expected cpu"):
        replace(rig, weights=rig.weights.to("meta")).bind()
    with pytest.raises(ValueError, match=r"vertices has dtype torch.float64, expected .*float32"):
        replace(rig, vertices=rig.vertices.double()).bind()
    image = torch.rand(8, 6, 3)
    with pytest.raises(ValueError, match=r"target is on meta, expected cpu"):
        ssim(image, image.to("meta"))
    with pytest.raises(ValueError, match=r"image is a numpy array, expected a torch tensor"):
        ssim(image.numpy(), image)
    arrays = [torch.zeros(6, 10, 4) for _ in range(3)]
    with pytest.raises(ValueError, match=r"exp_avg has dtype torch.float16"):
        outer_adamw_(
            arrays[0], arrays[1].half(), arrays[2], torch.zeros(1, 6, 10), torch.zeros(1, 4),
            step=1, lr=1.0,
        )  # fmt: skip
    with pytest.raises(ValueError, match="points is float32"):
        kernels.rasterize_mesh(np.zeros((3, 2), np.float32), np.zeros((1, 3), np.int32), 4, 4)
