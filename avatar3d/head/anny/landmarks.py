"""Where the 478 MediaPipe landmarks lie on the model.

`landmarks478.npz` was made by `tools/embed_landmarks.py`: for each of the 468 face landmarks three
vertices of MakeHuman's base mesh with weights, and for all 478 how far they slide (`sigma`). Lids
and inner lips are put on the edges of their slits here, the irises on the eyeballs.
"""

from dataclasses import dataclass
from importlib import resources

import numpy as np
from scipy.spatial import cKDTree

from avatar3d.head.anny.features import IRIS_VERTICES
from avatar3d.head.anny.slits import Slit
from avatar3d.head.landmarks import IRIS_LEFT, IRIS_RIGHT, LANDMARK_COUNT
from avatar3d.head.model import PARTS

__all__ = ["Embedding", "closest_on_triangles", "embed", "stored"]

_DATA = "landmarks478.npz"
_FACE_COUNT = 468

# Corner at small x, corner at large x, upper and lower edge between them.
_SLITS = {
    "Left": (362, 263, (398, 384, 385, 386, 387, 388, 466), (382, 381, 380, 374, 373, 390, 249)),
    "Right": (33, 133, (246, 161, 160, 159, 158, 157, 173), (7, 163, 144, 145, 153, 154, 155)),
    "Lips": (
        78, 308, (191, 80, 81, 82, 13, 312, 311, 310, 415),
        (95, 88, 178, 87, 14, 317, 402, 318, 324),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Embedding:
    """Landmarks on a mesh: `faces` (478,), `bary` (478, 3), `sigma` (478,) metres."""

    faces: np.ndarray
    bary: np.ndarray
    sigma: np.ndarray


def stored(base_vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 468 face landmarks on the base mesh (19158, 3), and the sigma of all 478, metres."""
    source = resources.files("avatar3d.head.anny").joinpath(_DATA)
    with source.open("rb") as handle, np.load(handle, allow_pickle=False) as data:
        vertices, weights = data["vertices"].astype(int), data["weights"].astype(np.float64)
        sigma = data["sigma"].astype(np.float64)
    return (base_vertices[vertices] * weights[..., None]).sum(1), sigma


def embed(
    points: np.ndarray, sigma: np.ndarray, vertices: np.ndarray, faces: np.ndarray,
    part: np.ndarray, slits: dict[str, Slit],
) -> Embedding:  # fmt: skip
    """Put landmarks on a mesh.

    Args:
        points: (468, 3) near the surface; sigma: (478,).
        vertices: (V, 3); faces: (F, 3); part: (V,), the eyeballs made by `features.eyeball`.
        slits: lids ("Left", "Right") and "Lips".
    """
    face_index = np.zeros(LANDMARK_COUNT, int)
    bary = np.zeros((LANDMARK_COUNT, 3))
    skin = np.isin(part, [PARTS.index(n) for n in ("face", "lips", "ears", "scalp", "neck")])
    candidates = np.flatnonzero(skin[faces].all(1))
    found, bary[:_FACE_COUNT] = closest_on_triangles(points, vertices[faces[candidates]])
    face_index[:_FACE_COUNT] = candidates[found]
    for name, slit in slits.items():
        _on_slit(face_index, bary, points, vertices, faces, slit, _SLITS[name])
    for name, marks in (("eye_left", IRIS_LEFT), ("eye_right", IRIS_RIGHT)):
        eye = np.flatnonzero(part == PARTS.index(name))
        _on_iris(face_index, bary, faces, eye, marks)
    return Embedding(face_index, bary, sigma)


def closest_on_triangles(
    points: np.ndarray, triangles: np.ndarray, candidates: int = 24
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest triangle (N,) of (F, 3, 3) to each point (N, 3), with barycentric coordinates (N, 3).

    Exact among the `candidates` triangles with the nearest centres.
    """
    count = min(candidates, len(triangles))
    _, near = cKDTree(triangles.mean(1)).query(points, k=count)
    near = near.reshape(len(points), count)
    bary = _closest_bary(points[:, None], triangles[near])
    distance = np.linalg.norm((bary[..., None] * triangles[near]).sum(2) - points[:, None], axis=-1)
    best = distance.argmin(1)
    rows = np.arange(len(points))
    return near[rows, best], bary[rows, best]


def _closest_bary(point: np.ndarray, triangle: np.ndarray) -> np.ndarray:
    """Barycentric coordinates (..., 3) of the point of a triangle (..., 3, 3) nearest to (..., 3).

    The inner projection where it lies inside, else the best of the three sides.
    """
    a, b, c = np.moveaxis(triangle, -2, 0)
    ab, ac, ap = b - a, c - a, point - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-30)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inner = np.stack([1 - v - w, v, w], -1)
    options = [inner]
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, end = triangle[..., i, :], triangle[..., j, :]
        side = end - start
        t = ((point - start) * side).sum(-1) / np.maximum((side * side).sum(-1), 1e-30)
        t = np.clip(t, 0, 1)
        option = np.zeros_like(inner)
        option[..., i], option[..., j] = 1 - t, t
        options.append(option)
    stacked = np.stack(options)
    reached = (stacked[..., None] * triangle[None]).sum(-2)
    distance = np.linalg.norm(reached - point, axis=-1)
    distance[0] = np.where((inner < 0).any(-1), np.inf, distance[0])
    best = distance.argmin(0)
    return np.take_along_axis(stacked, best[None, ..., None], 0)[0]


def _on_slit(
    face_index: np.ndarray, bary: np.ndarray, points: np.ndarray, vertices: np.ndarray,
    faces: np.ndarray, slit: Slit, marks: tuple,
) -> None:  # fmt: skip
    """Place the landmarks of a slit on its edges, keeping their relative places along x."""
    low, high, upper, lower = marks
    ends = vertices[slit.corners, 0]
    begin, finish = points[low, 0], points[high, 0]
    for chain, names in ((slit.upper, upper), (slit.lower, lower)):
        line = np.concatenate([slit.corners[:1], chain, slit.corners[1:]])
        along = vertices[line, 0]
        for mark in (low, *names, high):
            share = np.clip((points[mark, 0] - begin) / (finish - begin), 0, 1)
            x = ends[0] + share * (ends[1] - ends[0])
            at = int(np.clip(np.searchsorted(along, x) - 1, 0, len(line) - 2))
            t = np.clip((x - along[at]) / max(along[at + 1] - along[at], 1e-12), 0, 1)
            face = _face_of_edge(faces, line[at], line[at + 1])
            face_index[mark] = face
            bary[mark] = 0
            bary[mark, np.flatnonzero(faces[face] == line[at])[0]] = 1 - t
            bary[mark, np.flatnonzero(faces[face] == line[at + 1])[0]] = t


def _face_of_edge(faces: np.ndarray, a: int, b: int) -> int:
    return int(np.flatnonzero((faces == a).any(1) & (faces == b).any(1))[0])


def _on_iris(
    face_index: np.ndarray, bary: np.ndarray, faces: np.ndarray, eye: np.ndarray,
    marks: tuple[int, ...],
) -> None:  # fmt: skip
    """Centre, then the edge of the iris at the image's right, top, left and bottom."""
    for mark, vertex in zip(marks, eye[list(IRIS_VERTICES)], strict=True):
        face = int(np.flatnonzero((faces == vertex).any(1))[0])
        face_index[mark] = face
        bary[mark] = faces[face] == vertex
