"""The radiance field's kernels in plain torch, any floating dtype: oracle and fallback."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from avatar3d.kernels.hashgrid import HashGrid

__all__ = ["conditioned_mlp", "hash_encode", "sparse_adam"]

_PRIMES = (1, 2654435761, 805459861)
_CORNERS = [(i & 1, i >> 1 & 1, i >> 2) for i in range(8)]


def hash_encode(points: Tensor, table: Tensor, layout: "HashGrid") -> Tensor:
    """As `avatar3d.kernels.hash_encode`."""
    inside = points.clamp(0, 1)
    inside = torch.where(points.isnan(), torch.zeros_like(inside), inside)
    features = []
    for scale, resolution, offset, size in layout.levels_of_table:
        position = inside * scale + 0.5
        cell = position.detach().floor()
        fraction = position - cell
        lower = cell.long()
        total = table.new_zeros(len(points), layout.features)
        for corner in _CORNERS:
            shift = torch.tensor(corner, device=points.device)
            index = _index(lower + shift, resolution, size)
            weight = torch.where(shift.bool(), fraction, 1 - fraction).prod(-1)
            total = total + weight[:, None] * table[offset + index]
        features.append(total)
    return torch.cat(features, -1)


def _index(node: Tensor, resolution: int, size: int) -> Tensor:
    """Entry within the level of integer nodes (N, 3): in order while that fits, else hashed."""
    x, y, z = node.unbind(-1)
    if resolution**3 <= size:
        return (x + resolution * (y + resolution * z)) % size
    hashed = x * _PRIMES[0] ^ y * _PRIMES[1] ^ z * _PRIMES[2]
    return (hashed & 0xFFFFFFFF) % size


def conditioned_mlp(
    inputs: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    gates: Tensor | None,
    vectors: Tensor | None,
    rows: Tensor | None,
) -> Tensor:
    """As `avatar3d.kernels.conditioned_mlp`."""
    hidden = inputs
    last = len(weights) - 1
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = torch.nn.functional.linear(hidden, weight, bias)
        if i == 0 and vectors is not None:
            hidden = hidden + condition(gates, vectors, rows)
        if i < last:
            hidden = hidden.relu()
    return hidden


def condition(gates: Tensor | None, vectors: Tensor, rows: Tensor | None) -> Tensor:
    """What the frames add before the first ReLU, (N, H) or (1, H) if all points are alike."""
    chosen = vectors if rows is None else vectors[rows.long()]
    if gates is None:
        return chosen.sum(1)
    return (gates[:, :, None] * chosen).sum(1)


def sparse_adam(
    table: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    steps: Tensor,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """As `avatar3d.kernels.sparse_adam_`."""
    touched = (gradient != 0).any(-1) & gradient.isfinite().all(-1)
    rows = touched.nonzero()[:, 0]
    steps[rows] += 1
    g, t = gradient[rows], steps[rows].to(table.dtype)[:, None]
    exp_avg[rows] = exp_avg[rows].lerp(g, 1 - betas[0])
    exp_avg_sq[rows] = betas[1] * exp_avg_sq[rows] + (1 - betas[1]) * g * g
    root = (exp_avg_sq[rows] / (1 - betas[1] ** t)).sqrt()
    table[rows] -= lr / (1 - betas[0] ** t) * exp_avg[rows] / (root + eps)
    gradient.zero_()
