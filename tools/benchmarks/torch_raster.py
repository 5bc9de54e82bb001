"""Gaussian splatting in plain torch, batched over tiles: what one would use without a kernel.

The yardstick of the rasteriser's rows. Tiles with lists of similar length are blended together,
as (tiles, Gaussians, pixels) tensors that fit the cache; autograd does the backward pass.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from avatar3d.kernels import reference

__all__ = ["Counts", "count_blended", "rasterize"]

TILE = 16  # as in gsplat; 8 wastes less and is the fastest on a CPU
ELEMENTS_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 26}  # the fastest on a CPU; a GPU wants more


class Counts(NamedTuple):
    """What a scene costs to blend.

    Attributes:
        pairs: (pixel, Gaussian) pairs that are blended.
        covered: pixels with at least one.
        pixels: all of them.
    """

    pairs: int
    covered: int
    pixels: int


class _Lists(NamedTuple):
    """Drawn Gaussians front to back, and which of them each tile holds."""

    drawn: Tensor  # (D,) index
    member: Tensor  # (M,) place in drawn, sorted by tile, then by depth
    start: Tensor  # (tiles + 1,) in member


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmat: Tensor,
    K: Tensor,
    background: Tensor,
    width: int,
    height: int,
    tile: int = TILE,
) -> tuple[Tensor, Tensor]:
    """Image (H, W, 3) and alpha (H, W), by the rules of `avatar3d.kernels.rasterize`."""
    camera = (viewmat, K, width, height)
    lists = _tile_lists(means, quats, scales, opacities, camera, tile)
    table = _table(means, quats, scales, opacities, colors, camera, lists)
    tiles_x, tiles_y = -(-width // tile), -(-height // tile)
    where, parts = [], []
    for tiles, features, xs, ys in _batches(table, lists, tiles_x, tile):
        weights = _weights(features, xs, ys)
        colour = weights.mT @ features[..., 6:9]
        parts.append(torch.cat([colour, weights.sum(1)[..., None]], -1))
        where.append(tiles)
    pixels = means.new_zeros(tiles_x * tiles_y, tile * tile, 4)
    if where:
        pixels = pixels.index_copy(0, torch.cat(where), torch.cat(parts))
    pixels = pixels.view(tiles_y, tiles_x, tile, tile, 4).transpose(1, 2)
    pixels = pixels.reshape(tiles_y * tile, tiles_x * tile, 4)[:height, :width]
    alpha = pixels[..., 3]
    return pixels[..., :3] + (1 - alpha)[..., None] * background, alpha


@torch.no_grad()
def count_blended(scene: list[Tensor], width: int, height: int, tile: int = 8) -> Counts:
    """Count the pairs instead of blending them. scene: means ... colors, viewmat, K."""
    *gaussians, viewmat, K = scene
    camera = (viewmat, K, width, height)
    lists = _tile_lists(*gaussians[:4], camera, tile)
    table = _table(*gaussians, camera, lists)
    pairs = covered = 0
    for _, features, xs, ys in _batches(table, lists, -(-width // tile), tile):
        inside = (xs < width) & (ys < height)
        blended = (_weights(features, xs, ys) > 0).sum(1) * inside[:, 0]
        pairs += int(blended.sum())
        covered += int((blended > 0).sum())
    return Counts(pairs, covered, width * height)


@torch.no_grad()
def _tile_lists(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, camera: tuple, tile: int
) -> _Lists:
    viewmat, K, width, height = camera
    centers, covs, depths = reference.project(means, quats, scales, viewmat, K, width, height)
    reach = 2 * torch.log(opacities / reference.MIN_ALPHA)
    half = (reach[:, None] * covs.diagonal(dim1=-2, dim2=-1)).sqrt()
    size = means.new_tensor([width, height])
    seen = ((centers + half > 0) & (centers - half < size)).all(-1)
    seen &= (depths > reference.NEAR) & (opacities >= reference.MIN_ALPHA)
    drawn = seen.nonzero()[:, 0]
    drawn = drawn[depths[drawn].argsort(stable=True)]
    grid = torch.tensor([-(-width // tile), -(-height // tile)], device=means.device)
    first = ((centers - half - 0.5)[drawn] / tile).long().clamp(min=0).minimum(grid - 1)
    last = ((centers + half - 0.5)[drawn] / tile).long().clamp(min=0).minimum(grid - 1)
    span = last - first + 1
    count = span.prod(-1)
    member = torch.repeat_interleave(torch.arange(len(drawn), device=means.device), count)
    local = torch.arange(len(member), device=means.device) - (count.cumsum(0) - count)[member]
    columns = span[member, 0]
    rows = first[member, 1] + local // columns
    owner, order = (rows * grid[0] + first[member, 0] + local % columns).sort(stable=True)
    lengths = torch.bincount(owner, minlength=int(grid.prod()))
    start = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return _Lists(drawn, member[order], start)


def _table(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    camera: tuple,
    lists: _Lists,
) -> Tensor:
    """(D + 1, 9): centre, conic, opacity, colour; the last row is an invisible one for padding."""
    i = lists.drawn
    centers, covs, _ = reference.project(means[i], quats[i], scales[i], *camera)
    a, b, c = covs[:, 0, 0], covs[:, 0, 1], covs[:, 1, 1]
    conic = torch.stack([c, -b, a], -1) / (a * c - b * b)[:, None]
    table = torch.cat([centers, conic, opacities[i][:, None], colors[i]], -1)
    return torch.nn.functional.pad(table, (0, 0, 0, 1))


def _batches(
    table: Tensor, lists: _Lists, tiles_x: int, tile: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Tiles (T,), their Gaussians' features (T, L, 9) and pixel centres (T, 1, P), twice."""
    lengths = lists.start.diff()
    ordered = lengths.argsort(descending=True)
    sizes = lengths[ordered].tolist()
    device = table.device
    inner = torch.arange(tile * tile, device=device)
    limit = ELEMENTS_AT_ONCE[device.type]
    at = 0
    while at < len(sizes) and sizes[at]:
        longest = sizes[at]
        end = min(len(sizes), at + max(1, limit // (longest * tile * tile)))
        while not sizes[end - 1]:
            end -= 1
        tiles = ordered[at:end]
        step = torch.arange(longest, device=device)
        place = lists.start[tiles][:, None] + step
        place = torch.where(step < lengths[tiles][:, None], place, len(lists.member))
        padded = torch.nn.functional.pad(lists.member, (0, 1), value=len(table) - 1)
        features = table[padded[place]]
        xs = (tiles % tiles_x * tile)[:, None, None] + inner % tile + 0.5
        ys = (tiles // tiles_x * tile)[:, None, None] + inner // tile + 0.5
        yield tiles, features, xs, ys
        at = end


def _weights(features: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """(T, L, P): alpha times the transmittance before it; 0 where nothing is blended."""
    x, y, a, b, c, opacity = (features[..., k, None] for k in range(6))
    dx, dy = xs - x, ys - y
    sigma = dx * (0.5 * a * dx + b * dy) + 0.5 * c * dy * dy
    alpha = (opacity * torch.exp(-sigma)).clamp(max=reference.MAX_ALPHA)
    alpha = torch.where(alpha >= reference.MIN_ALPHA, alpha, 0)
    after = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    return torch.where(after > reference.MIN_TRANSMITTANCE, alpha * before, 0)
