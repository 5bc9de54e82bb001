"""AdamW of a basis with a gradient in factors, on a GPU; cuda/gpu/adam.cu."""

import math

from torch import Tensor

from avatar3d.kernels.cuda import modules

__all__ = ["outer_adamw", "sparse_adam"]

_THREADS = 256


def outer_adamw(
    parameter: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    rows: Tensor,
    weights: Tensor,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """As `avatar3d.kernels.adam._outer_adamw`, in place. Raises ValueError past 2^32 numbers."""
    count = parameter.numel()
    if count >= 2**32:
        raise ValueError(f"parameter has {count} numbers, at most 2^32 - 1 can be updated at once.")
    if not count:
        return
    modules.load("adam.cu", parameter.device).launch(
        "outer_adamw", (-(-count // _THREADS), 1), _THREADS,
        rows.shape[0], count // weights.shape[1], weights.shape[1],
        rows.detach().contiguous(), weights.detach().contiguous(),
        parameter.detach(), exp_avg.detach(), exp_avg_sq.detach(),
        1 - lr * weight_decay, beta2, 1 - beta1, 1 - beta2,
        lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step), eps,
    )  # fmt: skip


def sparse_adam(
    table: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    steps: Tensor,
    corrections: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """As `avatar3d.kernels.adam._sparse_adam`, in place."""
    rows, size = table.shape
    if rows:
        modules.load("adam.cu", table.device).launch(
            "sparse_adam", (-(-rows // _THREADS), 1), _THREADS,
            rows, size, len(corrections), corrections,
            table.detach(), gradient.detach(), exp_avg.detach(), exp_avg_sq.detach(), steps,
            lr, beta1, beta2, eps,
        )  # fmt: skip
