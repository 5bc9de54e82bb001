"""A z-buffer for triangle meshes: which triangle each pixel sees, where on it and how far."""

import numpy as np

from avatar3d.kernels import reference
from avatar3d.kernels._backend import Backend, native, use_native

__all__ = ["rasterize_mesh"]


def rasterize_mesh(
    points: np.ndarray,
    faces: np.ndarray,
    width: int,
    height: int,
    *,
    backend: Backend = "auto",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest triangle at each pixel centre (x + 0.5, y + 0.5). Not differentiable.

    Both windings are drawn. A triangle with a vertex at z <= 0 or a non-finite value is left out
    whole (there is no clipping), and so is one of no area. A centre on an edge belongs to every
    triangle of that edge; at equal depth the triangle of lower index wins.

    Args:
        points: (V, 3) float32: x and y in pixels, z the depth in the camera.
        faces: (F, 3) int32 into points.

    Returns:
        face (height, width) int32, -1 where empty; bary (height, width, 3) float32,
        perspective-correct, 0 where empty; depth (height, width) float32, inf where empty.

    Raises:
        ValueError: an argument has the wrong shape, dtype or range.
    """
    fast = use_native(backend)
    points, faces = np.asarray(points), np.asarray(faces)
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype != np.float32:
        raise ValueError(f"points is {points.dtype} {points.shape}, expected float32 (V, 3).")
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype != np.int32:
        raise ValueError(f"faces is {faces.dtype} {faces.shape}, expected int32 (F, 3).")
    if not (1 <= width <= 65536 and 1 <= height <= 65536):
        raise ValueError(f"width x height is {width} x {height}, expected 1 to 65536 each.")
    if faces.size and (faces.min() < 0 or faces.max() >= len(points)):
        raise ValueError(f"faces points outside points, which has {len(points)} rows.")
    if not fast:
        return reference.rasterize_mesh(points, faces, width, height)
    face = np.empty((height, width), np.int32)
    bary = np.empty((height, width, 3), np.float32)
    depth = np.empty((height, width), np.float32)
    native().rasterize_mesh(
        np.ascontiguousarray(points), np.ascontiguousarray(faces), width, height, face, bary, depth
    )
    return face, bary, depth
