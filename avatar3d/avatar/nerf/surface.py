"""Points on the surface of a field, with what a splat avatar needs to know of each."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from avatar3d.avatar.nerf.avatar import NerfAvatar
from avatar3d.avatar.nerf.rays import camera_rays
from avatar3d.avatar.rig import FaceParameters
from avatar3d.avatar.state import SplatState
from avatar3d.geometry import Camera, yaw_pitch_roll
from avatar3d.kernels import unwarp

__all__ = ["MouthPoints", "SurfacePoints", "mouth_points", "surface_points"]

_SOLID = 0.5  # alpha of the pixels that have a surface
_YAWS, _PITCHES = (-60, -40, -20, 0, 20, 40, 60), (-20, 0, 20)  # degrees, of the whole bust
_OPEN: dict[str, float] = {"jawOpen": 0.8}
_SHOWN = 0.006  # metres between what shows and what may be it
_FEWEST = 12  # points inside the mouth that say what colour it has
_MOUTH = (0.3, 0.12, 0.11)  # sRGB, where it never opens
_PIXELS = 384  # of the longer side of the pictures that are looked at
_MOST = 40_000  # points of each picture


@dataclass(frozen=True)
class SurfacePoints:
    """n points of the neutral head in rest pose.

    Attributes:
        place: (n, 3) metres, head frame; color: (n, 3) sRGB.
    """

    place: np.ndarray
    color: np.ndarray


@dataclass(frozen=True)
class MouthPoints:
    """n points on the triangles inside the mouth.

    Attributes:
        face: (n,) triangle; bary: (n, 3) place on it; color: (n, 3) sRGB.
    """

    face: np.ndarray
    bary: np.ndarray
    color: np.ndarray


def surface_points(avatar: NerfAvatar, rng: np.random.Generator) -> SurfacePoints:
    """What the field shows from all around its front.

    Raises:
        ValueError: nothing shows.
    """
    found = [_seen(avatar, face, rng) for face in _turned(avatar)]
    place, color = (np.concatenate(part) for part in zip(*found, strict=True))
    if not len(place):
        raise ValueError("the field shows nothing")
    return SurfacePoints(place, color)


@torch.no_grad()
def mouth_points(avatar: NerfAvatar, count: int, rng: np.random.Generator) -> MouthPoints:
    """`count` points on teeth, tongue and cavity, in the colours of the open mouth from in front.

    What does not show has the middle colour of what does.
    """
    state = avatar.state
    mouth = np.flatnonzero(state.face_part == SplatState.PARTS.index("mouth"))
    if not len(mouth) or not count:
        return MouthPoints(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 3)))
    corners = state.vertices[state.faces[mouth]].astype(np.float64)
    edges = corners[:, 1:] - corners[:, :1]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    face = rng.choice(mouth, count, p=area / area.sum())
    bary = rng.dirichlet(np.ones(3), count)  # uniform over a triangle
    open_face, camera = avatar.face(_OPEN), _camera(avatar)
    assert open_face.vertices is not None
    posed = open_face.vertices.cpu().numpy()[state.faces[face]]
    T = open_face.T_camera_head.cpu().numpy()
    points = (posed * bary[..., None]).sum(1) @ T[:3, :3].T + T[:3, 3]
    layers = avatar.layers(open_face, camera)
    column, row = np.floor(camera.project(points)).astype(int).T
    column, row = column.clip(0, camera.width - 1), row.clip(0, camera.height - 1)
    distance = layers.depth.cpu().numpy()[row, column]
    shows = np.abs(np.linalg.norm(points, axis=1) - distance) < _SHOWN
    alpha = layers.alpha.cpu().numpy()[row, column, None]
    color = layers.color.cpu().numpy()[row, column] / np.maximum(alpha, 0.1)
    enough = shows.sum() >= _FEWEST
    color[~shows] = np.median(color[shows], 0) if enough else np.array(_MOUTH)
    return MouthPoints(face, bary, color.clip(0, 1))


def _camera(avatar: NerfAvatar) -> Camera:
    camera = avatar.camera
    return camera.scaled(min(1.0, _PIXELS / max(camera.width, camera.height)))


def _turned(avatar: NerfAvatar) -> Iterator[FaceParameters]:
    """The neutral face, head and shoulders turned as one, so that nothing is warped by the turn."""
    face = avatar.face()
    rest = torch.tensor(np.asarray(avatar.state.T_camera_rest), dtype=torch.float32)
    for yaw in _YAWS:
        for pitch in _PITCHES:
            angles = (torch.tensor(float(np.deg2rad(angle))) for angle in (yaw, pitch, 0))
            pose = torch.eye(4)
            pose[:3, :3] = yaw_pitch_roll(*angles)
            pose = (rest @ pose).to(face.weights.device)
            yield replace(face, T_camera_head=pose, T_camera_torso=pose)


@torch.no_grad()
def _seen(
    avatar: NerfAvatar, face: FaceParameters, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) canonical points of a picture and their colours."""
    camera = _camera(avatar)
    layers = avatar.layers(face, camera)
    alpha, depth = layers.alpha.flatten(), layers.depth.flatten()
    solid = ((alpha > _SOLID) & torch.isfinite(depth)).nonzero()[:, 0]
    kept = np.sort(rng.permutation(len(solid))[:_MOST])
    pixels = solid[torch.from_numpy(kept).to(solid.device)]
    origins, directions = camera_rays(camera, face.T_camera_head, pixels)
    points = origins + directions * depth[pixels, None]
    color = layers.color.reshape(-1, 3)[pixels] / alpha[pixels, None]
    frames = torch.zeros(len(pixels), dtype=torch.int32, device=points.device)
    canonical = unwarp(points, frames, avatar.warp(face))
    return canonical.cpu().numpy(), color.clamp(0, 1).cpu().numpy()
