"""A small multilayer perceptron whose first layer hears from the frame, region by region."""

from collections.abc import Sequence

import torch
from torch import Tensor

from avatar3d.kernels import field_reference
from avatar3d.kernels._backend import check_devices, check_tensor
from avatar3d.kernels.implementation import Implementation, use_kernels

__all__ = ["conditioned_mlp"]


def conditioned_mlp(
    inputs: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None = None,
    gates: Tensor | None = None,
    vectors: Tensor | None = None,
    rows: Tensor | None = None,
    *,
    implementation: Implementation = "auto",
) -> Tensor:
    """(N, O). ReLU after every layer but the last; differentiable in everything but `rows`.

    The first layer of point n, whose frame is f = rows[n], is

        relu(W_1 inputs[n] + b_1 + sum_g gates[n, g] vectors[f, g]),

    which with vectors[f, g] = W_g c_g is the first layer of an MLP on the inputs and the codes
    gates[n, g] c_g.

    Args:
        inputs: (N, D).
        weights: (H, D), then any number of (H, H), then (O, H).
        biases: of each layer, (H,), ..., (O,), None for a layer without; None for none at all.
        gates: (N, G), None for ones.
        vectors: (F, G, H), None for none.
        rows: (N,) int32 below F; None where F is 1.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device, or a row is out of range.
        RuntimeError: the implementation asked for is not there.
    """
    chosen = use_kernels(implementation, inputs)
    biases = [None] * len(weights) if biases is None else list(biases)
    _check(inputs, weights, biases, gates, vectors, rows, float32=chosen != "torch")
    return field_reference.conditioned_mlp(inputs, weights, biases, gates, vectors, rows)


def _check(
    inputs: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    gates: Tensor | None,
    vectors: Tensor | None,
    rows: Tensor | None,
    *,
    float32: bool,
) -> None:
    check_tensor("inputs", inputs, (None, None), float32=float32, form="(N, D)")
    count, size = inputs.shape
    if len(weights) < 2 or len(weights) != len(biases):
        raise ValueError(
            f"there are {len(weights)} weights and {len(biases)} biases, expected as many of both "
            "and at least 2."
        )
    hidden = len(weights[0])
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        rows_of_weight = hidden if i < len(weights) - 1 else len(weight)
        shape = (rows_of_weight, size)
        check_tensor(f"weights[{i}]", weight, shape, float32=float32, form=f"{shape}")
        if bias is not None:
            check_tensor(
                f"biases[{i}]", bias, shape[:1], float32=float32, form=f"({rows_of_weight},)"
            )
        size = rows_of_weight
    if vectors is None:
        if gates is not None or rows is not None:
            raise ValueError("gates and rows mean nothing without vectors.")
    else:
        check_tensor("vectors", vectors, (None, None, hidden), float32=float32, form="(F, G, H)")
        _check_rows(rows, count, len(vectors))
        if gates is not None:
            shape = (count, vectors.shape[1])
            check_tensor("gates", gates, shape, float32=float32, form=f"(N, G) = {shape}")
    check_devices(
        inputs=inputs, gates=gates, vectors=vectors, rows=rows,
        **{f"weights[{i}]": w for i, w in enumerate(weights)},
        **{f"biases[{i}]": b for i, b in enumerate(biases)},
    )  # fmt: skip


def _check_rows(rows: Tensor | None, count: int, frames: int) -> None:
    if rows is None:
        if frames != 1:
            raise ValueError(f"vectors are of {frames} frames; rows must say which is whose.")
        return
    if rows.dtype != torch.int32 or tuple(rows.shape) != (count,):
        raise ValueError(
            f"rows is {rows.dtype} {tuple(rows.shape)}, expected torch.int32 ({count},)."
        )
    if count and not 0 <= int(rows.min()) <= int(rows.max()) < frames:
        raise ValueError(f"rows names frames outside of the {frames} that vectors has.")
