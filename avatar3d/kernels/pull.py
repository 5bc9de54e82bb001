"""The pull of attributes towards their neighbours and towards where they began."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar3d.kernels._backend import Backend, arrays, check_tensor, native, use_native

__all__ = ["Goals", "attribute_pull"]


@dataclass
class Goals:
    """What N Gaussians are pulled to.

    Attributes:
        position: (N, 3) metres, in units of 1 / `inverse_reach` (N,).
        log_scale: (N, 3).
        opacity: logit of those that `solid` (N,) is 1 for, of the others 0.
        factors: of the squares of colour, position, log-scale and opacity.
    """

    position: Tensor
    inverse_reach: Tensor
    log_scale: Tensor
    solid: Tensor
    opacity: float
    factors: tuple[float, float, float, float]


def attribute_pull(
    color: Tensor,
    position: Tensor,
    log_scale: Tensor,
    opacity: Tensor,
    goals: Goals,
    neighbour: Tensor,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Sum of squared departures, each kind times its factor. Scalar, differentiable.

    Args:
        color, position, log_scale: (N, 3); opacity: (N,) logits.
        neighbour: (N,) int32, whose colour a Gaussian's is pulled to, and the other way.

    Raises:
        ValueError: an argument has the wrong shape or dtype, or a neighbour does not exist.
    """
    count = len(opacity)
    for name, value, shape in (
        ("color", color, (count, 3)),
        ("position", position, (count, 3)),
        ("log_scale", log_scale, (count, 3)),
        ("opacity", opacity, (count,)),
    ):
        check_tensor(name, value, shape, float32=True, form=str(shape))
    if neighbour.dtype != torch.int32 or neighbour.shape != (count,):
        raise ValueError(
            f"neighbour is {neighbour.dtype} {tuple(neighbour.shape)}, expected int32 ({count},)."
        )
    by_hand = color.device.type == "cpu" and use_native(backend)
    return (_Native if by_hand else _InTorch).apply(
        color, position, log_scale, opacity, goals, neighbour
    )


class _Pull(torch.autograd.Function):
    """The loss with its gradients in one go: autograd would take three times as long."""

    @staticmethod
    def backward(ctx: Any, v_loss: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradient * v_loss for gradient in ctx.saved_tensors), None, None


class _Native(_Pull):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *values, goals, neighbour = arguments
        gradients = [torch.empty_like(value) for value in values]
        fixed = [goals.position, goals.inverse_reach, goals.log_scale, goals.solid]
        factors = np.array(goals.factors, np.float32)
        loss = native().pull(
            *arrays([*values, neighbour, *fixed]), goals.opacity, factors, *arrays(gradients)
        )
        ctx.save_for_backward(*gradients)
        return torch.tensor(loss, dtype=torch.float32)


class _InTorch(_Pull):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        color, position, log_scale, opacity, goals, neighbour = arguments
        departures = (
            color - color.index_select(0, neighbour),
            (position - goals.position) * goals.inverse_reach[:, None],
            log_scale - goals.log_scale,
            (opacity - goals.opacity) * goals.solid,
        )
        loss = color.new_zeros(())
        gradients = []
        for departure, factor in zip(departures, goals.factors, strict=True):
            loss += factor * torch.dot(departure.flatten(), departure.flatten())
            gradients.append(departure.mul_(2 * factor))
        pulled = gradients[0].clone().index_add_(0, neighbour, gradients[0], alpha=-1)
        gradients[1].mul_(goals.inverse_reach[:, None])
        ctx.save_for_backward(pulled, *gradients[1:])
        return loss
