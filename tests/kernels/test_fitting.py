"""A training step's losses and gradients in one call, against the parts that they are made of."""

from dataclasses import replace

import pytest
import torch

from avatar3d.kernels import (
    OuterGradient,
    Wanted,
    bind_gaussians,
    detail_difference,
    face_loss,
    l1_ssim_loss,
    rasterize,
)

WIDTH, HEIGHT = 203, 170
K = torch.tensor([[60.0, 0, 120], [0, 60, 60], [0, 0, 1]])
REGION = slice(20, 111), slice(70, 160)
NAMES = ("position", "quat", "log_scale", "opacity", "color")


@pytest.fixture(scope="module")
def rig(make_rig):
    rig = make_rig(60, 40, 25, 5)
    attributes = replace(rig.attributes, log_scale=rig.attributes.log_scale + 1)
    return replace(rig, attributes=attributes)


def wanted_of(flat, detail):
    g = torch.Generator().manual_seed(5)
    image = torch.rand(HEIGHT, WIDTH, 3, generator=g)
    weight = 1 + torch.rand(HEIGHT, WIDTH, generator=g)
    background = torch.rand((3,) if flat else (HEIGHT, WIDTH, 3), generator=g)
    return Wanted(image, background, weight, REGION if detail else None, 0.3, 2.0)


def leaves_of(rig, blended):
    """The attributes and the blendshape weights, all of which require a gradient."""
    a = rig.attributes
    leaves = {name: getattr(a, name).clone().requires_grad_() for name in NAMES}
    weights = rig.weights.clone().requires_grad_() if blended else None
    attributes = replace(a, **leaves, basis=a.basis.detach(), basis_gradient=OuterGradient())
    return attributes, weights


def gradients(attributes, weights):
    found = {name: getattr(attributes, name).grad for name in NAMES}
    if weights is not None:
        found["weights"] = weights.grad
        found["rows"], found["factors"] = attributes.basis_gradient.factors()
    return found


@pytest.mark.parametrize("blended", [True, False])
@pytest.mark.parametrize("detail", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_gradients_are_those_of_the_parts(rig, simd, threads, flat, detail, blended):
    wanted = wanted_of(flat, detail)
    ours, weights = leaves_of(rig, blended)
    loss = face_loss(rig.binding, ours, (rig.vertices, rig.head, rig.torso, weights), K, wanted)
    loss.total.backward()
    parts, weights_of_parts = leaves_of(rig, blended)
    pose = rig.vertices, rig.head, rig.torso, weights_of_parts
    splats = bind_gaussians(rig.binding, parts, *pose)
    view = torch.eye(4), K, WIDTH, HEIGHT, wanted.background
    image, alpha = rasterize(*splats, *view)
    empty = (alpha == 0).float().mean()
    assert 0.3 < empty < 0.95  # or nothing is left out
    picture = l1_ssim_loss(image, wanted.image, wanted.weight, 0.3)
    fine = detail_difference(image, wanted.image, REGION, wanted.weight, 2.0) if detail else 0.0
    (picture + fine).backward()
    expected = gradients(parts, weights_of_parts)
    for name, gradient in gradients(ours, weights).items():
        assert expected[name].abs().max() > 0
        assert torch.equal(gradient, expected[name]), name
    assert torch.isclose(loss.total, loss.picture + loss.detail)
    assert loss.detail == fine
    assert 0 < loss.picture < picture


def test_all_of_the_picture_counts_where_all_of_it_is_drawn(rig, simd):
    huge = replace(rig.attributes, log_scale=rig.attributes.log_scale + 4)
    wanted = wanted_of(flat=True, detail=False)
    pose = rig.vertices, rig.head, rig.torso, rig.weights
    loss = face_loss(rig.binding, huge, pose, K, wanted)
    reference = face_loss(rig.binding, huge, pose, K, wanted, backend="reference")
    assert torch.isclose(loss.total, reference.total, rtol=1e-4)


def test_the_basis_may_have_a_gradient_of_its_own(rig):
    basis = rig.attributes.basis.clone().requires_grad_()
    attributes, wanted = replace(rig.attributes, basis=basis), wanted_of(True, True)
    pose = rig.vertices, rig.head, rig.torso, rig.weights
    face_loss(rig.binding, attributes, pose, K, wanted).total.backward()
    assert basis.grad.abs().max() > 0


def test_the_loss_can_be_scaled(rig):
    found = []
    for factor in (1, 3):
        attributes, weights = leaves_of(rig, True)
        pose = rig.vertices, rig.head, rig.torso, weights
        (
            factor * face_loss(rig.binding, attributes, pose, K, wanted_of(True, True)).total
        ).backward()
        found.append(gradients(attributes, weights))
    for name in (*NAMES, "weights", "rows"):
        assert torch.allclose(3 * found[0][name], found[1][name], rtol=1e-5)


@pytest.mark.parametrize("wrong", ["image", "weight", "background"])
def test_pictures_of_another_size_are_refused(rig, wrong):
    wanted = wanted_of(False, True)
    pose = rig.vertices, rig.head, rig.torso, rig.weights
    cut = wanted._replace(**{wrong: getattr(wanted, wrong)[:-1].contiguous()})
    with pytest.raises(ValueError, match="shape"):
        face_loss(rig.binding, rig.attributes, pose, K, cut)


def test_a_picture_that_is_none_is_refused(rig):
    wanted = wanted_of(True, False)
    wanted.image[80, 120] = float("nan")
    pose = rig.vertices, rig.head, rig.torso, rig.weights
    with pytest.raises(ValueError, match="NaN"):
        face_loss(rig.binding, rig.attributes, pose, K, wanted)
