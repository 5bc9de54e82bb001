"""Dense refinement: optical flow between the clip's mean texture and every frame.

A frame, taken back to a fixed view of the neutral face by its tracking, should look like every
other frame. The flow that remains tells where each point of the skin is seen in the frame instead,
far denser than landmarks and without their habit of sliding with the expression. No rendering is
needed: the fixed view is the texture.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from avatar3d.capture.blur import widely_blurred
from avatar3d.capture.fit import DenseTargets, FaceFit
from avatar3d.capture.parallel import parallel_map
from avatar3d.head import ShapedHead
from avatar3d.head.gallery import vertex_normals
from avatar3d.head.model import PARTS
from avatar3d.kernels import rasterize_mesh

__all__ = ["FaceView", "MeanTexture", "dense_targets", "flow_targets", "rerendering_psnr"]

_HEIGHT = 224  # pixels of the fixed view
_SPACING = 8  # of the points that are followed
_FACING = 0.3  # cosine of the steepest view of the skin that is trusted
_REACH = 5.0  # pixels of the fixed view; larger flow is a failure
_DETAIL = 14.0  # grey levels a pixel of gradient that fix a point well
_MARGIN = 1.06
_OF_THREAD = threading.local()


class FaceView:
    """A fixed, frontal view of one person's neutral face, and what each of its pixels is.

    Attributes:
        skin: (h, w) bool, pixels of the face without eyes and the inside of the mouth.
        grid: (K, 2) int columns and rows of the followed points.
    """

    def __init__(self, shaped: ShapedHead, rest: np.ndarray) -> None:
        """
        Args:
            shaped: the person's head.
            rest: (4, 4) T_camera_head that the face is looked at from, its mean pose.
        """
        from scipy.sparse import csr_array

        model = shaped.model
        camera = shaped.vertices @ rest[:3, :3].T + rest[:3, 3]
        flat = camera[:, :2] / camera[:, 2:]
        face = np.isin(model.part, [PARTS.index("face"), PARTS.index("lips")])
        face &= shaped.vertices[:, 2] > shaped.vertices[face, 2].max() - 0.11
        low, high = flat[face].min(0), flat[face].max(0)
        scale = _HEIGHT / (_MARGIN * (high - low).max())
        pixels = (flat - (low + high) / 2) * scale + _HEIGHT / 2
        screen = np.column_stack([pixels, camera[:, 2]]).astype(np.float32)
        triangle, bary, _ = rasterize_mesh(screen, model.faces, _HEIGHT, _HEIGHT)
        self.inside = triangle >= 0
        corners = model.faces[np.maximum(triangle, 0)]
        used, index = np.unique(corners[self.inside], return_inverse=True)
        self._vertices = used
        corners_used, bary = index.reshape(-1, 3), bary[self.inside].astype(np.float32)
        # (h w, V): a sparse product blends in a third of the time of looking the corners up.
        ends = 3 * np.concatenate([[0], np.cumsum(self.inside)])
        self._blend = csr_array((bary.ravel(), index.ravel(), ends), (triangle.size, len(used)))
        self._nowhere = np.where(self.inside, 0, -1e3).astype(np.float32)[..., None]
        self._neutral = shaped.vertices[used].astype(np.float32)
        rows = shaped.expression[:, used]
        self._rows = rows.reshape(len(rows), -1).astype(np.float32)
        normals = vertex_normals(shaped.vertices.astype(np.float32), model.faces)[used]
        self._normals = self._blend @ normals.astype(np.float32)
        skin = np.zeros((_HEIGHT, _HEIGHT), bool)
        skin[self.inside] = face[corners[self.inside]].all(1)
        self.skin = skin
        columns = np.arange(_SPACING // 2, _HEIGHT, _SPACING)
        x, y = (a.ravel() for a in np.meshgrid(columns, columns))
        keep = skin[y, x]
        self.grid = np.column_stack([x, y])[keep]
        lookup = np.full((_HEIGHT, _HEIGHT), -1)
        lookup[self.inside] = np.arange(len(corners_used))
        chosen = lookup[self.grid[:, 1], self.grid[:, 0]]
        weights = bary[chosen][..., None]
        self.neutral = (self._neutral[corners_used[chosen]] * weights).sum(1)
        by_row = self._rows.reshape(len(rows), -1, 3)[:, corners_used[chosen]]
        self.expression = (by_row * weights).sum(2)

    def look(
        self, weights: np.ndarray, pose: np.ndarray, K: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where a frame shows the pixels of the view, (h, w, 2) pixels, and facing (h, w) cosines.

        Args:
            weights: (E,) expression; pose: (4, 4) T_camera_head; K: (3, 3).
        """
        posed = self._neutral + (weights.astype(np.float32) @ self._rows).reshape(-1, 3)
        camera = posed @ pose[:3, :3].T.astype(np.float32) + pose[:3, 3].astype(np.float32)
        pixels = camera[:, :2] / camera[:, 2:] * np.float32(K[0, 0]) + K[:2, 2].astype(np.float32)
        places = (self._blend @ pixels).reshape(_HEIGHT, _HEIGHT, 2)
        places += self._nowhere
        middle = camera.mean(0)
        towards = -(middle / np.linalg.norm(middle)) @ pose[:3, :3].astype(np.float32)
        return places, (self._normals @ towards).reshape(_HEIGHT, _HEIGHT)


@dataclass
class MeanTexture:
    """What the face looks like from the fixed view, as the mean of some frames, without shading.

    Attributes:
        gray: (h, w) uint8 detail around 128.
        slope: (h, w) float32, how much grey changes a pixel around each.
    """

    gray: np.ndarray
    slope: np.ndarray

    @classmethod
    def of(
        cls, view: FaceView, frames: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]
    ) -> "MeanTexture":
        """From frames (gray (H, W) uint8, places (h, w, 2), facing (h, w))."""
        total, amount = np.zeros(view.skin.shape), np.full(view.skin.shape, 1e-6)
        for gray, places, facing in frames:
            seen = np.clip((facing - _FACING) / 0.4, 0, 1) ** 2
            total += seen * detail(unwrapped(gray, places))
            amount += seen
        mean = np.where(amount > 1e-3, total / amount, 128)
        gray = (mean + 0.5).astype(np.uint8)
        return cls(gray, _slope(gray))


def _slope(gray: np.ndarray) -> np.ndarray:
    import cv2

    smooth = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), 1.5)
    slope = np.hypot(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1)) / 8
    return cv2.GaussianBlur(slope, (0, 0), 2)


def unwrapped(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A frame taken back to the fixed view."""
    import cv2

    return cv2.remap(image, places - 0.5, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def detail(gray: np.ndarray) -> np.ndarray:
    """(h, w) uint8 without slow shading, of even contrast, around 128."""
    import cv2

    fine = gray.astype(np.float32)
    fine -= widely_blurred(fine, 9)
    contrast = cv2.sqrt(widely_blurred(fine * fine, 14))
    contrast += 6
    fine *= 40
    fine /= contrast
    fine += 128
    return np.clip(fine, 0, 255, out=fine).astype(np.uint8)


def flow_targets(
    view: FaceView, texture: MeanTexture, gray: np.ndarray, places: np.ndarray, facing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where one frame really shows the followed points: (K, 2) pixels and weights (K,)."""
    import cv2

    own = detail(unwrapped(gray, places))
    flow = _flow_search().calc(texture.gray, own, None)
    x, y = view.grid[:, 0], view.grid[:, 1]
    move = flow[y, x]
    there = (view.grid + move).astype(np.float32)
    sampled = cv2.remap(places, there[None], None, cv2.INTER_LINEAR)[0]
    moved = cv2.remap(own, there[None], None, cv2.INTER_LINEAR)[0].astype(np.float32)
    unlike = np.abs(moved - texture.gray[y, x])
    length = np.linalg.norm(move, axis=1)
    weight = np.clip(texture.slope[y, x] * 4 / _DETAIL, 0, 1) * np.clip(
        (facing[y, x] - _FACING) / 0.3, 0, 1
    )
    weight = weight * np.exp(-((unlike / 40) ** 2)) * (length < _REACH)
    weight = weight * (np.abs(sampled - places[y, x]).max(1) < 4 * _REACH)
    return sampled, weight.astype(np.float32)


def _flow_search() -> Any:
    """The optical flow of this thread; a new one fetches memory for a third of its time."""
    import cv2

    tools: Any = cv2  # its type stubs lack the optical flow
    search = getattr(_OF_THREAD, "search", None)
    if search is None:
        search = tools.DISOpticalFlow_create(tools.DISOPTICAL_FLOW_PRESET_FAST)
        search.setFinestScale(1)
        _OF_THREAD.search = search
    return search


def dense_targets(view: FaceView, targets: list[tuple[np.ndarray, np.ndarray]]) -> DenseTargets:
    """The targets of successive frames together, each frame's weights as a share of all points."""
    points = np.stack([points for points, _ in targets]).astype(np.float32)
    weights = np.stack([weight for _, weight in targets]) / len(view.grid)
    return DenseTargets(view.neutral, view.expression, points, weights)


def rerendering_psnr(
    view: FaceView,
    fit: FaceFit,
    K: np.ndarray,
    image: Callable[[int], np.ndarray],
    known: np.ndarray,
    held_out: np.ndarray,
    workers: int = 1,
) -> float:
    """Decibels: how well the mean texture of some frames shows the skin of others.

    Args:
        fit: poses and weights by which frames are taken to the view and back.
        image: number to (H, W) or (H, W, 3) uint8.
        known, held_out: numbers of the frames of the texture and of those compared with it.
        workers: threads.
    """

    def taken_back(index: int) -> tuple[np.ndarray, np.ndarray]:
        return _taken_back(view, fit, K, image(index), index)

    total: np.ndarray | float = 0.0
    amount = np.full((*view.skin.shape, 1), 1e-6)
    for own, facing in parallel_map(taken_back, known.tolist(), workers):
        seen = np.clip((facing - _FACING) / 0.4, 0, 1)[..., None] ** 2
        total, amount = total + seen * own, amount + seen
    texture, errors = total / amount, []
    for own, facing in parallel_map(taken_back, held_out.tolist(), workers):
        skin = view.skin & (facing > _FACING) & (amount[..., 0] > 1e-3)
        errors.append(float(((own - texture)[skin] ** 2).mean()) / 255**2 if skin.any() else 1.0)
    return float(np.mean(-10 * np.log10(np.maximum(errors, 1e-10))))


def _taken_back(
    view: FaceView, fit: FaceFit, K: np.ndarray, image: np.ndarray, index: int
) -> tuple[np.ndarray, np.ndarray]:
    places, facing = view.look(fit.weights[index], fit.poses[index], K)
    own = unwrapped(image, places).astype(np.float32)
    return own if own.ndim == 3 else own[..., None], facing
