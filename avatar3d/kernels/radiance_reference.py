"""Warping, marching and compositing of rays in plain torch: slow, obviously right, any dtype.

See `warp`, `occupancy`, `raymarch` and `composite` for what these compute.
"""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

__all__ = [
    "STOP_TRANSMITTANCE",
    "bit_set",
    "composite",
    "displace",
    "displacement",
    "invert",
    "march",
    "near_far",
    "node_places",
    "pack_bits",
    "posed_mask",
    "unpack_bits",
    "warp_nodes",
]

STOP_TRANSMITTANCE = 1e-4
_EVALUATIONS = 10  # of a warp, to invert it, as in cuda/include/avatar3d/warp.h
_TOLERANCE = 2e-5  # metres
_MARGIN = 0.25  # cells around what a warp moves, for what interpolation makes of the inverse
_STEPS_AT_ONCE = 1 << 22  # of rays that are marched together


def displacement(
    points: Tensor, frames: Tensor, box: Tensor, nodes: Tensor, *, fades: bool
) -> Tensor:
    """Trilinear values of lattices with nodes on the faces of the box.

    Args:
        points: (N, 3).
        frames: (N,) which lattice.
        box: (2, 3).
        nodes: (F, D, H, W, 4), the last number unused.
        fades: 0 outside of the box, otherwise the nearest point's.

    Returns:
        (N, 3).
    """
    sizes = torch.tensor(nodes.shape[1:4]).flip(0)  # x y z
    last = (sizes - 1).to(points)
    place = (points - box[0]) * (last / (box[1] - box[0]))
    inside = ((place >= 0) & (place <= last)).all(-1)
    place = torch.minimum(place.nan_to_num(0).clamp(min=0), last)
    corner = torch.minimum(place.floor(), last - 1)
    part = place - corner
    x, y, z = corner.long().unbind(-1)
    total = torch.zeros_like(points)
    for k, j, i in product((0, 1), repeat=3):
        sides = [part[:, a] if s else 1 - part[:, a] for a, s in enumerate((i, j, k))]
        weight = sides[0] * sides[1] * sides[2]
        total = total + weight[:, None] * nodes[frames.long(), z + k, y + j, x + i, :3]
    return torch.where(inside[:, None], total, 0) if fades else total


def invert(lattices: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Nodes, in the same places, of the displacements that take posed points back."""
    inverse: list[Tensor] = []
    for i, (box, nodes) in enumerate(lattices):
        frames, *sizes, _ = nodes.shape
        points = node_places(box, sizes).to(nodes)
        every = torch.arange(frames, device=nodes.device)
        which = every.repeat_interleave(len(points))
        points = points.repeat(frames, 1)
        back = search(points, which, lattices) - points
        if i:
            back = back - displacement(points, which, lattices[0][0], inverse[0], fades=False)
        back = back.view(frames, *sizes, 3)
        if i:  # without a step at the border
            inner = torch.zeros_like(back)
            inside = (slice(None), *[slice(1, -1)] * 3)
            inner[inside] = back[inside]
            back = inner
        inverse.append(torch.nn.functional.pad(back, (0, 1)))
    return inverse


def search(x: Tensor, frames: Tensor, lattices: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The c with c + u(c) = x, by fixed point iteration with Aitken's relaxation."""
    c, before = x.clone(), torch.zeros_like(x)
    pace = x.new_ones(len(x), 1)
    for i in range(_EVALUATIONS):
        r = x - displace(c, frames, lattices)
        if i:
            change = r - before
            along = (before * change).sum(-1, keepdim=True)
            pace = -pace * along / (change * change).sum(-1, keepdim=True).clamp(min=1e-20)
            pace = pace.clamp(0.1, 1)
        away = (r * r).sum(-1, keepdim=True) > _TOLERANCE**2
        c, before = c + torch.where(away, pace * r, 0), r
    return c


def displace(points: Tensor, frames: Tensor, lattices: list[tuple[Tensor, Tensor]]) -> Tensor:
    """(N, 3) points plus their displacement; the first lattice is the coarse one."""
    parts = [
        displacement(points, frames, box, nodes, fades=i > 0)
        for i, (box, nodes) in enumerate(lattices)
    ]
    return points + sum(parts)


def node_places(box: Tensor, sizes: Sequence[int]) -> Tensor:
    """(D H W, 3) of the nodes of a lattice, sizes in z y x."""
    axes = [torch.linspace(0, 1, n, dtype=box.dtype, device=box.device) for n in sizes]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return box[0] + torch.stack([x, y, z], -1).reshape(-1, 3) * (box[1] - box[0])


def warp_nodes(offsets: Tensor, columns: Tensor, weights: Tensor, displacements: Tensor) -> Tensor:
    """(F, nodes, 3): a sparse matrix in rows times (F, V, 3)."""
    counts = (offsets[1:] - offsets[:-1]).long()
    rows = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    terms = weights[:, None] * displacements[:, columns.long()]
    out = displacements.new_zeros(len(displacements), len(counts), 3)
    return out.index_add(1, rows, terms)


def pack_bits(occupied: Tensor) -> Tensor:
    """(..., R, R, R) bool, in z y x, to (..., R^3 / 8) uint8: eight bytes for each 4 x 4 x 4 brick.

    Bricks and the cells of a brick are in the same order, x fastest; the first cell is the lowest
    bit of the first byte.
    """
    *batch, r, _, _ = occupied.shape
    b, n = r // 4, len(batch)
    order = [*range(n), *(n + i for i in (0, 2, 4, 1, 3, 5))]
    cells = occupied.reshape(*batch, b, 4, b, 4, b, 4).permute(order).reshape(*batch, -1, 8)
    powers = torch.tensor([1 << i for i in range(8)], device=occupied.device)
    return (cells * powers).sum(-1).to(torch.uint8)


def unpack_bits(bits: Tensor, resolution: int) -> Tensor:
    """Undo `pack_bits`."""
    *batch, _ = bits.shape
    b, n = resolution // 4, len(batch)
    shifts = torch.arange(8, device=bits.device)
    cells = (bits[..., None] >> shifts & 1).bool().reshape(*batch, b, b, b, 4, 4, 4)
    order = [*range(n), *(n + i for i in (0, 3, 1, 4, 2, 5))]
    return cells.permute(order).reshape(*batch, resolution, resolution, resolution)


def bit_set(
    points: Tensor, box: Tensor, resolution: int, bits: Tensor, frames: Tensor | None = None
) -> Tensor:
    """(N,) bool: the cell of each point is occupied; False outside of the box.

    Args:
        bits: (R^3 / 8,), or (F, R^3 / 8) with `frames`, (N,).
    """
    place = (points - box[0]) * (resolution / (box[1] - box[0]))
    inside = ((place >= 0) & (place < resolution)).all(-1)
    x, y, z = torch.where(inside[:, None], place, 0).long().unbind(-1)
    b = resolution // 4
    brick = ((z >> 2) * b + (y >> 2)) * b + (x >> 2)
    byte = brick * 8 + ((z & 3) << 1) + ((y & 3) >> 1)
    found = bits[byte] if frames is None else bits[frames.long(), byte]
    return inside & (found >> (((y & 1) << 2) + (x & 3)) & 1).bool()


def posed_mask(
    box: Tensor, resolution: int, bits: Tensor, lattices: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """(F, R^3 / 8): cells that occupied cells may reach, by boxes around their moved corners."""
    frames, device = len(lattices[0][1]), box.device
    occupied = unpack_bits(bits, resolution)
    cells = occupied.nonzero().flip(1)  # x y z
    size = (box[1] - box[0]) / resolution
    masks = torch.zeros(frames, *occupied.shape, dtype=torch.bool, device=device)
    if not len(cells):
        return pack_bits(masks)
    corners = torch.tensor(list(product((0.0, 1.0), repeat=3)), device=device, dtype=box.dtype)
    points = (box[0] + (cells[:, None] + corners) * size).reshape(-1, 3)
    for frame in range(frames):
        which = torch.full((len(points),), frame, dtype=torch.int32, device=device)
        moved = displace(points, which, lattices)
        place = ((moved - box[0]) / size).view(-1, 8, 3)
        low, high = place.amin(1) - _MARGIN, place.amax(1) + _MARGIN
        first = low.floor().long().clamp(0, resolution)
        last = high.floor().long().clamp(-1, resolution - 1)
        for (x0, y0, z0), (x1, y1, z1) in zip(first.tolist(), last.tolist(), strict=True):
            masks[frame, z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1] = True
    return pack_bits(masks)


def near_far(origins: Tensor, directions: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """(R,) distances at which rays enter and leave the box, near >= 0; far <= near: it is missed.

    A ray parallel to a face is inside or outside of that pair of faces for good.
    """
    parallel = directions == 0
    safe = torch.where(parallel, 1, directions)
    a, b = (box[0] - origins) / safe, (box[1] - origins) / safe
    within = (origins >= box[0]) & (origins <= box[1])
    infinity = torch.full_like(origins, torch.inf)
    low = torch.where(parallel, torch.where(within, -infinity, infinity), torch.minimum(a, b))
    high = torch.where(parallel, torch.where(within, infinity, -infinity), torch.maximum(a, b))
    near, far = low.amax(-1).clamp(min=0), high.amin(-1)
    finite = (origins.isfinite() & directions.isfinite()).all(-1) & (near < far)
    finite &= far.isfinite()
    return torch.where(finite, near, 0), torch.where(finite, far, 0)


def march(
    origins: Tensor,
    directions: Tensor,
    frames: Tensor,
    inverse: list[tuple[Tensor, Tensor]],
    box: Tensor,
    resolution: int,
    bits: Tensor,
    mask: Tensor | None,
    step: float,
    jitter: Tensor | None,
    limits: tuple[Tensor, Tensor] | None,
    max_samples: int,
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Points (N, 3), t (N,), rays (N,) int32, and how many rays were marched."""
    near, far = near_far(origins, directions, box)
    shift = torch.full_like(near, 0.5) if jitter is None else jitter
    longest = float((far - near).max()) if len(near) else 0.0
    steps = torch.arange(int(longest / step) + 2, device=near.device)
    rays_at_once = max(1, _STEPS_AT_ONCE // len(steps))
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for first in range(0, len(near), rays_at_once):
        rays = slice(first, first + rays_at_once)
        t = near[rays, None] + (steps + shift[rays, None]) * step
        use = t <= far[rays, None]
        if limits is not None:
            use &= (t >= limits[0][rays, None]) & (t <= limits[1][rays, None])
        ray, at = use.nonzero(as_tuple=True)
        t, ray = t[ray, at], ray + first
        points = origins[ray] + t[:, None] * directions[ray]
        frame = frames[ray]
        if inverse:
            if mask is not None:
                reached = bit_set(points, box, resolution, mask, frame)
                points, t, ray, frame = (v[reached] for v in (points, t, ray, frame))
            points = displace(points, frame, inverse)
        hit = bit_set(points, box, resolution, bits)
        parts.append((points[hit], t[hit], ray[hit].int()))
    if not parts:
        return origins.new_empty(0, 3), near, frames.new_empty(0), 0
    points, t, ray = (torch.cat(column) for column in zip(*parts, strict=True))
    if len(t) <= max_samples:
        return points, t, ray, len(near)
    marched = int(ray[max_samples])
    kept = ray < marched
    return points[kept], t[kept], ray[kept], marched


def composite(
    density: Tensor,
    color: Tensor,
    extra: Tensor,
    t: Tensor,
    dt: Tensor,
    offsets: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """color (R, 3), alpha, depth, distortion (R,), extra (R, C), weights (N,)."""
    starts, counts = offsets[:-1].long(), (offsets[1:] - offsets[:-1]).long()
    rays, samples, width = len(counts), len(t), int(counts.max()) if len(counts) else 0
    slots = torch.arange(width, device=t.device)
    there = slots < counts[:, None]
    index = (starts[:, None] + slots).clamp(max=max(samples - 1, 0))
    if not samples:
        zero = density.sum() * 0 + color.sum() * 0
        flat = zero.expand(rays)
        return (
            flat[:, None].expand(rays, 3),
            flat,
            flat,
            flat,
            extra.sum() * 0 + extra.new_zeros(rays, extra.shape[1]),
            density * 0,
        )
    good = (density >= 0) & color.isfinite().all(-1) & extra.isfinite().all(-1)
    seen = there & good[index]
    thickness = torch.where(seen, torch.where(good, density, 0)[index] * dt[index], 0)
    color = torch.where(good[:, None], color, 0)[index]
    extra = torch.where(good[:, None], extra, 0)[index]
    # as products of exp, since a sum may reach infinity
    kept = torch.exp(-thickness)
    before = torch.cat([torch.ones_like(kept[:, :1]), kept.cumprod(1)[:, :-1]], 1)
    seen = seen & (before >= STOP_TRANSMITTANCE)
    weights = torch.where(seen, before * (1 - kept), 0)
    t, dt = t[index], dt[index]
    # mip-NeRF 360: sum over pairs of w_i w_j |t_i - t_j|, and each sample's own extent
    mass, moment = weights.cumsum(1) - weights, (weights * t).cumsum(1) - weights * t
    distortion = (2 * weights * (t * mass - moment) + weights**2 * dt / 3).sum(1)
    flat = torch.zeros_like(density).index_put((index[there],), weights[there])
    return (
        (weights[..., None] * color).sum(1), weights.sum(1), (weights * t).sum(1), distortion,
        (weights[..., None] * extra).sum(1), flat,
    )  # fmt: skip
