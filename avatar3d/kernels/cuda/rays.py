"""Marching and compositing of rays on a GPU; cuda/gpu/rays.cu."""

import torch
from torch import Tensor

from avatar3d.kernels.cuda import modules

__all__ = ["composite", "composite_backward", "displace", "invert", "march"]

_THREADS = 128
Lattices = list[tuple[Tensor, Tensor]]


def _launch(kernel: str, count: int, device: torch.device, *arguments: modules.Argument) -> None:
    if count:
        grid = (-(-count // _THREADS), 1)
        modules.load("rays.cu", device).launch(kernel, grid, _THREADS, *arguments)


def _parts(lattices: Lattices) -> tuple[list[int], list[Tensor | None]]:
    """Nodes in x, y, z of the coarse and the fine lattice, and nodes and box of both."""
    sizes = [0] * 6
    tensors: list[Tensor | None] = [None] * 4
    for i, (box, nodes) in enumerate(lattices):
        sizes[3 * i : 3 * i + 3] = nodes.shape[3], nodes.shape[2], nodes.shape[1]
        tensors[2 * i : 2 * i + 2] = nodes.contiguous(), box.to(nodes).contiguous()
    return sizes, tensors


def invert(lattices: Lattices) -> list[Tensor]:
    """As `radiance_reference.invert`."""
    sizes, tensors = _parts(lattices)
    frames = len(lattices[0][1])
    inverse: list[Tensor] = []
    for i, (_, nodes) in enumerate(lattices):
        out = torch.empty_like(nodes, memory_format=torch.contiguous_format)
        smooth = inverse[0] if i else None
        _launch("invert_lattice", out.numel() // 4, out.device, frames, i, *sizes, *tensors,
                smooth, out)  # fmt: skip
        inverse.append(out)
    return inverse


def displace(points: Tensor, frames: Tensor, inverse: Lattices) -> Tensor:
    """As `radiance_reference.displace`."""
    sizes, tensors = _parts(inverse)
    out = torch.empty_like(points, memory_format=torch.contiguous_format)
    _launch("displace_points", len(points), out.device, len(points), *sizes, *tensors,
            points.contiguous(), frames.contiguous(), out)  # fmt: skip
    return out


def march(
    origins: Tensor,
    directions: Tensor,
    frames: Tensor,
    inverse: Lattices,
    box: Tensor,
    resolution: int,
    bits: Tensor,
    mask: Tensor | None,
    step: float,
    jitter: Tensor | None,
    limits: tuple[Tensor, Tensor] | None,
    max_samples: int,
) -> tuple[Tensor, Tensor, Tensor, int]:
    """As `radiance_reference.march`: counts first, then samples where their sums say."""
    sizes, tensors = _parts(inverse)
    rays = len(origins)
    first, last = (None, None) if limits is None else limits
    inputs = [
        *tensors, origins, directions, frames, box, bits.view(torch.int32),
        None if mask is None else mask.view(torch.int32), jitter, first, last,
    ]  # fmt: skip
    inputs = [None if t is None else t.detach().contiguous() for t in inputs]
    counts = torch.zeros(rays, dtype=torch.int32, device=origins.device)
    shape = (resolution, *sizes, step)
    nothing = (None, None, None, None)
    _launch("march_rays", rays, origins.device, rays, rays, *shape, *inputs, counts, *nothing)
    ends = counts.cumsum(0)
    marched = int((ends <= max_samples).sum())
    total = int(ends[marched - 1]) if marched else 0
    offsets = (ends - counts).int()
    points, t = origins.new_empty(total, 3), origins.new_empty(total)
    ray = torch.empty(total, dtype=torch.int32, device=origins.device)
    if total:
        _launch("march_rays", rays, origins.device, rays, marched, *shape, *inputs, None, offsets,
                points, t, ray)  # fmt: skip
    return points, t, ray, marched


def composite(
    density: Tensor, color: Tensor, extra: Tensor, t: Tensor, dt: Tensor, offsets: Tensor
) -> list[Tensor]:
    """As `avatar3d.kernels.composite._composite`."""
    inputs = [v.detach().contiguous() for v in (density, color, extra, t, dt, offsets)]
    rays, channels = len(offsets) - 1, extra.shape[1]
    sizes = ((rays, 3), (rays,), (rays,), (rays,), (rays, channels), (len(t),))
    out = [density.new_empty(size) for size in sizes]
    _launch("composite_rays", rays, t.device, rays, channels, *inputs, *out)
    return out


def composite_backward(inputs: list[Tensor], v_outputs: list[Tensor]) -> list[Tensor]:
    """As `avatar3d.kernels.composite._composite_backward`."""
    tensors = [v.detach().contiguous() for v in inputs]
    extra, t, offsets = tensors[2], tensors[3], tensors[5]
    rays = len(offsets) - 1
    scratch = [torch.empty_like(t), torch.empty_like(t)]
    grads = [torch.empty_like(v) for v in tensors[:3]]
    _launch("composite_rays_backward", rays, t.device, rays, extra.shape[1], *tensors,
            *(v.contiguous() for v in v_outputs), *scratch, *grads)  # fmt: skip
    return grads
