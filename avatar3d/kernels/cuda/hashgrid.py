"""The multiresolution hash grid on a GPU; cuda/gpu/hashgrid.cu."""

from functools import cache

import torch
from torch import Tensor

from avatar3d.kernels.cuda import modules

__all__ = ["collect_gradient", "hash_encode", "hash_encode_backward"]

_THREADS = 256


@cache
def _levels(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """(5, L) int32: scale (the float's bits), resolution, first entry, size, hashed (0 or -1)."""
    from avatar3d.kernels.hashgrid import HashGrid

    scale, resolution, first, size = zip(*HashGrid(*shape).levels_of_table, strict=True)
    hashed = [-int(r**3 > n) for r, n in zip(resolution, size, strict=True)]
    bits = torch.tensor(scale, dtype=torch.float32).view(torch.int32)
    others = torch.tensor([resolution, first, size, hashed], dtype=torch.int32)
    return torch.cat([bits[None], others]).to(device)


def _launch(
    kernel: str, by_level: bool, shape: list[int], points: Tensor, *tensors: Tensor
) -> None:
    count = len(points)
    if count:
        modules.load("hashgrid.cu", points.device).launch(
            kernel, (-(-count // _THREADS), shape[0] if by_level else 1), _THREADS,
            count, shape[0], shape[1], _levels(tuple(shape), points.device), points, *tensors,
        )  # fmt: skip


def hash_encode(points: Tensor, table: Tensor, shape: list[int]) -> Tensor:
    """As `avatar3d.kernels.hashgrid._hash_encode`."""
    points, table = points.detach().contiguous(), table.detach().contiguous()
    out = points.new_empty(len(points), shape[0] * shape[1])
    _launch("hash_encode", True, shape, points, table, out)
    return out


def hash_encode_backward(
    points: Tensor, table: Tensor, v_features: Tensor, shape: list[int], wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    """As `avatar3d.kernels.hashgrid._hash_encode_backward`.

    The table's gradient comes in by atomic additions: its last digits may differ from run to run.
    """
    v_table = torch.zeros_like(table) if wanted[1] else table.new_empty(0)
    if wanted[1]:
        points, v_features = points.detach().contiguous(), v_features.contiguous()
        _launch("hash_encode_table", True, shape, points, v_features, v_table)
    return _points_gradient(points, table, v_features, shape, wanted[0]), v_table


def collect_gradient(
    points: Tensor,
    table: Tensor,
    v_features: Tensor,
    gradient: Tensor,
    shape: list[int],
    wanted: bool,
) -> Tensor:
    """As `avatar3d.kernels.hashgrid._collect_gradient`."""
    points, v_features = points.detach().contiguous(), v_features.contiguous()
    _launch("hash_encode_table", True, shape, points, v_features, gradient)
    return _points_gradient(points, table, v_features, shape, wanted)


def _points_gradient(
    points: Tensor, table: Tensor, v_features: Tensor, shape: list[int], wanted: bool
) -> Tensor:
    if not wanted:
        return points.new_empty(0)
    points, table = points.detach().contiguous(), table.detach().contiguous()
    v_points = torch.empty_like(points)
    _launch("hash_encode_points", False, shape, points, table, v_features.contiguous(), v_points)
    return v_points
