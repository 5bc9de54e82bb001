"""A small multilayer perceptron whose first layer hears from the frame, region by region."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avatar3d.kernels import field_reference, tcnn
from avatar3d.kernels._backend import arrays, check_devices, check_tensor, native
from avatar3d.kernels.cuda import mlp as on_cuda
from avatar3d.kernels.implementation import Implementation, choose_implementation
from avatar3d.kernels.operators import operator

__all__ = ["conditioned_mlp"]

# As in cuda/cpu/field_types.h.
_MOST_LAYERS, _MOST_WIDTH, _MOST_OUTPUTS, _MOST_GROUPS, _PADDING = 6, 256, 16, 16, 16


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
    biases = [None] * len(weights) if biases is None else list(biases)
    chosen = choose_implementation(implementation, inputs, tcnn.mlp_misfit(weights, biases))
    _check(inputs, weights, biases, gates, vectors, rows, float32=chosen != "torch")
    if chosen == "torch":
        return field_reference.conditioned_mlp(inputs, weights, biases, gates, vectors, rows)
    if chosen == "tcnn":
        return tcnn.conditioned_mlp(inputs, weights, biases, gates, vectors, rows)
    _check_sizes(inputs, weights, vectors)
    present = [
        weight.new_zeros(len(weight)) if bias is None else bias
        for weight, bias in zip(weights, biases, strict=True)
    ]
    return _mlp(inputs, list(weights), present, gates, vectors, rows)


def _check_sizes(inputs: Tensor, weights: Sequence[Tensor], vectors: Tensor | None) -> None:
    groups = 1 if vectors is None else vectors.shape[1]
    for name, value, most in (
        ("layers", len(weights), _MOST_LAYERS),
        ("inputs", inputs.shape[1], _MOST_WIDTH),
        ("hidden neurons", len(weights[0]), _MOST_WIDTH),
        ("outputs", len(weights[-1]), _MOST_OUTPUTS),
        ("groups", groups, _MOST_GROUPS),
    ):
        if not 1 <= value <= most:
            raise ValueError(
                f"the MLP has {value} {name}, our kernels take 1 to {most}; "
                "implementation='torch' takes any number."
            )
    if len(weights[0]) % _PADDING:
        raise ValueError(
            f"the MLP has {len(weights[0])} hidden neurons, our kernels take multiples of "
            f"{_PADDING}; implementation='torch' takes any number."
        )


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


@operator("conditioned_mlp")
def _mlp(
    inputs: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    gates: Tensor | None,
    vectors: Tensor | None,
    rows: Tensor | None,
) -> Tensor:
    out = torch.empty(inputs.shape[0], weights[-1].shape[0])
    native().mlp(native_mlp(inputs, weights, biases, gates, vectors, rows), *arrays([out]))
    return out


@_mlp.register_fake
def _(inputs: Tensor, weights: list[Tensor], *rest: Any) -> Tensor:
    return inputs.new_empty(inputs.shape[0], weights[-1].shape[0])


def native_mlp(
    inputs: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    gates: Tensor | None,
    vectors: Tensor | None,
    rows: Tensor | None,
) -> Any:
    """The network and its points as the native module takes them."""
    return native().Mlp(
        *arrays([inputs]), arrays(weights), arrays(biases), *arrays([gates, vectors, rows])
    )


@operator("conditioned_mlp_backward")
def _mlp_backward(
    inputs: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    gates: Tensor | None,
    vectors: Tensor | None,
    rows: Tensor | None,
    v_outputs: Tensor,
    wanted: list[bool],
) -> list[Tensor]:
    """Gradients of inputs, gates, vectors, weights and biases, empty where not wanted.

    Args:
        wanted: as many as the result has tensors.
    """
    layers = len(weights)
    operands = [inputs, gates, vectors, *weights, *biases]
    grads = [
        torch.empty(t.shape) if want and t is not None else None
        for t, want in zip(operands, wanted, strict=True)
    ]
    v_inputs, v_gates, v_vectors, *of_layers = arrays(grads)
    native().mlp_backward(
        native_mlp(inputs, weights, biases, gates, vectors, rows), *arrays([v_outputs]), v_inputs,
        of_layers[:layers], of_layers[layers:], v_gates, v_vectors,
    )  # fmt: skip
    return [torch.empty(0) if g is None else g for g in grads]


@_mlp_backward.register_fake
def _(
    inputs: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    gates: Tensor | None,
    vectors: Tensor | None,
    rows: Tensor | None,
    v_outputs: Tensor,
    wanted: list[bool],
) -> list[Tensor]:
    operands = [inputs, gates, vectors, *weights, *biases]
    return [
        inputs.new_empty(t.shape if want and t is not None else 0)
        for t, want in zip(operands, wanted, strict=True)
    ]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    points, weights, biases, gates, vectors, rows = inputs
    ctx.layers = len(weights)
    ctx.save_for_backward(points, gates, vectors, rows, *weights, *biases)


def _backward(ctx: Any, v_outputs: Tensor) -> tuple[Any, ...]:
    inputs, gates, vectors, rows, *of_layers = ctx.saved_tensors
    weights, biases = of_layers[: ctx.layers], of_layers[ctx.layers :]
    points, of_weights, of_biases, of_gates, of_vectors, _ = ctx.needs_input_grad
    wanted = [points, of_gates, of_vectors, *of_weights, *of_biases]
    wanted = [bool(want) for want in wanted]
    grads = _mlp_backward(inputs, weights, biases, gates, vectors, rows, v_outputs, wanted)
    found = [g if want else None for g, want in zip(grads, wanted, strict=True)]
    v_inputs, v_gates, v_vectors, *rest = found
    return v_inputs, rest[: ctx.layers], rest[ctx.layers :], v_gates, v_vectors, None


_mlp.register_kernel("cuda", on_cuda.conditioned_mlp)
_mlp_backward.register_kernel("cuda", on_cuda.conditioned_mlp_backward)
_mlp.register_autograd(_backward, setup_context=_setup_context)
