"""Draw a head model: z-buffer, solid texture, simple light, supersampling."""

from dataclasses import dataclass

import numpy as np

from avatar3d.geometry import Camera
from avatar3d.head.gallery import vertex_normals
from avatar3d.kernels import rasterize_mesh
from avatar3d.synth.appearance import Appearance

__all__ = ["LIGHT", "Picture", "draw"]

_AMBIENT, _DIFFUSE, _SPECULAR = 0.52, 0.52, 0.10
_OVER = 2  # supersampling per axis

LIGHT = np.array([-0.35, -0.45, -0.82], np.float32) / np.float32(np.sqrt(0.9974))
"""(3,) unit vector towards the light of a clip, in the camera frame: y down, z forward."""


@dataclass(frozen=True)
class Picture:
    """image (H, W, 3), alpha (H, W) in [0, 1] float32; label (H, W) uint8 parsing."""

    image: np.ndarray
    alpha: np.ndarray
    label: np.ndarray


def draw(
    points: np.ndarray,
    appearance: Appearance,
    camera: Camera,
    background: np.ndarray | None = None,
    light: np.ndarray | None = None,
) -> Picture:
    """Render a posed head.

    Args:
        points: (V, 3) in the camera frame, metres.
        appearance: colours, and the head model whose triangles are drawn.
        camera: the view.
        background: (H, W, 3) in [0, 1]; black without one.
        light: (3,) unit vector towards the light in the camera frame; default `LIGHT`.
    """
    light = LIGHT if light is None else light.astype(np.float32)
    faces = appearance.model.faces
    width, height = camera.width * _OVER, camera.height * _OVER
    pixels = camera.scaled(_OVER).project(points)
    screen = np.concatenate([pixels, points[:, 2:]], 1).astype(np.float32)
    face, bary, _ = rasterize_mesh(screen, faces, width, height)
    hit = face >= 0
    color = np.zeros((height, width, 3), np.float32)
    label = np.zeros((height, width), np.uint8)
    index, weights = face[hit], bary[hit]
    paint, label[hit] = appearance.of_pixels(index, weights)
    normals = vertex_normals(points, faces)
    corners = faces[index]
    normal = sum(normals[corners[:, k]] * weights[:, k, None] for k in range(3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    color[hit] = np.clip(
        paint * _light(normal, light)[:, None] + _gloss(normal, light)[:, None], 0, 1
    )
    share = _mean_blocks(hit[..., None].astype(np.float32))[..., 0]
    image = _mean_blocks(color)
    if background is not None:
        image = image + (1 - share[..., None]) * background
    return Picture(image.astype(np.float32), share, label[_OVER // 2 :: _OVER, _OVER // 2 :: _OVER])


def _light(normal: np.ndarray, light: np.ndarray) -> np.ndarray:
    wrapped = np.clip((normal @ light + 0.3) / 1.3, 0, 1)
    return (_AMBIENT + _DIFFUSE * wrapped).astype(np.float32)


def _gloss(normal: np.ndarray, light: np.ndarray) -> np.ndarray:
    half = light + np.array([0, 0, -1], np.float32)
    half = half / np.linalg.norm(half)
    return (_SPECULAR * np.clip(normal @ half, 0, 1) ** 24).astype(np.float32)


def _mean_blocks(image: np.ndarray) -> np.ndarray:
    height, width, channels = image.shape
    blocks = image.reshape(height // _OVER, _OVER, width // _OVER, _OVER, channels)
    return blocks.mean((1, 3))
