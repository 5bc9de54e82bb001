"""Several faces at once, against the parts that pose, draw and compare a face, and their torch
twins in float64."""

from dataclasses import replace

import pytest
import torch

from avatar3d.kernels import (
    Poses,
    bind_gaussians,
    draw_faces,
    encode_pixels,
    face_gradients,
    l1_ssim_loss,
    rasterize,
)

WIDTH, HEIGHT = 45, 37
K = torch.tensor([[40.0, 0, 22], [0, 40, 18], [0, 0, 1]])


@pytest.fixture(scope="module")
def rig(make_rig):
    rig = make_rig(60, 40, 25, 5)
    attributes = replace(rig.attributes, log_scale=rig.attributes.log_scale + 1.5)
    return replace(rig, attributes=attributes, vertices=rig.vertices * 2)


def poses_of(rig, count, blended=True):
    g = torch.Generator().manual_seed(3)
    vertices = rig.vertices + 0.01 * torch.randn(count, *rig.vertices.shape, generator=g)
    head = rig.head.repeat(count, 1, 1)
    head[:, 0, 3] += 0.05 * torch.arange(count)
    weights = torch.randn(count, 5, generator=g) if blended else None
    return Poses(vertices, head, rig.torso.repeat(count, 1, 1), weights)


def plate(image):
    return torch.rand((HEIGHT, WIDTH, 3) if image else (3,), generator=torch.Generator())


@pytest.mark.parametrize("blended", [True, False])
@pytest.mark.parametrize("count", [1, 5])
def test_faces_drawn_together_are_those_drawn_one_by_one(rig, simd, threads, count, blended):
    poses, background = poses_of(rig, count, blended), plate(image=True)
    pictures = draw_faces(rig.binding, rig.attributes, poses, K, WIDTH, HEIGHT, background)
    for i, picture in enumerate(pictures):
        pose = [None if track is None else track[i] for track in poses]
        splats = bind_gaussians(rig.binding, rig.attributes, *pose)
        image, alpha = rasterize(*splats, torch.eye(4), K, WIDTH, HEIGHT, background)
        assert torch.equal(picture, encode_pixels(image))
        assert alpha.max() > 0.5


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_gradients_are_autograds(rig, simd, threads, count, image, relative_error):
    poses, background = poses_of(rig, count), plate(image)
    g = torch.Generator().manual_seed(5)
    targets = torch.rand(count, HEIGHT, WIDTH, 3, generator=g)
    weights = 1 + torch.rand(count, HEIGHT, WIDTH, generator=g)
    arguments = (rig.binding, rig.attributes, poses, K, background, targets, weights, 0.3)
    ours = face_gradients(*arguments)
    for i in range(count):
        leaves = [track[i].clone().requires_grad_() for track in poses[:3]]
        splats = bind_gaussians(rig.binding, rig.attributes, *leaves, poses.weights[i])
        image = rasterize(*splats, torch.eye(4), K, WIDTH, HEIGHT, background)[0]
        loss = l1_ssim_loss(image, targets[i], weights[i], 0.3)
        loss.backward()
        assert ours.losses[i] == loss.detach()
        for gradient, leaf in zip(ours[1:], leaves, strict=True):
            assert leaf.grad.abs().max() > 0
            assert torch.equal(gradient[i], leaf.grad)
    for found, expected in zip(ours, face_gradients(*arguments, backend="reference"), strict=True):
        assert relative_error(found, expected.double()) < 1e-3


def test_one_bad_face_is_named_and_harms_no_thread(rig):
    poses = poses_of(rig, 4)
    for name in ("T_camera_head", "weights"):
        spoilt = getattr(poses, name).clone()
        spoilt[2, 0] = float("nan")
        with pytest.raises(ValueError, match=f"{name} is not finite"):
            draw_faces(
                rig.binding, rig.attributes, poses._replace(**{name: spoilt}), K, WIDTH, HEIGHT,
                plate(image=False),
            )  # fmt: skip
    background = plate(image=True)
    background[3, 4] = float("inf")
    with pytest.raises(ValueError, match="background is not finite"):
        draw_faces(rig.binding, rig.attributes, poses, K, WIDTH, HEIGHT, background)
    drawn = draw_faces(rig.binding, rig.attributes, poses, K, WIDTH, HEIGHT, plate(image=False))
    assert drawn.shape == (4, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    "wrong", ["vertices", "T_camera_head", "T_camera_torso", "weights"]
)  # fmt: skip
def test_poses_that_do_not_belong_together_are_refused(rig, wrong):
    poses = poses_of(rig, 3)
    fewer = poses._replace(**{wrong: getattr(poses, wrong)[:2]})
    with pytest.raises(ValueError, match="shape"):
        draw_faces(
            rig.binding, rig.attributes, fewer, K, WIDTH, HEIGHT, torch.zeros(3)
        )  # fmt: skip
