"""A contact sheet of a head model's expressions, to look at."""

import numpy as np

from avatar3d.geometry.camera import Camera
from avatar3d.head.arkit import ARKIT_52
from avatar3d.head.model import PARTS, HeadModel

__all__ = ["gallery", "part_colors", "vertex_normals"]

_COLORS = {
    "face": (0.86, 0.68, 0.58), "scalp": (0.45, 0.36, 0.31), "ears": (0.84, 0.64, 0.54),
    "neck": (0.82, 0.64, 0.54), "shoulders": (0.48, 0.55, 0.70), "lips": (0.76, 0.40, 0.38),
    "mouth_cavity": (0.30, 0.11, 0.11), "gums": (0.70, 0.38, 0.38),
    "teeth_upper": (0.96, 0.94, 0.88), "teeth_lower": (0.92, 0.90, 0.83),
    "tongue": (0.72, 0.36, 0.40), "eye_socket": (0.72, 0.50, 0.44), "eye_left": (0.95,) * 3,
    "eye_right": (0.95,) * 3, "lashes": (0.15, 0.10, 0.08),
}  # fmt: skip
_OVER = 2  # supersampling per axis
_IRIS, _PUPIL = np.cos(np.deg2rad([21.0, 8.0]))


def gallery(head: HeadModel, size: int = 220, columns: int = 9, yaw: float = 0.25) -> np.ndarray:
    """Every expression row at weight 1, and the neutral face first; captions below.

    tongueOut is shown with jawOpen 0.5, and mouthClose with jawOpen 1, as they are meant to be
    used. Lashes are left out.

    Args:
        head: the model.
        size: pixels of a side of one picture.
        columns: pictures in a row.
        yaw: radians the face is turned to its left.

    Returns:
        (H, W, 3) uint8.
    """
    shaped = head.shaped(np.zeros(0))
    faces = head.faces[~(head.part[head.faces] == PARTS.index("lashes")).any(1)]
    colors = part_colors(head)
    tiles = []
    for name in ("neutral", *head.expression_names):
        weights = np.zeros(len(head.expression), np.float32)
        if name != "neutral":
            weights[head.expression_names.index(name)] = 1
            weights[ARKIT_52.index("jawOpen")] += {"tongueOut": 0.5, "mouthClose": 1}.get(name, 0)
        picture = _picture(shaped.posed(weights), faces, colors, size, yaw)
        tiles.append(_captioned(picture, name))
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)


def vertex_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) float32 area-weighted unit normals; outward for counter-clockwise faces."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    columns = [
        np.bincount(faces.ravel(), np.repeat(across[:, k], 3), len(points)) for k in range(3)
    ]
    total = np.stack(columns, 1)
    return (total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-12)).astype(np.float32)


def _picture(
    vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray, size: int, yaw: float
) -> np.ndarray:
    from avatar3d.kernels import rasterize_mesh

    cos, sin = np.cos(yaw), np.sin(yaw)
    turned = vertices @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T
    points = turned * [1, -1, -1] + [0, 0.010, 0.68]
    large = size * _OVER
    screen = np.c_[Camera.from_focal(2.4 * large, large, large).project(points), points[:, 2]]
    face, bary, _ = rasterize_mesh(
        screen.astype(np.float32), np.ascontiguousarray(faces), large, large
    )
    light = np.array([0.35, 0.45, 0.82]) / np.linalg.norm([0.35, 0.45, 0.82])
    shade = 0.45 + 0.55 * np.clip(vertex_normals(turned, faces) @ light, 0, 1)
    image = np.full((large, large, 3), 0.82)
    hit = face >= 0
    corners = faces[face[hit]]
    image[hit] = ((colors * shade[:, None])[corners] * bary[hit][:, :, None]).sum(1)
    small = image.reshape(size, _OVER, size, _OVER, 3).mean((1, 3))
    return (small * 255).round().clip(0, 255).astype(np.uint8)


def part_colors(head: HeadModel) -> np.ndarray:
    """(V, 3) sRGB in [0, 1] by part, with iris and pupil."""
    colors = np.array([_COLORS[name] for name in PARTS])[head.part]
    for side, name in enumerate(("eye_left", "eye_right")):
        here = np.flatnonzero(head.part == PARTS.index(name))
        ray = head.template[here] - head.eye_centers[side]
        ahead = ray[:, 2] / np.linalg.norm(ray, axis=1)
        colors[here[ahead > _IRIS - 1e-3]] = (0.36, 0.25, 0.18)
        colors[here[ahead > _PUPIL - 1e-3]] = 0.05
    return colors


def _captioned(picture: np.ndarray, text: str) -> np.ndarray:
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (picture.shape[1], 16), "white")
    ImageDraw.Draw(strip).text((4, 2), text, fill="black")
    return np.vstack([picture, np.asarray(strip)])
