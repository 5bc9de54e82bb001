"""Structural similarity and the photometric loss built on it."""

import math
from typing import Any

import torch
from torch import Tensor

from avatar3d.kernels import reference
from avatar3d.kernels._backend import (
    Backend,
    arrays,
    check_devices,
    check_tensor,
    native,
    use_native,
)
from avatar3d.kernels.cuda.ssim import l1_ssim as l1_ssim_on_cuda
from avatar3d.kernels.operators import operator

__all__ = ["keep_gradient", "l1_ssim_loss", "scaled_gradient", "ssim"]


def ssim(image: Tensor, target: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Mean structural similarity of two (H, W, 3) images with values in [0, 1]. Scalar.

    11 x 11 Gaussian window of sigma 1.5, zero padding, C1 = 0.01^2, C2 = 0.03^2, mean over pixels
    and channels (Wang et al. 2004). Differentiable in `image` only.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device.
    """
    return 1.0 - l1_ssim_loss(image, target, ssim_weight=1.0, backend=backend)


def l1_ssim_loss(
    image: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ssim_weight: float = 0.2,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Weighted photometric loss. Scalar, differentiable in `image` only.

    loss = mean over pixels p and channels c of
        weight[p] * ((1 - s) |image - target|[p, c] + s (1 - SSIM[p, c])),   s = ssim_weight,

    where SSIM[p, c] is the similarity of the 11 x 11 windows centred at p (see `ssim`). The weight
    multiplies the SSIM map before its derivative is carried back through the window, so the
    gradient is the exact one: a pixel of weight 0 still moves if its neighbours' windows see it.
    The mean is not divided by the mean weight.

    Args:
        image: (H, W, 3).
        target: (H, W, 3).
        weight: (H, W), ones if None.
        ssim_weight: s in [0, 1].

    Raises:
        ValueError: an argument has the wrong shape, dtype or device; on the CPU also if the loss
            overflows because of a value that is no colour.
    """
    fast = use_native(backend, image)
    check_tensor("image", image, (None, None, 3), float32=fast, form="(H, W, 3)")
    if image.numel() == 0:
        raise ValueError(f"image has shape {tuple(image.shape)}, expected at least one pixel.")
    h, w = image.shape[:2]
    check_tensor("target", target, (h, w, 3), float32=fast, form=f"({h}, {w}, 3) like image")
    if weight is not None:
        check_tensor("weight", weight, (h, w), float32=fast, form=f"(H, W) = ({h}, {w})")
    check_devices(image=image, target=target, weight=weight)
    if not fast:
        return reference.l1_ssim_loss(image, target, weight, ssim_weight)
    with_gradient = torch.is_grad_enabled() and image.requires_grad
    loss, _ = _l1_ssim(image, target, weight, float(ssim_weight), with_gradient)
    return loss


@operator("l1_ssim")
def _l1_ssim(
    image: Tensor, target: Tensor, weight: Tensor | None, ssim_weight: float, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """The loss and, since most of the work is shared, its gradient at `image` (or an empty one)."""
    gradient = torch.empty(image.shape) if with_gradient else image.new_empty(0)
    loss = native().l1_ssim(
        *arrays([image, target, weight]),
        (1.0 - ssim_weight) / image.numel(),
        ssim_weight / image.numel(),
        gradient.numpy() if with_gradient else None,
    )
    if not math.isfinite(loss):
        raise ValueError(_blame(image, target, weight))
    return torch.tensor(loss, dtype=torch.float32), gradient


def _blame(image: Tensor, target: Tensor, weight: Tensor | None) -> str:
    """Which picture made the loss overflow."""
    pictures = {"image": image, "target": target, "weight": weight}
    given = {name: t.detach().abs() for name, t in pictures.items() if t is not None}
    for name, sizes in given.items():
        if not sizes.isfinite().all():
            return f"{name} holds NaN or infinity; expected finite values."
    name = max(given, key=lambda name: float(given[name].max()))
    return f"{name} holds values up to {float(given[name].max()):.0e}; expected about [0, 1]."


@_l1_ssim.register_fake
def _(
    image: Tensor, target: Tensor, weight: Tensor | None, ssim_weight: float, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    gradient = image.new_empty(image.shape) if with_gradient else image.new_empty(0)
    return image.new_empty(()), gradient


def keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Save the gradient that the forward has made, its second output."""
    ctx.arguments = len(inputs)
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def scaled_gradient(ctx: Any, v_loss: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    """That gradient for the first argument, none for the others."""
    (gradient,) = ctx.saved_tensors
    others = [None] * (ctx.arguments - 1)
    if v_loss is None:
        return None, *others
    # A pass over the image is saved where the loss is the root or a plain term of it. Subclasses
    # trace, and on a GPU a look at the number would wait for it.
    if type(v_loss) is Tensor and v_loss.device.type == "cpu" and v_loss.item() == 1:
        return gradient, *others
    return gradient * v_loss, *others


_l1_ssim.register_kernel("cuda", l1_ssim_on_cuda)
_l1_ssim.register_autograd(scaled_gradient, setup_context=keep_gradient)
