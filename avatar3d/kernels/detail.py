"""How alike the fine detail of two pictures is, patch by patch."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from avatar3d.kernels._backend import (
    Backend,
    arrays,
    check_devices,
    check_tensor,
    native,
    use_native,
)
from avatar3d.kernels.operators import operator
from avatar3d.kernels.ssim import keep_gradient, scaled_gradient

__all__ = ["PATCH", "detail_difference"]

PATCH = 8
"""Pixels of a patch's side."""
_FLOOR = 1 / 255  # of a gradient; what is fainter is rounding


def detail_difference(
    image: Tensor,
    target: Tensor,
    region: tuple[slice, slice],
    weight: Tensor | None = None,
    factor: float = 1.0,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Mean over patches of how far their gradients are apart, in proportion to them. Scalar.

    With a and b the gradients of image and target, i.e. the steps to the right and the lower
    neighbour of the mean over colours, f = 1/255 and sums over squares of 8 by 8 pixels,

        loss = mean over patches of w s |a - b|^2 / (|a|^2 + |b|^2 + 2 f^2),  s^2 = |b|^2 + f^2.

    A picture is never met to the pixel. Where it is right up to a small shift, a plain distance is
    least for a blurred one, and so are L1 and, in the faint detail of skin, SSIM. In proportion it
    is least for gradients as strong as the target's wherever they correlate with it, and does not
    care how strong they are where they do not: blur does not pay, and neither does noise.

    Args:
        image, target: (H, W, 3); the gradient reaches `image` only.
        region: rows and columns that are looked at, at least 9 of each.
        weight: (H, W), positive; w is one over its mean in the patch, 1 if None.
        factor: of the loss.

    Raises:
        ValueError: an argument has the wrong shape or device, or the region no whole patch.

    Example:
        >>> step = torch.zeros(9, 9, 3)
        >>> step[:, 4:] = 1.0
        >>> everything = slice(None), slice(None)
        >>> [round(float(detail_difference(g * step, step, everything)), 3) for g in (0.5, 1, 2)]
        [0.071, 0.0, 0.071]
    """
    h, w = image.shape[:2]
    ends = [axis.indices(size) for axis, size in zip(region, (h, w), strict=True)]
    if any(stop - start <= PATCH or step != 1 for start, stop, step in ends):
        raise ValueError(f"the region {region} holds no patch of {PATCH} by {PATCH} pixels.")
    check_tensor("image", image, (None, None, 3), float32=False, form="(H, W, 3)")
    check_tensor("target", target, (h, w, 3), float32=False, form=f"({h}, {w}, 3) like image")
    if weight is not None:
        check_tensor("weight", weight, (h, w), float32=False, form=f"(H, W) = ({h}, {w})")
    check_devices(image=image, target=target, weight=weight)
    of_the_cpu = image.device.type == "cpu" and image.dtype == torch.float32
    if not (of_the_cpu and use_native(backend)):
        return factor * _in_torch(image, target, region, weight)
    (top, bottom, _), (left, right, _) = ends
    loss, _ = _detail(image, target, weight, top, left, bottom, right, float(factor))
    return loss


def _in_torch(
    image: Tensor, target: Tensor, region: tuple[slice, slice], weight: Tensor | None
) -> Tensor:
    difference: Tensor = _Difference.apply(image, target, region, weight)
    return difference


@operator("detail")
def _detail(
    image: Tensor,
    target: Tensor,
    weight: Tensor | None,
    top: int,
    left: int,
    bottom: int,
    right: int,
    factor: float,
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient at `image`."""
    gradient = torch.empty(image.shape)
    region = (top, left, bottom, right, factor)
    loss = native().detail(*arrays([image, target, weight]), *region, *arrays([gradient]))
    return torch.tensor(loss, dtype=torch.float32), gradient


@_detail.register_fake
def _(image: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return image.new_empty(()), image.new_empty(image.shape)


_detail.register_autograd(scaled_gradient, setup_context=keep_gradient)


class _Difference(torch.autograd.Function):
    """By hand: autograd would take ten times as long."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        target: Tensor,
        region: tuple[slice, slice],
        weight: Tensor | None,
    ) -> Tensor:
        ours, theirs = _gradients(image[region]), _gradients(target[region])
        wanted = _energy(*theirs)
        both = _energy(*ours).add_(wanted).add_(2 * _FLOOR**2)
        share = _energy(ours[0] - theirs[0], ours[1] - theirs[1]).div_(both)
        importance = wanted.add_(_FLOOR**2).sqrt_().mul_(1 / share.numel())
        if weight is not None:
            importance /= avg_pool2d(weight[region][None, :-1, :-1], PATCH)[0]
        # d loss / d gradient = pull ((1 - share) ours - theirs)
        pull = importance * (2 / PATCH**2) / both
        ctx.saved = ours, theirs, pull * (1 - share), pull
        ctx.region, ctx.size = region, image.shape
        return importance.mul_(share).sum()

    @staticmethod
    def backward(ctx: Any, v_loss: Tensor) -> tuple[Tensor | None, ...]:
        ours, theirs, own, other = ctx.saved
        own, other = (_spread(factor * (v_loss / 3)) for factor in (own, other))
        height, width = own.shape
        across, down = (
            (a[:height, :width] * own).sub_(b[:height, :width] * other)
            for a, b in zip(ours, theirs, strict=True)
        )
        gradient = own.new_zeros(ctx.size)
        inside = gradient[ctx.region]
        grey = own.new_zeros(inside.shape[:2])
        grey[:height, :width] -= across
        grey[:height, :width] -= down
        grey[:height, 1 : width + 1] += across
        grey[1 : height + 1, :width] += down
        for channel in range(3):
            inside[..., channel] = grey
        return gradient, None, None, None


def _gradients(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Steps to the right and to the lower neighbour, (h - 1, w - 1), of the mean over colours."""
    grey = (picture[..., 0] + picture[..., 1]).add_(picture[..., 2]).mul_(1 / 3)
    inner = grey[:-1, :-1]
    return grey[:-1, 1:] - inner, grey[1:, :-1] - inner


def _energy(across: Tensor, down: Tensor) -> Tensor:
    """Mean square by patch."""
    return avg_pool2d((across * across).addcmul_(down, down)[None], PATCH)[0]


def _spread(patches: Tensor) -> Tensor:
    """Each patch's number at its pixels."""
    return patches.repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)
