"""The conditioned MLP on a GPU; cuda/gpu/mlp.cu."""

import torch
from torch import Tensor

from avatar3d.kernels.cuda import modules

__all__ = ["conditioned_mlp", "conditioned_mlp_backward"]

_THREADS = 256
_POINTS = 32  # of a block
_MOST_WIDTH = 128  # of a layer


def conditioned_mlp(
    inputs: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    gates: Tensor | None,
    vectors: Tensor | None,
    rows: Tensor | None,
) -> Tensor:
    """As `avatar3d.kernels.mlp._mlp`."""
    return _forward(inputs, weights, biases, gates, vectors, rows, None)


def _forward(
    inputs: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    gates: Tensor | None,
    vectors: Tensor | None,
    rows: Tensor | None,
    active: Tensor | None,
) -> Tensor:
    count, (hidden, size), outputs = len(inputs), weights[0].shape, len(weights[-1])
    if max(hidden, size) > _MOST_WIDTH:
        raise ValueError(
            f"the MLP has {size} inputs and {hidden} hidden neurons, our CUDA kernels take up to "
            f"{_MOST_WIDTH}; implementation='torch' takes any number."
        )
    out = inputs.new_empty(count, outputs)
    if not count:
        return out
    modules.load("mlp.cu", inputs.device).launch(
        "mlp_forward", (-(-count // _POINTS), 1), _THREADS,
        count, len(weights), size, hidden, outputs, 0 if vectors is None else vectors.shape[1],
        torch.cat([w.detach().t().reshape(-1) for w in weights]), torch.cat(biases).detach(),
        inputs.detach().contiguous(),
        *(None if t is None else t.detach().contiguous() for t in (gates, vectors, rows)),
        active, out,
    )  # fmt: skip
    return out


def conditioned_mlp_backward(
    inputs: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    gates: Tensor | None,
    vectors: Tensor | None,
    rows: Tensor | None,
    v_outputs: Tensor,
    wanted: list[bool],
) -> list[Tensor]:
    """As `avatar3d.kernels.mlp._mlp_backward`.

    The gradient of vectors comes in by atomic additions: its last digits may differ from run to
    run.
    """
    count, layers, (hidden, size) = len(inputs), len(weights), weights[0].shape
    by_inputs, by_gates, by_vectors, *by_layers = wanted
    v_outputs = v_outputs.contiguous()
    active = inputs.new_empty(layers - 1, count, hidden)
    v_sums = torch.empty_like(active)
    v_inputs = inputs.new_empty(count, size) if by_inputs else None
    if count:
        _forward(inputs, weights, biases, gates, vectors, rows, active)
        modules.load("mlp.cu", inputs.device).launch(
            "mlp_backward", (-(-count // _POINTS), 1), _THREADS,
            count, layers, size, hidden, len(weights[-1]),
            torch.cat([w.detach().reshape(-1) for w in reversed(weights)]), active, v_outputs,
            v_sums, v_inputs,
        )  # fmt: skip
    none = inputs.new_empty(0)
    before = [inputs.detach(), *active]  # what each layer reads
    after = [*v_sums, v_outputs]  # the gradient at its sums
    of_weights = [
        v.t() @ x if want else none
        for v, x, want in zip(after, before, by_layers[:layers], strict=True)
    ]
    of_biases = [
        v.sum(0) if want else none for v, want in zip(after, by_layers[layers:], strict=True)
    ]
    of_gates, of_vectors = none, none
    if by_gates and gates is not None and vectors is not None:
        chosen = vectors.expand(count, -1, -1) if rows is None else vectors[rows.long()]
        of_gates = torch.einsum("ngh,nh->ng", chosen, v_sums[0])
    if by_vectors and vectors is not None:
        ones = inputs.new_ones(1, 1) if gates is None else gates
        each = ones[:, :, None] * v_sums[0][:, None].expand(-1, vectors.shape[1], -1)
        index = torch.zeros(count, dtype=torch.int32, device=inputs.device)
        of_vectors = torch.zeros_like(vectors).index_add_(0, index if rows is None else rows, each)
    return [none if v_inputs is None else v_inputs, of_gates, of_vectors, *of_weights, *of_biases]
