"""A texture for the whole head, baked from pictures that the Gaussians give of it.

The neutral Gaussians are drawn from all around, and every texel takes its colour from the pictures
that show it, mostly from those that it faces. Eyes are drawn by themselves, as if nothing covered
them, and the mouth is opened. What no picture shows is coloured like its mirror image or what is
nearest.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar.canonical import posed_clouds
from avatar3d.avatar.state import SplatState
from avatar3d.export.whole import WholeHead
from avatar3d.head import ARKIT_52
from avatar3d.head.gallery import vertex_normals
from avatar3d.head.model import PARTS
from avatar3d.io.ply import GaussianCloud
from avatar3d.kernels import rasterize_mesh, rasterize_with_depth
from avatar3d.motion.motion import Motion

if TYPE_CHECKING:
    from avatar3d.avatar import SplatAvatar

__all__ = ["BakedTexture", "bake"]

_SIZE = 1536  # as many texels across a face as a clip of 512 pixels has
_MARGIN = 16  # texels of white at the upper and left edge, which vertex colours lie over
_PICTURE = 768  # pixels of a side
_SHARPNESS = 6  # power of the cosine between normal and view that weighs a picture
_SLACK = 0.004  # metres that a texel may be behind the surface that a picture shows
_OUTLINE = 5  # pixels around an outline in which only what is in front counts as shown
_MIRRORED = 0.006  # metres between a texel's mirror image and one that stands for it
_ENOUGH, _PLENTY = 0.02, 0.1  # weight below which a texel is not shown, or not for certain
_STANDING = 60_000  # texels that stand for all when a mirror image is looked for
_ASIDE = 0.1  # cosine between normal and view below which a picture says nothing
_FILLED = 0.94  # of a picture
_BEHIND = 0.05  # metres; what a picture shows behind a texel is seen through a gap
_OPEN = 0.5  # weight of jawOpen while the mouth is looked into
_FAR = 10.0  # metres
_NONE = 1e-9
_TINY = 6.0  # texels that a triangle may have without owning any
_OVERLAP = 0.5  # of a triangle's texels that must be its own, or it is coloured by vertices
_DISTANCE = 1.2  # metres from the middle of what is drawn
_GROWN = 12  # texels that colour spreads beyond the surface, for filtering
_AROUND = [
    *[(yaw, 0.0) for yaw in (0, 25, -25, 50, -50, 75, -75, 105, -105, 140, -140, 180)],
    *[(yaw, pitch) for pitch in (-35.0, 35.0) for yaw in (0, 45, -45, 110, -110, 180)],
    (0.0, 75.0),
]
_AHEAD = [(0.0, 0.0), (30.0, 0.0), (-30.0, 0.0), (0.0, 25.0), (0.0, -25.0)]
_EYES = ("eye_left", "eye_right")
_MOUTH = ("mouth_cavity", "gums", "teeth_upper", "teeth_lower", "tongue")
_LEFT_OUT = "lashes"  # sheets that a picture without transparency would show as bars


@dataclass(frozen=True)
class BakedTexture:
    """T vertices for V: those at a seam have one copy for each place in the texture.

    Attributes:
        source: (T,) the vertex that each one is.
        faces: (F, 3) into the T vertices.
        uv: (T, 2) as glTF has it, from the upper left corner.
        textured: (T,) bool, False over the white corner, where a vertex has a colour of its own.
        image: (size, size, 3) uint8 sRGB.
    """

    source: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    textured: np.ndarray
    image: np.ndarray

    def jpeg(self) -> bytes:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.image).save(buffer, "JPEG", quality=93, subsampling=0, optimize=True)
        return buffer.getvalue()


def bake(whole: WholeHead, avatar: "SplatAvatar") -> BakedTexture:
    """Colour the texture coordinates of an avatar's head model."""
    head, model, state = whole.head, whole.head.model, avatar.state
    part = model.part[model.faces]
    shown = ~(part == PARTS.index(_LEFT_OUT)).any(1)
    faces, part = model.faces[shown], part[shown, 0]
    inner = _SIZE - _MARGIN
    uv = np.stack([model.uv[:, 0], 1 - model.uv[:, 1]], 1).clip(0, 1) * inner + _MARGIN
    corners = model.uv_faces[shown]
    winner, owner, share = _unrolled(uv, corners)
    place = torch.from_numpy(np.flatnonzero(winner >= 0))
    image = torch.zeros(_SIZE * _SIZE, 4)
    opened = np.zeros(len(ARKIT_52), np.float32)
    opened[ARKIT_52.index("jawOpen")] = _OPEN
    eyes, mouth = np.isin(part, _indices(_EYES)), np.isin(part, _indices(_MOUTH))
    eyeballs = state.part == SplatState.PARTS.index("eyes")
    everything = np.ones(len(state), bool)
    for inside, chosen, hiding, face, views in (
        (eyes, eyeballs, eyes, 0 * opened, _AHEAD),
        (mouth, everything, np.ones(len(faces), bool), opened, _AHEAD),
        (~eyes & ~mouth, everything, np.ones(len(faces), bool), 0 * opened, _AROUND),
    ):
        here = torch.from_numpy(inside)[owner].nonzero()[:, 0]
        if not len(here):
            continue
        vertices = head.posed(face)
        (cloud,) = posed_clouds(avatar, Motion(25, expression=face[None]))
        at = torch.from_numpy(faces)[owner[here]].long(), share[here]
        point, normal = _between(vertices, *at), _between(vertex_normals(vertices, faces), *at)
        if chosen.any():
            scene = _Scene(cloud, chosen, vertices, faces[hiding])
            image[place[here]] = scene.shown(point, normal, views)
        _mirror(image, place[here], point)
        _fill(image, place[here])
    pixels = (image[:, :3].clamp(0, 1) * 255).round().byte().reshape(_SIZE, _SIZE, 3).numpy()
    _grow(pixels, winner >= 0)
    pixels[:_MARGIN] = pixels[:, :_MARGIN] = 255
    area = np.abs(_areas(uv[corners])) / 2
    own = np.bincount(owner.numpy(), minlength=len(faces)) > _OVERLAP * area
    return _split(faces, corners, uv, own | (area < _TINY), pixels)


def _indices(names: tuple[str, ...]) -> list[int]:
    return [PARTS.index(name) for name in names]


def _unrolled(uv: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, Tensor, Tensor]:
    """Triangle of every texel (size, size), or -1; of the n that have one it and its share (n, 3).

    The share is that of each corner.
    """
    flat = np.c_[uv, np.ones(len(uv))].astype(np.float32)
    winner, bary, _ = rasterize_mesh(flat, np.ascontiguousarray(corners, np.int32), _SIZE, _SIZE)
    on = winner >= 0
    return winner, torch.from_numpy(winner[on]).long(), torch.from_numpy(bary[on])


def _between(values: np.ndarray, corner: Tensor, share: Tensor) -> Tensor:
    """(n, 3) mean of the values (V, 3) of the corners (n, 3) of triangles."""
    given = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    return sum((share[:, k, None] * given[corner[:, k]] for k in range(3)), torch.zeros(()))


class _Scene:
    """Some Gaussians, and the triangles that may hide one another in their pictures."""

    def __init__(
        self, cloud: GaussianCloud, chosen: np.ndarray, vertices: np.ndarray, faces: np.ndarray
    ) -> None:
        opacity = 1 / (1 + np.exp(-cloud.opacity))
        arrays = cloud.means, cloud.quats, np.exp(cloud.log_scales), opacity, cloud.colors
        self._gaussians = [torch.from_numpy(a[chosen].astype(np.float32)) for a in arrays]
        self._vertices, self._faces = vertices, np.ascontiguousarray(faces)

    def shown(self, point: Tensor, normal: Tensor, views: Sequence[tuple[float, float]]) -> Tensor:
        """Colour and weight (n, 4) of points (n, 3) in pictures from these sides."""
        low, high = point.amin(0), point.amax(0)
        middle, radius = ((low + high) / 2).numpy(), float((high - low).norm()) / 2
        focal = _FILLED / 2 * _PICTURE * math.sqrt(_DISTANCE**2 - radius**2) / radius
        total = torch.zeros(len(point), 4)
        for yaw, pitch in views:
            T = _looking(middle, np.deg2rad(yaw), np.deg2rad(pitch))
            picture, depth = self._picture(T, focal)
            eye = torch.from_numpy(-T[:3, :3].T @ T[:3, 3])
            sight = torch.nn.functional.normalize(eye - point, dim=1)
            facing = (sight * normal).sum(1)
            front = (facing > _ASIDE).nonzero()[:, 0]
            seen = point[front] @ torch.from_numpy(T[:3, :3].T) + torch.from_numpy(T[:3, 3])
            place = seen[:, :2] / seen[:, 2:] * (2 * focal / _PICTURE)
            ahead = seen[:, 2] < _at(depth, place, "nearest")[:, 0] + _SLACK
            ahead &= seen[:, 2] + _BEHIND > _at(picture[..., 4:], place)[:, 0]
            front, place = front[ahead], place[ahead]
            # Colours come multiplied by alpha already.
            total[front] += (facing[front] ** _SHARPNESS)[:, None] * _at(picture[..., :4], place)
        total[:, :3] /= total[:, 3:].clamp(min=1e-6)
        return total

    def _picture(self, T: np.ndarray, focal: float) -> tuple[Tensor, Tensor]:
        """Picture, alpha, depth (size, size, 5); depth of triangles nearby (size, size, 1)."""
        from scipy.ndimage import minimum_filter

        half = _PICTURE / 2
        K = torch.tensor([[focal, 0, half], [0, focal, half], [0, 0, 1]])
        means, quats, scales, opacities, colors = self._gaussians
        image, alpha, far = rasterize_with_depth(
            means, quats, scales, opacities, colors, torch.from_numpy(T), K, _PICTURE, _PICTURE
        )
        far = far / alpha.clamp(min=1e-6)
        seen = self._vertices @ T[:3, :3].T + T[:3, 3]
        screen = np.c_[seen[:, :2] / seen[:, 2:] * focal + half, seen[:, 2]].astype(np.float32)
        depth = rasterize_mesh(screen, self._faces, _PICTURE, _PICTURE)[2]
        depth = np.minimum(minimum_filter(depth, _OUTLINE), _FAR)
        return torch.cat([image, torch.stack([alpha, far], -1)], -1), torch.from_numpy(depth)[
            ..., None
        ]


def _at(image: Tensor, place: Tensor, mode: str = "bilinear") -> Tensor:
    """(n, channels) of a picture (H, W, channels) at places (n, 2) in [-1, 1]."""
    return torch.nn.functional.grid_sample(
        image.permute(2, 0, 1)[None], place[None, None], mode, "border", align_corners=False
    )[0, :, 0].T


def _looking(middle: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """(4, 4) from the head frame to a camera that looks at `middle` from that side, and upright."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    back = np.array([sy * cp, sp, cy * cp])
    right = np.array([cy, 0, -sy])
    rotation = np.stack([right, -np.cross(back, right), -back])
    T = np.eye(4, dtype=np.float32)
    T[:3, :3] = rotation
    T[:3, 3] = -rotation @ (middle + _DISTANCE * back)
    return T


def _mirror(image: Tensor, place: Tensor, point: Tensor) -> None:
    """Give to texels that no picture shows what their mirror image has."""
    from scipy.spatial import cKDTree

    shown = image[place, 3] > _ENOUGH
    if shown.all() or not shown.any():
        return
    # One texel of nine speaks for those around it; `_fill` does the rest.
    asked = ~shown & (place % 3 == 0) & (place // _SIZE % 3 == 0)
    every = max(int(shown.sum()) // _STANDING, 1)
    known, missing = place[shown][::every], place[asked]
    tree = cKDTree(point[shown][::every].numpy())
    mirrored = point[asked].numpy() * np.array([-1, 1, 1], np.float32)
    distance, index = tree.query(mirrored, distance_upper_bound=_MIRRORED)
    found = torch.from_numpy(np.isfinite(distance))
    image[missing[found]] = image[known[torch.from_numpy(index)[found]]]


def _fill(image: Tensor, place: Tensor) -> None:
    """Let texels (n,) with little weight take the colour around them.

    Means of weighted colour at half, a quarter ... of the size; each fills what the finer one lacks
    (Gortler et al., "The lumigraph", 1996: pull and push).
    """
    level = torch.zeros(_SIZE * _SIZE, 4)
    weight = (image[place, 3:] / _PLENTY).clamp(max=1)
    level[place] = torch.cat([image[place, :3] * weight, weight], 1)
    levels = [level.reshape(1, _SIZE, _SIZE, 4).permute(0, 3, 1, 2)]
    while levels[-1].shape[-1] % 2 == 0:
        coarse = 4 * torch.nn.functional.avg_pool2d(levels[-1], 2)
        levels.append(coarse / coarse[:, 3:].clamp(min=1))
    above = levels.pop()
    mean = above.mean((2, 3), keepdim=True)
    above = torch.where(above[:, 3:] > 0, above, mean) + _NONE
    above = above / above[:, 3:]
    while levels:
        fine = levels.pop()
        wide = torch.nn.functional.interpolate(above, scale_factor=2, mode="bilinear")
        above = fine + (1 - fine[:, 3:]) * wide
    image[place] = above[0].permute(1, 2, 0).reshape(-1, 4)[place]


def _grow(image: np.ndarray, known: np.ndarray) -> None:
    """Colour what is just beyond the surface like its border."""
    from scipy.ndimage import distance_transform_edt

    distance, nearest = distance_transform_edt(~known, return_indices=True)
    fill = ~known & (distance < _GROWN)
    image[fill] = image[nearest[0][fill], nearest[1][fill]]


def _areas(corners: np.ndarray) -> np.ndarray:
    """(F,) twice the signed area of triangles (F, 3, 2)."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def _split(
    faces: np.ndarray, corners: np.ndarray, uv: np.ndarray, own: np.ndarray, image: np.ndarray
) -> BakedTexture:
    """One vertex for each vertex and place in the texture."""
    place = np.where(own[:, None], corners, -1).ravel()
    pairs = np.stack([faces.ravel(), place], 1)
    unique, index = np.unique(pairs, axis=0, return_inverse=True)
    textured = unique[:, 1] >= 0
    at = np.where(textured[:, None], uv[unique[:, 1]], _MARGIN / 2)
    return BakedTexture(
        unique[:, 0], index.reshape(-1, 3).astype(np.int32), at / _SIZE, textured, image
    )
