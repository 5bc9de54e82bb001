"""Multiresolution hash grid (Mueller et al., "Instant neural graphics primitives", 2022)."""

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar3d.kernels import field_reference, tcnn
from avatar3d.kernels._backend import arrays, check_devices, check_tensor, native
from avatar3d.kernels.cuda import hashgrid as on_cuda
from avatar3d.kernels.implementation import Implementation, choose_implementation
from avatar3d.kernels.operators import operator

__all__ = ["HashGrid", "hash_encode"]

MOST_LEVELS = 32
MOST_FEATURES = 8
_ALIGNMENT = 8  # entries, as in tiny-cuda-nn
_LARGEST_LOG2_SIZE = 24


@dataclass(frozen=True)
class HashGrid:
    """How a table of entries is spread over grids of growing resolution; as in tiny-cuda-nn.

    Level l has scale s = base (finest / base)^(l / (levels - 1)) - 1 and ceil(s) + 1 nodes a side;
    the point x of [0, 1]^3 lies at s x + 1/2. A level whose nodes fit into 2^log2_size entries
    keeps them in order, x fastest; others are hashed. One level that fits is a dense grid.

    Attributes:
        levels: 1 to 32.
        features: numbers of an entry, 1 to 8 (tiny-cuda-nn knows 1, 2, 4 and 8).
        log2_size: at most 2^log2_size entries a level; 3 to 24.
        base, finest: nodes a side of the first and the last level.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> grid = HashGrid(levels=2, features=2, log2_size=12, base=8, finest=32)
        >>> grid.resolutions, grid.entries, grid.outputs
        ((8, 32), 4608, 4)
    """

    levels: int = 16
    features: int = 2
    log2_size: int = 16
    base: int = 16
    finest: int = 1024

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("levels", self.levels, 1, MOST_LEVELS),
            ("features", self.features, 1, MOST_FEATURES),
            ("log2_size", self.log2_size, 3, _LARGEST_LOG2_SIZE),
            ("base", self.base, 2, 1 << 15),
            ("finest", self.finest, self.base, 1 << 15),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} of a hash grid is {value}, expected {least} to {most}.")

    @property
    def growth(self) -> float:
        """Resolution of a level over that of the one before."""
        return (self.finest / self.base) ** (1 / max(1, self.levels - 1))

    @cached_property
    def levels_of_table(self) -> tuple[tuple[float, int, int, int], ...]:
        """Scale, resolution, first entry and number of entries of each level."""
        result = []
        first = 0
        for level in range(self.levels):
            scale = self.base * self.growth**level - 1
            if abs(scale - round(scale)) < 1e-6 * scale:
                scale = float(round(scale))  # or rounding would decide about the resolution
            resolution = math.ceil(scale) + 1
            size = min(-(-(resolution**3) // _ALIGNMENT) * _ALIGNMENT, 1 << self.log2_size)
            result.append((scale, resolution, first, size))
            first += size
        return tuple(result)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Nodes a side of each level."""
        return tuple(level[1] for level in self.levels_of_table)

    @property
    def entries(self) -> int:
        """P, rows of the table."""
        *_, first, size = self.levels_of_table[-1]
        return first + size

    @property
    def outputs(self) -> int:
        """Numbers that a point is encoded as."""
        return self.levels * self.features

    def initial_table(self, generator: torch.Generator | None = None) -> Tensor:
        """(P, features), uniform in [-1e-4, 1e-4] as the paper has it."""
        table = torch.rand(self.entries, self.features, generator=generator)
        return table.sub_(0.5).mul_(2e-4)


def hash_encode(
    points: Tensor,
    table: Tensor,
    layout: HashGrid,
    *,
    gradient: Tensor | None = None,
    implementation: Implementation = "auto",
) -> Tensor:
    """Features of points, interpolated in every level, (N, levels * features).

    Differentiable in points and table. What lies outside of [0, 1] is moved to the border, where it
    has no gradient; NaN counts as 0.

    Args:
        points: (N, 3) in [0, 1].
        table: (P, features) of `layout`.
        gradient: (P, features), to which the backward pass adds the table's gradient; the table
            itself then gets none. Saves making and clearing one as large as the table at every
            step; see `sparse_adam_`.
        implementation: "auto" is tiny-cuda-nn if it is installed and the tensors are on a GPU, else
            our kernels, else torch.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device.
        RuntimeError: the implementation asked for is not there.

    Example:
        >>> grid = HashGrid(levels=1, features=1, log2_size=3, base=2, finest=2)
        >>> table = torch.arange(8.0)[:, None]
        >>> float(hash_encode(torch.tensor([[0.5, 0.0, 0.0]]), table, grid))
        4.0
    """
    chosen = choose_implementation(implementation, points, tcnn.grid_misfit(layout))
    fast = chosen != "torch"
    check_tensor("points", points, (None, 3), float32=fast, form="(N, 3)")
    shape = (layout.entries, layout.features)
    for name, value in (("table", table), ("gradient", gradient)):
        if value is not None:
            check_tensor(name, value, shape, float32=fast, form=f"(P, features) = {shape}")
    check_devices(points=points, table=table, gradient=gradient)
    if chosen == "native":
        return _encode_native(points, table, layout, gradient)
    if gradient is not None:
        table = _Collected.apply(table, table.new_zeros((), requires_grad=True), gradient)
    if chosen == "tcnn":
        return tcnn.hash_encode(points, table, layout)
    return field_reference.hash_encode(points, table, layout)


def _encode_native(
    points: Tensor, table: Tensor, layout: HashGrid, gradient: Tensor | None
) -> Tensor:
    # the operator learns the layout as numbers
    shape = [layout.levels, layout.features, layout.log2_size, layout.base, layout.finest]
    if gradient is None:
        return _hash_encode(points, table, shape)
    if not gradient.is_contiguous():
        raise ValueError("gradient is not contiguous.")
    probe = table.new_zeros((), requires_grad=torch.is_grad_enabled())
    encoded: Tensor = _Collecting.apply(points, probe, table.detach(), shape, gradient)
    return encoded


class _Collecting(torch.autograd.Function):
    """The native encoding; the table's gradient is added to a tensor and goes no further."""

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, probe: Tensor, table: Tensor, shape: list[int], gradient: Tensor
    ) -> Tensor:
        ctx.save_for_backward(points, table)
        ctx.shape, ctx.gradient = shape, gradient
        return _hash_encode(points, table, shape)

    @staticmethod
    def backward(ctx: Any, v_features: Tensor) -> tuple[Tensor | None, ...]:
        points, table = ctx.saved_tensors
        wanted = bool(ctx.needs_input_grad[0])
        v_points = _collect_gradient(points, table, v_features, ctx.gradient, ctx.shape, wanted)
        return v_points if wanted else None, None, None, None, None


def native_grid(layout: HashGrid) -> Any:
    """The layout as the native module takes it."""
    return _grid([layout.levels, layout.features, layout.log2_size, layout.base, layout.finest])


def _grid(shape: list[int]) -> Any:
    """The layout as the native module knows it."""
    return native().Grid(shape[1], *_level_arrays(tuple(shape)))


@cache
def _level_arrays(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Scale, resolution, first entry, entries and whether they are hashed, of each level."""
    scale, resolution, first, size = zip(*HashGrid(*shape).levels_of_table, strict=True)
    hashed = [r**3 > n for r, n in zip(resolution, size, strict=True)]
    integers = [np.array(v, np.int32) for v in (resolution, first, size, hashed)]
    return [np.array(scale, np.float32), *integers]


@operator("hash_encode")
def _hash_encode(points: Tensor, table: Tensor, shape: list[int]) -> Tensor:
    out = torch.empty(points.shape[0], shape[0] * shape[1])
    native().hash_encode(_grid(shape), *arrays([points, table, out]))
    return out


@_hash_encode.register_fake
def _(points: Tensor, table: Tensor, shape: list[int]) -> Tensor:
    return points.new_empty(points.shape[0], shape[0] * shape[1])


@operator("hash_encode_backward")
def _hash_encode_backward(
    points: Tensor, table: Tensor, v_features: Tensor, shape: list[int], wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of points and table, empty where not wanted."""
    v_points = torch.empty(points.shape if wanted[0] else 0)
    v_table = torch.zeros(table.shape if wanted[1] else 0)
    native().hash_encode_backward(
        _grid(shape), *arrays([points, table, v_features]),
        *arrays([v_table if wanted[1] else None, v_points if wanted[0] else None]),
    )  # fmt: skip
    return v_points, v_table


@_hash_encode_backward.register_fake
def _(
    points: Tensor, table: Tensor, v_features: Tensor, shape: list[int], wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    return (
        points.new_empty(points.shape if wanted[0] else 0),
        table.new_empty(table.shape if wanted[1] else 0),
    )


@operator("hash_encode_collect", mutates=("gradient",))
def _collect_gradient(
    points: Tensor,
    table: Tensor,
    v_features: Tensor,
    gradient: Tensor,
    shape: list[int],
    wanted: bool,
) -> Tensor:
    """Adds the table's gradient to `gradient`; that of the points, empty if not wanted."""
    v_points = torch.empty(points.shape if wanted else 0)
    native().hash_encode_backward(
        _grid(shape), *arrays([points, table, v_features, gradient]),
        *arrays([v_points if wanted else None]),
    )  # fmt: skip
    return v_points


@_collect_gradient.register_fake
def _(
    points: Tensor,
    table: Tensor,
    v_features: Tensor,
    gradient: Tensor,
    shape: list[int],
    wanted: bool,
) -> Tensor:
    return points.new_empty(points.shape if wanted else 0)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    points, table, ctx.shape = inputs
    ctx.save_for_backward(points, table)


def _backward(ctx: Any, v_features: Tensor) -> tuple[Tensor | None, ...]:
    wanted = [bool(need) for need in ctx.needs_input_grad[:2]]
    grads = _hash_encode_backward(*ctx.saved_tensors, v_features, ctx.shape, wanted)
    v_points, v_table = (g if want else None for g, want in zip(grads, wanted, strict=True))
    return v_points, v_table, None


_hash_encode.register_kernel("cuda", on_cuda.hash_encode)
_hash_encode_backward.register_kernel("cuda", on_cuda.hash_encode_backward)
_collect_gradient.register_kernel("cuda", on_cuda.collect_gradient)
_hash_encode.register_autograd(_backward, setup_context=_setup_context)


class _Collected(torch.autograd.Function):
    """The table itself; its gradient is added to a tensor and goes no further."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, probe: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return table.detach().view_as(table)

    @staticmethod
    def backward(ctx: Any, v_table: Tensor) -> tuple[None, None, None]:
        ctx.gradient.add_(v_table)
        return None, None, None
