"""How alike the fine detail of two pictures is, patch by patch."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

__all__ = ["detail_difference", "face_region"]

_SIDE = 8  # pixels of a patch
_FLOOR = 1 / 255  # of a gradient; what is fainter is rounding
_MARGIN = 0.2  # of the face's size, upwards and to the sides, for hair and ears


def detail_difference(
    image: Tensor, target: Tensor, region: tuple[slice, slice], weight: Tensor | None = None
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

    Example:
        >>> step = torch.zeros(9, 9, 3)
        >>> step[:, 4:] = 1.0
        >>> everything = slice(None), slice(None)
        >>> [round(float(detail_difference(g * step, step, everything)), 3) for g in (0.5, 1, 2)]
        [0.071, 0.0, 0.071]
    """
    difference: Tensor = _Difference.apply(image, target, region, weight)
    return difference


def face_region(landmarks: np.ndarray, height: int, width: int) -> tuple[slice, slice] | None:
    """Rows and columns of the face landmarks (478, 2) in pixels, with hair and ears around them.

    They end at the chin: what is below moves by itself, and is met less well. None for a face that
    is smaller than a patch or outside the picture.
    """
    low, high = landmarks[:468].min(0), landmarks[:468].max(0)
    margin = _MARGIN * (high - low)
    left, top = np.clip(np.floor(low - margin), 0, [width, height]).astype(int)
    right, bottom = np.clip(np.ceil(high + margin * [1, 0]), 0, [width, height]).astype(int)
    if min(right - left, bottom - top) <= _SIDE:
        return None
    return slice(int(top), int(bottom)), slice(int(left), int(right))


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
            importance /= avg_pool2d(weight[region][None, :-1, :-1], _SIDE)[0]
        # d loss / d gradient = pull ((1 - share) ours - theirs)
        pull = importance * (2 / _SIDE**2) / both
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
    return avg_pool2d((across * across).addcmul_(down, down)[None], _SIDE)[0]


def _spread(patches: Tensor) -> Tensor:
    """Each patch's number at its pixels."""
    return patches.repeat_interleave(_SIDE, 0).repeat_interleave(_SIDE, 1)
