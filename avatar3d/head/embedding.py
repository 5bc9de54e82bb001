"""Landmarks onto the surface of any head model, lids and inner lips onto the edge of the skin."""

import numpy as np

from avatar3d.head.anny.landmarks import Embedding, closest_on_triangles
from avatar3d.head.arkit import ARKIT_INDEX
from avatar3d.head.landmarks import IRIS_LEFT, IRIS_RIGHT, LANDMARK_COUNT, SLITS
from avatar3d.head.model import PARTS, HeadModel
from avatar3d.kernels import rasterize_mesh

__all__ = ["on_surface", "snapped"]

_FACE_COUNT = 468
_IRIS_RADIUS = 0.0059  # metres
_SIGMA = (5e-4, 0.03)
_SKIN = ("face", "lips", "ears", "scalp", "neck")
_EYE = ("eye_left", "eye_right")
_RESOLUTION = 1e-4  # metres a pixel
_TEAR = 1e-3  # metres by which jawOpen tears the lips apart from one pixel to the next
_REACH = {"Left": (0.020, 0.014), "Right": (0.020, 0.014), "Lips": (0.036, 0.016)}
"""Half width and half height of what is looked at, metres."""


def on_surface(head: HeadModel, points: np.ndarray, sigma: np.ndarray) -> Embedding:
    """The landmarks on the nearest skin, the irises where an iris is on the eyeball.

    Args:
        head: any model; points: (478, 3) near its template; sigma: (478,) metres.
    """
    face, bary = np.zeros(LANDMARK_COUNT, int), np.full((LANDMARK_COUNT, 3), 1 / 3)
    skin = _faces_of(head, _SKIN)
    found, bary[:_FACE_COUNT] = closest_on_triangles(
        points[:_FACE_COUNT], head.template[head.faces[skin]].astype(float)
    )
    face[:_FACE_COUNT] = skin[found]
    for side, marks in enumerate((IRIS_LEFT, IRIS_RIGHT)):
        eye = _faces_of(head, (_EYE[side],))
        if not len(eye):
            continue
        rays, triangles = _iris_points(head, side), head.template[head.faces[eye]].astype(float)
        at, bary[list(marks)] = closest_on_triangles(rays, triangles)
        face[list(marks)] = eye[at]
    return Embedding(face, bary, np.clip(np.nan_to_num(sigma, posinf=_SIGMA[1]), *_SIGMA))


def snapped(head: HeadModel, marks: Embedding, points: np.ndarray) -> Embedding:
    """Move the landmarks of lids and inner lips to the edges of eyes and mouth.

    The opening of an eye is where its eyeball shows from the front. The lips part where jawOpen
    tears the skin apart, which is also seen on a closed mouth; there landmarks keep their relative
    places along x.

    Args:
        head: any model; its jawOpen row is used.
        marks: all landmarks on the surface; points: (478, 3) where they were found.
    """
    face, bary = marks.faces.copy(), marks.bary.copy()
    for name, slit in SLITS.items():
        view = _View(head, points[list(slit[:2])].mean(0), *_REACH[name])
        upper, lower = _lip_edges(view) if name == "Lips" else _lid_edges(view)
        columns = np.flatnonzero(upper >= 0)
        if len(columns) < 40:  # 4 mm: nothing to see
            continue
        low, high, *chains = slit
        begin, finish = points[low, 0], points[high, 0]
        for chain, rows in zip(chains, (upper, lower), strict=True):
            # The corners of an eye are where its lids meet, beyond where the eyeball shows.
            for mark in (low, *chain, high) if name == "Lips" else chain:
                share = np.clip((points[mark, 0] - begin) / (finish - begin), 0, 1)
                at = columns[round(share * (len(columns) - 1))]
                column = at if name == "Lips" else view.column(points[mark, 0])
                if rows[column] >= 0:
                    face[mark], bary[mark] = view.at(rows[column], column)
    return Embedding(face, bary, marks.sigma)


class _View:
    """The template seen from the front without perspective, a tenth of a millimetre a pixel."""

    def __init__(
        self, head: HeadModel, middle: np.ndarray, half_width: float, half_height: float
    ) -> None:
        self.head, self._left = head, middle[0] - half_width
        width, height = (round(2 * half / _RESOLUTION) for half in (half_width, half_height))
        lashes = (head.part == PARTS.index("lashes"))[head.faces].any(1)
        self.numbers = np.flatnonzero(~lashes)
        self.faces = np.ascontiguousarray(head.faces[self.numbers])
        screen = np.stack(
            [
                (head.template[:, 0] - middle[0]) / _RESOLUTION + width / 2,
                (middle[1] - head.template[:, 1]) / _RESOLUTION + height / 2,
                10 - head.template[:, 2],  # far away, so that the view is parallel
            ],
            axis=1,
        )
        self.index, self.bary, _ = rasterize_mesh(
            screen.astype(np.float32), self.faces, width, height
        )

    def column(self, x: float) -> int:
        return int(np.clip((x - self._left) / _RESOLUTION, 0, self.index.shape[1] - 1))

    def at(self, row: int, column: int) -> tuple[int, np.ndarray]:
        """Triangle of the model and barycentric coordinates seen at a pixel."""
        return int(self.numbers[self.index[row, column]]), self.bary[row, column]

    def shows(self, names: tuple[str, ...]) -> np.ndarray:
        """(H, W) bool: pixels of the parts."""
        labels = self.head.part[self.faces]
        chosen = np.isin(labels, [PARTS.index(name) for name in names]).sum(1) >= 2
        return (self.index >= 0) & chosen[self.index]

    def field(self, values: np.ndarray) -> np.ndarray:
        """(H, W) of values (V,) at the vertices."""
        return (values[self.faces[self.index]] * self.bary).sum(-1)


def _lid_edges(view: _View) -> tuple[np.ndarray, np.ndarray]:
    """Rows (W,) of the last skin above and the first below the eye in each column, or -1."""
    from scipy.ndimage import label

    parts, count = label(view.shows((*_EYE, "eye_socket")))
    height, width = parts.shape
    upper, lower = np.full(width, -1), np.full(width, -1)
    if count:
        opening = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
        for column in np.flatnonzero(opening.any(0)):
            rows = np.flatnonzero(opening[:, column])
            if rows[0] > 0 and rows[-1] < height - 1:
                upper[column], lower[column] = rows[0] - 1, rows[-1] + 1
    return upper, lower


def _lip_edges(view: _View) -> tuple[np.ndarray, np.ndarray]:
    """Rows (W,) of the skin above and below the line where the lips part, or -1."""
    skin = view.shows(_SKIN)
    down = -view.field(view.head.expression[ARKIT_INDEX["jawOpen"]][:, 1])
    width = skin.shape[1]
    upper, lower, torn = np.full(width, -1), np.full(width, -1), np.zeros(width)
    for column in range(width):
        rows = np.flatnonzero(skin[:, column])
        jumps = np.diff(down[rows, column])
        if len(jumps) and jumps.max() > _TEAR:
            best = jumps.argmax()
            upper[column], lower[column] = rows[best], rows[best + 1]
            torn[column] = jumps[best]
    # The mouth is the connected run of columns with the widest tear.
    runs = np.split(np.arange(width), np.flatnonzero(np.diff((torn > 0).astype(int))) + 1)
    mouth = max(runs, key=lambda run: torn[run].sum())
    outside = np.setdiff1d(np.arange(width), mouth)
    upper[outside] = lower[outside] = -1
    return upper, lower


def _iris_points(head: HeadModel, side: int) -> np.ndarray:
    """(5, 3): middle of the pupil, and the edge of the iris at +x, +y, -x, -y."""
    eye, center = head.part == PARTS.index(_EYE[side]), head.eye_centers[side].astype(float)
    reach = np.linalg.norm(head.template[eye] - center, axis=1)
    radius = float(np.median(reach))
    angle = np.arcsin(min(_IRIS_RADIUS / radius, 0.9))
    around = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1.0]]) * np.sin(angle)
    ahead = np.sqrt(1 - (around**2).sum(1))
    return center + radius * np.c_[around, ahead]


def _faces_of(head: HeadModel, names: tuple[str, ...]) -> np.ndarray:
    chosen = np.isin(head.part, [PARTS.index(name) for name in names])
    return np.flatnonzero(chosen[head.faces].all(1))
