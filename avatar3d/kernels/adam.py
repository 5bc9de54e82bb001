"""AdamW for a large basis: its gradient is a sum of outer products, which is never stored whole."""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from avatar3d.kernels import field_reference, reference
from avatar3d.kernels._backend import (
    Backend,
    arrays,
    check_devices,
    check_tensor,
    native,
    use_native,
)
from avatar3d.kernels.cuda.adam import outer_adamw as outer_adamw_on_cuda
from avatar3d.kernels.cuda.adam import sparse_adam as sparse_adam_on_cuda
from avatar3d.kernels.operators import operator

__all__ = ["OuterGradient", "outer_adamw_", "sparse_adam_"]

_LARGEST = 2048  # columns, as in cuda/cpu/kernels.h
_MOST_COLUMNS = 8  # of a table, as in cuda/cpu/field_types.h


class OuterGradient:
    """The gradient of a basis as outer products, one of every time that the basis was blended.

    With d = basis @ weights, the gradient of a basis (B, 10, K) is the outer product of that of d,
    (B, 10), and weights (K,): 10 + K/B numbers a row instead of 10 K. Put one into
    `Attributes.basis_gradient` and let `basis` itself not require a gradient; after `backward`,
    `factors` are what `outer_adamw_` takes.
    """

    def __init__(self) -> None:
        self._blends: list[tuple[Tensor, Tensor]] = []

    def probe(self, basis: Tensor, weights: Tensor) -> Tensor | None:
        """Note a blend; the (B, 10) tensor whose gradient will be that at `basis @ weights`."""
        if not torch.is_grad_enabled():
            return None
        probe = torch.zeros(basis.shape[:2], dtype=basis.dtype, device=basis.device)
        self._blends.append((probe.requires_grad_(), weights.detach()))
        return probe

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """(F, B, 10) gradients and (F, K) weights of the F blends that a gradient reached."""
        reached = [(probe.grad, w) for probe, w in self._blends if probe.grad is not None]
        if not reached:
            return None
        rows, weights = zip(*reached, strict=True)
        if len(rows) == 1:
            return rows[0][None], weights[0][None]
        return torch.stack(rows), torch.stack(weights)

    def clear(self) -> None:
        """Forget all blends, as `zero_grad` does."""
        self._blends.clear()


def outer_adamw_(
    parameter: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    rows: Tensor,
    weights: Tensor,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    backend: Backend = "auto",
) -> None:
    """One step of `torch.optim.AdamW`, in place, with gradient g = sum_f rows[f] ⊗ weights[f].

    One pass over the three arrays, 24 bytes a number. The result does not depend on the number of
    threads.

    Args:
        parameter, exp_avg, exp_avg_sq: (..., K), contiguous.
        rows: (F, ...) like the parameter without its last axis.
        weights: (F, K), K at most 2048.
        step: 1 for the first step.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device.
    """
    fast = use_native(backend, parameter)
    frames = rows.shape[0] if isinstance(rows, Tensor) and rows.ndim else None
    check_tensor("weights", weights, (frames, None), float32=fast, form="(F, K)")
    size = weights.shape[1]
    if not 1 <= size <= _LARGEST:
        raise ValueError(f"weights has {size} columns, expected 1 to {_LARGEST}.")
    shape = (*rows.shape[1:], size)
    for name, value in (
        ("parameter", parameter), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq),
    ):  # fmt: skip
        check_tensor(name, value, shape, float32=fast, form=f"(..., K) = {shape}")
        if not value.is_contiguous():
            raise ValueError(f"{name} is not contiguous.")
    check_tensor("rows", rows, tuple(rows.shape), float32=fast, form="(F, ...)")
    check_devices(
        parameter=parameter, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq, rows=rows, weights=weights
    )
    if step < 1:
        raise ValueError(f"step is {step}, expected at least 1.")
    arguments = (parameter, exp_avg, exp_avg_sq, rows, weights, step, lr, *betas, eps, weight_decay)
    if fast:
        _outer_adamw(*arguments)
    else:
        reference.outer_adamw(*arguments)


def sparse_adam_(
    table: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    steps: Tensor,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-15,
    backend: Backend = "auto",
) -> None:
    """A step of Adam, in place, for the rows of a table that have a gradient; as instant-ngp does.

    Rows whose gradient is all zero, or not finite, stay as they are, moments included, and each row
    counts its own steps, so that one that is seen late learns as fast as others did. `gradient` is
    zero afterwards, ready to collect the next one.

    Args:
        table, gradient, exp_avg, exp_avg_sq: (P, F), contiguous.
        steps: (P,) int32, zero at first.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device.
    """
    fast = use_native(backend, table)
    for name, value in (
        ("table", table), ("gradient", gradient), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq),
    ):  # fmt: skip
        check_tensor(name, value, tuple(table.shape), float32=fast, form="(P, F) like table")
        if not value.is_contiguous():
            raise ValueError(f"{name} is not contiguous.")
    if steps.dtype != torch.int32 or tuple(steps.shape) != (len(table),):
        raise ValueError(f"steps is {steps.dtype} {tuple(steps.shape)}, expected torch.int32 (P,).")
    check_devices(
        table=table, gradient=gradient, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq, steps=steps
    )
    if not fast:
        field_reference.sparse_adam(table, gradient, exp_avg, exp_avg_sq, steps, lr, betas, eps)
        return
    if table.shape[1] > _MOST_COLUMNS:
        raise ValueError(f"table has {table.shape[1]} columns, expected at most {_MOST_COLUMNS}.")
    _sparse_adam(
        table, gradient, exp_avg, exp_avg_sq, steps, _corrections(betas).to(table.device), lr,
        *betas, eps,
    )  # fmt: skip


@cache
def _corrections(betas: tuple[float, float]) -> Tensor:
    """(T, 2): 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t), until both are 1; row 0 is not used."""
    slowest = max(*betas, 0.5)
    last = min(math.ceil(math.log(1e-8) / math.log(slowest)), 100_000)
    steps = torch.arange(last + 1, dtype=torch.float64).clamp(min=1)
    first, second = (1 - beta**steps for beta in betas)
    return torch.stack([1 / first, 1 / second.sqrt()], 1).float()


@operator("sparse_adam", mutates=("table", "gradient", "exp_avg", "exp_avg_sq", "steps"))
def _sparse_adam(
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
    tensors = [table, gradient, exp_avg, exp_avg_sq, steps, corrections]
    if len(table):
        native().sparse_adam(*arrays(tensors), lr, beta1, beta2, eps)


@_sparse_adam.register_fake
def _(table: Tensor, *rest: Any) -> None:
    return None


_sparse_adam.register_kernel("cuda", sparse_adam_on_cuda)


@operator("outer_adamw", mutates=("parameter", "exp_avg", "exp_avg_sq"))
def _outer_adamw(
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
    native().outer_adamw(
        *arrays([parameter, exp_avg, exp_avg_sq, rows, weights]),
        1 - lr * weight_decay,
        beta1,
        beta2,
        lr / (1 - beta1**step),
        1 / math.sqrt(1 - beta2**step),
        eps,
    )


@_outer_adamw.register_fake
def _(
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
    return None


_outer_adamw.register_kernel("cuda", outer_adamw_on_cuda)
