"""What a training step asks of one face: its losses against a picture, and their gradients.

The same as `bind_gaussians`, `rasterize`, `l1_ssim_loss` and `detail_difference` one after the
other, but on the CPU it is one native call. Nothing in between is made anew or handed over, the
threads do not fall asleep on the way, and the loss is only looked at where something was drawn.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avatar3d.kernels._backend import Backend, arrays, check_tensor, native, use_native
from avatar3d.kernels.binding import Attributes, Binding, bind_gaussians
from avatar3d.kernels.detail import PATCH, detail_difference
from avatar3d.kernels.faces import Poses, check_view, native_rig
from avatar3d.kernels.rasterizer import rasterize
from avatar3d.kernels.ssim import l1_ssim_loss

__all__ = ["FaceLoss", "Wanted", "face_loss"]


class Wanted(NamedTuple):
    """The picture that a face should give; see `l1_ssim_loss` and `detail_difference`.

    Attributes:
        image: (H, W, 3) in [0, 1], over `background`, which is (3,) or (H, W, 3).
        weight: (H, W) of the pixels.
        region: rows and columns where fine detail counts; None for nowhere.
        ssim_weight, detail_weight: of the losses.
    """

    image: Tensor
    background: Tensor
    weight: Tensor
    region: tuple[slice, slice] | None = None
    ssim_weight: float = 0.2
    detail_weight: float = 0.0


class FaceLoss(NamedTuple):
    """The sum of both losses, differentiable, and what each of them adds to it."""

    total: Tensor
    picture: Tensor
    detail: Tensor


def face_loss(
    binding: Binding,
    attributes: Attributes,
    pose: tuple[Tensor, Tensor, Tensor, Tensor | None],
    K: Tensor,
    wanted: Wanted,
    *,
    backend: Backend = "auto",
) -> FaceLoss:
    """Losses of a face, differentiable in its attributes and in the weights of the blendshapes.

    On the CPU `picture` leaves out most of what no Gaussian reaches, which is the background's
    and not the avatar's to change.

    Args:
        binding, attributes: see `bind_gaussians`.
        pose: vertices, T_camera_head, T_camera_torso and weights of `bind_gaussians`.
        K: see `rasterize`.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device, or is not finite.
    """
    a = attributes
    if not use_native(backend, a.position) or a.position.device.type != "cpu":
        return _by_parts(binding, a, pose, K, wanted, backend)
    vertices, head, torso, weights = pose
    height, width = wanted.weight.shape
    check_tensor("image", wanted.image, (height, width, 3), float32=True, form="(H, W, 3)")
    check_tensor("weight", wanted.weight, (height, width), float32=True, form="(H, W)")
    check_view(K, wanted.background, width, height)
    probe = None
    if weights is not None and a.basis is not None and a.basis_gradient is not None:
        probe = a.basis_gradient.probe(a.basis, weights)
    elif weights is not None and a.basis is not None and a.basis.requires_grad:
        return _by_parts(binding, a, pose, K, wanted, backend)
    leading = None if weights is None else weights.detach()[None]
    rig = native_rig(binding, a, Poses(vertices[None], head[None], torso[None], leading))
    learned = a.position, a.quat, a.log_scale, a.opacity, a.color, probe, weights
    total, picture, detail = _FaceLoss.apply(rig, K, wanted, *learned)
    return FaceLoss(total, picture, detail)


def _by_parts(
    binding: Binding,
    attributes: Attributes,
    pose: tuple[Tensor, Tensor, Tensor, Tensor | None],
    K: Tensor,
    wanted: Wanted,
    backend: Backend,
) -> FaceLoss:
    splats = bind_gaussians(binding, attributes, *pose, backend=backend)
    height, width = wanted.weight.shape
    eye = torch.eye(4, dtype=K.dtype, device=K.device)
    view = eye, K, width, height, wanted.background
    image, _ = rasterize(*splats, *view, backend=backend)
    pair = image, wanted.image
    picture = l1_ssim_loss(*pair, wanted.weight, wanted.ssim_weight, backend=backend)
    if wanted.region is None or not wanted.detail_weight:
        return FaceLoss(picture, picture.detach(), picture.new_zeros(()))
    where = wanted.region, wanted.weight
    detail = detail_difference(*pair, *where, wanted.detail_weight, backend=backend)
    return FaceLoss(picture + detail, picture.detach(), detail.detach())


class _FaceLoss(torch.autograd.Function):
    """Makes the gradients with the losses: most of the work is shared."""

    @staticmethod
    def forward(
        ctx: Any, rig: object, K: Tensor, wanted: Wanted, *learned: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        shapes = [(0,) if tensor is None else tensor.shape for tensor in learned]
        gradients = [torch.empty(shape) for shape in shapes]
        share = 1 / wanted.image.numel()
        corners, detail_weight = _corners(wanted)
        picture, detail = native().attribute_gradients(
            rig,
            *arrays([K, wanted.background, wanted.image, wanted.weight]),
            (1.0 - wanted.ssim_weight) * share,
            wanted.ssim_weight * share,
            corners,
            detail_weight,
            *arrays(gradients),
        )
        if not math.isfinite(picture + detail):
            raise ValueError("image or weight holds NaN, infinity or values that are no colour.")
        ctx.save_for_backward(*gradients)
        losses = [torch.tensor(value) for value in (picture + detail, picture, detail)]
        ctx.mark_non_differentiable(*losses[1:])
        return losses[0], losses[1], losses[2]

    @staticmethod
    def backward(ctx: Any, v_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[3:]
        gradients = [
            gradient if need else None
            for gradient, need in zip(ctx.saved_tensors, needed, strict=True)
        ]
        if v_total.item() != 1:
            gradients = [None if g is None else g * v_total for g in gradients]
        return None, None, None, *gradients


def _corners(wanted: Wanted) -> tuple[tuple[int, int, int, int], float]:
    """top, left, bottom, right of the detail's region and its weight, 0 for none."""
    if wanted.region is None or not wanted.detail_weight:
        return (0, 0, 0, 0), 0.0
    height, width = wanted.weight.shape
    (top, bottom, _), (left, right, _) = (
        part.indices(size) for part, size in zip(wanted.region, (height, width), strict=True)
    )
    if min(bottom - top, right - left) <= PATCH:
        raise ValueError(f"region {wanted.region} holds no patch of {PATCH} by {PATCH} pixels.")
    return (top, left, bottom, right), wanted.detail_weight
