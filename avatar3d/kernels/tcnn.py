"""tiny-cuda-nn's hash grid and MLP with our arguments, where it is installed."""

import importlib
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from avatar3d.kernels import field_reference

if TYPE_CHECKING:
    from avatar3d.kernels.hashgrid import HashGrid

__all__ = ["conditioned_mlp", "grid_misfit", "hash_encode", "mlp_misfit"]

_FEATURES = (1, 2, 4, 8)
_WIDTHS = (16, 32, 64, 128)
_PADDING = 16


def grid_misfit(layout: "HashGrid") -> str:
    """Why tiny-cuda-nn does not have that grid, "" if it does."""
    if layout.features not in _FEATURES:
        return f"its hash grids have 1, 2, 4 or 8 features, not {layout.features}"
    return ""


def mlp_misfit(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> str:
    """Why tiny-cuda-nn does not have that MLP, "" if it does."""
    if len(weights) < 2 or len(weights[0]) not in _WIDTHS:
        return "its fused MLPs have 16, 32, 64 or 128 neurons in hidden layers"
    if any(bias is not None for bias in biases[1:-1]):
        return "its hidden layers after the first have no bias"
    return ""


def hash_encode(points: Tensor, table: Tensor, layout: "HashGrid") -> Tensor:
    """As `avatar3d.kernels.hash_encode`. Raises RuntimeError if its table has another size."""
    config = (
        ("otype", "HashGrid"), ("n_levels", layout.levels),
        ("n_features_per_level", layout.features), ("log2_hashmap_size", layout.log2_size),
        ("base_resolution", layout.base), ("per_level_scale", layout.growth),
        ("interpolation", "Linear"),
    )  # fmt: skip
    module = _module("Encoding", (3,), config, str(points.device))
    if module.params.numel() != table.numel():
        raise RuntimeError(
            f"tiny-cuda-nn's table has {module.params.numel()} numbers for this hash grid, ours "
            f"{table.numel()}: rounding made one of its levels larger; take another finest."
        )
    inside = torch.where(points.isnan(), torch.zeros_like(points), points).clamp(0, 1)
    return _call(module, table.reshape(-1), inside)


def conditioned_mlp(
    inputs: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    gates: Tensor | None,
    vectors: Tensor | None,
    rows: Tensor | None,
) -> Tensor:
    """As `avatar3d.kernels.conditioned_mlp`.

    What is added before the first ReLU comes in as further inputs, with the identity for weights.
    """
    first, *between, last = weights
    added = inputs.new_zeros(len(inputs), 0)
    if vectors is not None or biases[0] is not None:
        added = inputs.new_zeros(len(inputs), len(first))
        if vectors is not None:
            added = added + field_reference.condition(gates, vectors, rows)
        if biases[0] is not None:
            added = added + biases[0]
        first = torch.cat([first, torch.eye(len(first), device=first.device)], 1)
    config = (
        ("otype", "FullyFusedMLP"), ("activation", "ReLU"), ("output_activation", "None"),
        ("n_neurons", len(first)), ("n_hidden_layers", len(weights) - 1),
    )  # fmt: skip
    module = _module("Network", (first.shape[1], len(last)), config, str(inputs.device))
    layers = [_padded(first, columns=True), *between, _padded(last, columns=False)]
    params = torch.cat([layer.reshape(-1) for layer in layers])
    out = _call(module, params, torch.cat([inputs, added], 1))
    return out if biases[-1] is None else out + biases[-1]


def _padded(weight: Tensor, columns: bool) -> Tensor:
    """With zeros up to a multiple of 16, as its matrices are stored."""
    missing = -weight.shape[1 if columns else 0] % _PADDING
    return torch.nn.functional.pad(weight, (0, missing) if columns else (0, 0, 0, missing))


@cache
def _module(kind: str, sizes: tuple[int, ...], config: tuple[Any, ...], device: str) -> Any:
    # by its name: it is in no registry, so that no requirement of ours could name it
    module = importlib.import_module("tinycudann")
    return getattr(module, kind)(*sizes, dict(config)).to(device)


def _call(module: Any, params: Tensor, inputs: Tensor) -> Tensor:
    """The module with other parameters than its own."""
    out: Tensor = torch.func.functional_call(module, {"params": params}, (inputs,))
    return out.to(inputs.dtype)
