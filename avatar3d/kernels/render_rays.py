"""Rays to colours in one call, for pictures."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from avatar3d.kernels._backend import Backend, arrays, check_tensor, native, use_native
from avatar3d.kernels.composite import composite
from avatar3d.kernels.hashgrid import HashGrid, hash_encode, native_grid
from avatar3d.kernels.implementation import Implementation
from avatar3d.kernels.mlp import conditioned_mlp, native_mlp
from avatar3d.kernels.occupancy import Occupancy
from avatar3d.kernels.raymarch import Samples, check_rays, march, native_rays
from avatar3d.kernels.warp import WarpGrid

__all__ = ["FieldWeights", "Rendered", "render_rays"]


@dataclass(frozen=True)
class FieldWeights:
    """A radiance field at a point p: with x = (p - origin) / side,

        gates = sigmoid(hash_encode(x, attention)),
        raw = conditioned_mlp(hash_encode(x, table), weights, biases, gates, vectors),
        density = exp(clamp(raw_0 + log_density, least, most)), color = sigmoid(raw_1..3).

    Attributes:
        origin: (3,) and side: of the cube that the grids fill, metres.
        grid, table; attention_grid, attention: as `hash_encode` takes them; the latter encodes
            as G numbers.
        weights, biases: as `conditioned_mlp` takes them, with 4 outputs.
        log_density, least, most: see above.
    """

    origin: Tensor
    side: float
    grid: HashGrid
    table: Tensor
    attention_grid: HashGrid
    attention: Tensor
    weights: list[Tensor]
    biases: list[Tensor]
    log_density: float = 0.0
    least: float = -8.0
    most: float = 10.0


class Rendered(NamedTuple):
    """R rays before a black background: color (R, 3), alpha, depth (R,), both as `composite` has
    them, and gates (R, G) times alpha."""

    color: Tensor
    alpha: Tensor
    depth: Tensor
    gates: Tensor


@torch.no_grad()
def render_rays(
    origins: Tensor,
    directions: Tensor,
    frames: Tensor,
    warp: WarpGrid | None,
    occupancy: Occupancy,
    step: float,
    field: FieldWeights,
    vectors: Tensor,
    *,
    opaque: float = 1e-4,
    mask: Tensor | None = None,
    limits: tuple[Tensor, Tensor] | None = None,
    backend: Backend = "auto",
) -> Rendered:
    """What `march`, the field and `composite` make of rays, but looked up no further than is seen.

    Not differentiable. Natively a ray ends where it is opaque, so that a picture costs the field
    at some four points a pixel of the head.

    Args:
        origins, directions, frames, warp, occupancy, step, mask, limits: as `march` takes them.
        vectors: (F, G, H) of the frames, or (1, G, H) for all.
        opaque: a ray ends where less light than that comes through; so much may be missing of what
            it returns. At least the 1e-4 of `composite`.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or range.
    """
    check_rays(origins, directions, frames, warp, occupancy, step, None, limits, mask)
    groups, hidden = field.attention_grid.outputs, len(field.weights[0])
    check_tensor("vectors", vectors, (None, groups, hidden), float32=False, form="(F, G, H)")
    if len(vectors) not in (1, 1 if warp is None else len(warp)):
        raise ValueError(f"vectors are of {len(vectors)} frames, expected 1 or those of the warp.")
    if not 1e-4 <= opaque < 1:
        raise ValueError(f"opaque is {opaque}, expected a number from 1e-4 up to 1.")
    fast = origins.device.type == "cpu" and origins.dtype == torch.float32
    if not (fast and use_native(backend)):
        samples = march(
            origins, directions, frames, warp, occupancy, step, mask=mask, limits=limits,
            backend=backend,
        )  # fmt: skip
        return _in_torch(samples, frames, field, vectors, opaque, backend)
    count = len(origins)
    out = [torch.empty(count, *size) for size in ((3,), (), (), (groups,))]
    inputs = torch.empty(0, field.grid.outputs)
    table, attention, origin, density = arrays([
        field.table, field.attention, field.origin,
        torch.tensor([field.log_density, field.least, field.most]),
    ])  # fmt: skip
    native().render_rays(
        native_rays(origins, directions, frames, warp, occupancy, step, None, limits, mask),
        native_grid(field.grid), table, native_grid(field.attention_grid), attention,
        native_mlp(inputs, field.weights, field.biases, None, vectors, None),
        origin, 1 / field.side, density, float(opaque), *arrays(out),
    )  # fmt: skip
    return Rendered(*out)


def _in_torch(
    samples: Samples,
    frames: Tensor,
    field: FieldWeights,
    vectors: Tensor,
    opaque: float,
    backend: Backend,
) -> Rendered:
    implementation: Implementation = "torch" if backend == "reference" else "auto"
    unit = (samples.points - field.origin) * (1 / field.side)
    features = hash_encode(unit, field.table, field.grid, implementation=implementation)
    gates = hash_encode(
        unit, field.attention, field.attention_grid, implementation=implementation
    ).sigmoid()
    rows = frames[samples.rays.long()] if len(vectors) > 1 else torch.zeros_like(samples.rays)
    raw = conditioned_mlp(
        features, field.weights, field.biases, gates, vectors, rows, implementation=implementation
    )
    density = (raw[:, 0] + field.log_density).clamp(field.least, field.most).exp()
    color = raw[:, 1:].sigmoid()
    density = torch.where(_light_before(density, color, samples) < opaque, 0.0, density)
    out = composite(density, color, samples, gates, backend=backend)
    return Rendered(out.color, out.alpha, out.depth, out.extra)


def _light_before(density: Tensor, color: Tensor, samples: Samples) -> Tensor:
    """(N,) transmittance in front of each sample; those that are not finite let everything pass."""
    usable = density.isfinite() & color.isfinite().all(1)
    thickness = torch.where(usable, density * samples.dt, 0.0).double()
    before = thickness.cumsum(0) - thickness
    first = samples.offsets[:-1].long()[samples.rays.long()]
    return torch.exp(before[first] - before).float()
