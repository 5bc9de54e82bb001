"""Samples along rays, in the occupied part of a volume."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from avatar3d.kernels import radiance_reference as reference
from avatar3d.kernels._backend import (
    Backend,
    arrays,
    check_devices,
    check_tensor,
    native,
    use_native,
)
from avatar3d.kernels.cuda import rays as on_cuda
from avatar3d.kernels.occupancy import Occupancy
from avatar3d.kernels.warp import WarpGrid, check_box, check_frames

__all__ = ["Samples", "march", "near_far"]

_MOST_STEPS = 4000  # of a ray; cuda/cpu makes room for so many


@dataclass(frozen=True)
class Samples:
    """N samples of R rays, one ray after the other, near ones first.

    Attributes:
        points: (N, 3) canonical, metres.
        t: (N,) distance from the ray's origin to the middle of the sample; dt: (N,) its length.
        offsets: (R + 1,) int32, where each ray's samples begin.
        rays: (N,) int32, whose each sample is.
        marched: rays 0 to marched - 1 have all of their samples, the rest none, as they did not
            fit into max_samples.
    """

    points: Tensor
    t: Tensor
    dt: Tensor
    offsets: Tensor
    rays: Tensor
    marched: int

    def __len__(self) -> int:
        return len(self.t)


def near_far(origins: Tensor, directions: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (R,) at which rays enter and leave a box; far = near = 0 where they miss it.

    A ray that starts inside has near 0. One parallel to a face hits if it runs between that face
    and the opposite one. NaN misses.

    Args:
        origins, directions: (R, 3), directions of unit length; box: (2, 3).

    Example:
        >>> box = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
        >>> near_far(torch.tensor([[0.0, 0, -3]]), torch.tensor([[0.0, 0, 1]]), box)
        (tensor([2.]), tensor([4.]))
    """
    check_tensor("origins", origins, (None, 3), float32=False, form="(R, 3)")
    check_tensor("directions", directions, tuple(origins.shape), float32=False, form="(R, 3)")
    check_box("box", box)
    return reference.near_far(origins, directions, box)


def march(
    origins: Tensor,
    directions: Tensor,
    frames: Tensor,
    warp: WarpGrid | None,
    occupancy: Occupancy,
    step: float,
    jitter: Tensor | None = None,
    max_samples: int = 1 << 24,
    *,
    mask: Tensor | None = None,
    limits: tuple[Tensor, Tensor] | None = None,
    backend: Backend = "auto",
) -> Samples:
    """Samples at t = near + (i + jitter) step of the box whose canonical point's cell is occupied.

    Their points are differentiable in origins and directions, the warp being held fixed.

    Args:
        origins, directions: (R, 3) metres, head frame; directions of unit length.
        frames: (R,) int32, the ray's frame in `warp`.
        warp: canonical to posed; None: points stay where they are.
        occupancy: of the canonical volume; its box bounds the rays.
        step: metres.
        jitter: (R,) in [0, 1), stratified sampling; None: 1/2, the middle of each step.
        max_samples: of all rays; see `Samples.marched`.
        mask: `posed_mask` of this occupancy and warp; without one, every step is unwarped.
        limits: (R,) first and last t of interest, for example around a mesh.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or range.
    """
    check_rays(origins, directions, frames, warp, occupancy, step, jitter, limits, mask)
    if max_samples < 0:
        raise ValueError(f"max_samples is {max_samples}, expected at least 0.")
    with torch.no_grad():
        fast = origins.dtype == torch.float32 and use_native(backend, origins)
        on_cpu = origins.device.type == "cpu"
        run = _march_natively if fast and on_cpu else _march_by(fast)
        samples = run(
            origins, directions, frames, warp, occupancy, float(step), jitter, limits, mask,
            max_samples,
        )  # fmt: skip
    if torch.is_grad_enabled() and (origins.requires_grad or directions.requires_grad):
        i = samples.rays.long()
        points = samples.points + (origins - origins.detach())[i]
        points = points + samples.t[:, None] * (directions - directions.detach())[i]
        return replace(samples, points=points)
    return samples


def _march_natively(
    origins: Tensor,
    directions: Tensor,
    frames: Tensor,
    warp: WarpGrid | None,
    occupancy: Occupancy,
    step: float,
    jitter: Tensor | None,
    limits: tuple[Tensor, Tensor] | None,
    mask: Tensor | None,
    max_samples: int,
) -> Samples:
    marched = native().Marched(
        native_rays(origins, directions, frames, warp, occupancy, step, jitter, limits, mask)
    )
    if marched.count() > max_samples:
        marched.limit(max_samples)
    n = marched.count()
    points, t, dt = torch.empty(n, 3), torch.empty(n), torch.empty(n)
    offsets = torch.empty(len(origins) + 1, dtype=torch.int32)
    rays = torch.empty(n, dtype=torch.int32)
    marched.fill(*arrays([points, t, dt, offsets, rays]))
    return Samples(points, t, dt, offsets, rays, marched.marched())


def check_rays(
    origins: Tensor,
    directions: Tensor,
    frames: Tensor,
    warp: WarpGrid | None,
    occupancy: Occupancy,
    step: float,
    jitter: Tensor | None,
    limits: tuple[Tensor, Tensor] | None,
    mask: Tensor | None,
) -> None:
    """Raise ValueError unless the arguments of `march` fit."""
    check_tensor("origins", origins, (None, 3), float32=False, form="(R, 3)")
    rays = len(origins)
    check_tensor("directions", directions, (rays, 3), float32=False, form=f"({rays}, 3)")
    check_frames(frames, rays, 2**31 - 1 if warp is None else len(warp))
    if not step > 0:
        raise ValueError(f"step is {step}, expected a positive number.")
    if jitter is not None:
        check_tensor("jitter", jitter, (rays,), float32=False, form=f"({rays},)")
    if limits is not None:
        for name, value in zip(("first", "last"), limits, strict=True):
            check_tensor(f"the {name} limit", value, (rays,), float32=False, form=f"({rays},)")
    if mask is not None:
        _check_mask(mask, warp, occupancy)
    check_devices(
        origins=origins, directions=directions, frames=frames, occupancy=occupancy.bits,
        jitter=jitter, mask=mask,
    )  # fmt: skip
    sides = occupancy.box[1] - occupancy.box[0]
    if float(sides.norm()) > _MOST_STEPS * step:
        raise ValueError(f"step is {step}, too small for a box of {sides.tolist()} metres.")


def native_rays(
    origins: Tensor,
    directions: Tensor,
    frames: Tensor,
    warp: WarpGrid | None,
    occupancy: Occupancy,
    step: float,
    jitter: Tensor | None,
    limits: tuple[Tensor, Tensor] | None,
    mask: Tensor | None,
) -> Any:
    """As the native module takes them. Without a warp all frames are alike."""
    first, last = (None, None) if limits is None else limits
    frames = frames if warp is not None else torch.zeros_like(frames)
    o, d, f, m, j, a, b = arrays([origins, directions, frames, mask, jitter, first, last])
    inverse = None if warp is None else warp.inverse.arrays()
    return native().Rays(o, d, f, inverse, occupancy.arrays(), m, step, j, a, b)


def _march_by(fast: bool) -> Any:
    """March by the kernels of a GPU, or in torch."""
    return partial(_march_elsewhere, on_cuda.march if fast else reference.march)


def _march_elsewhere(
    kernel: Any,
    origins: Tensor,
    directions: Tensor,
    frames: Tensor,
    warp: WarpGrid | None,
    occupancy: Occupancy,
    step: float,
    jitter: Tensor | None,
    limits: tuple[Tensor, Tensor] | None,
    mask: Tensor | None,
    max_samples: int,
) -> Samples:
    points, t, ray, marched = kernel(
        origins, directions, frames, [] if warp is None else warp.inverse.lattices(),
        occupancy.box.to(origins), occupancy.resolution, occupancy.bits, mask, step, jitter,
        limits, max_samples,
    )  # fmt: skip
    counts = torch.bincount(ray.long(), minlength=len(origins))
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
    return Samples(points, t, torch.full_like(t, step), offsets, ray, marched)


def _check_mask(mask: Tensor, warp: WarpGrid | None, occupancy: Occupancy) -> None:
    shape = (0 if warp is None else len(warp), len(occupancy.bits))
    if warp is None:
        raise ValueError("mask is given without a warp.")
    if mask.dtype != torch.uint8 or mask.shape != shape:
        raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}, expected uint8 {shape}.")
