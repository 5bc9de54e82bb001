"""Head pose from landmarks alone, to start the fit from."""

from typing import Any

import numpy as np

from avatar3d.capture.parallel import parallel_map
from avatar3d.head import HeadModel

__all__ = ["mean_pose", "poses_from_landmarks"]

_RUN = 64
"""Frames solved one from the other, by one thread."""
_RIGID_SIGMA = 0.002
_RIGID_MOTION = (0.003, 0.006, 0.012)


def poses_from_landmarks(
    head: HeadModel,
    points: np.ndarray,
    found: np.ndarray,
    K: np.ndarray,
    face: np.ndarray | None = None,
    workers: int = 1,
) -> np.ndarray:
    """Perspective-n-point of a neutral face in every frame.

    Args:
        head: the model; its landmarks that slide and move least are used.
        points: (T, 478, 2) pixels.
        found: (T,) bool, frames with a face; the others get interpolated poses.
        K: (3, 3) pixels.
        face: (478, 3) neutral landmarks, metres; default those of the mean face.
        workers: threads; the poses do not depend on it.

    Returns:
        (T, 4, 4) T_camera_head.
    """
    import cv2

    model = (head.landmarks_of(head.template) if face is None else face).astype(np.float64)
    usable = _rigid_landmarks(head)
    poses = np.tile(np.eye(4), (len(points), 1, 1))
    seen = np.flatnonzero(found)

    def solve(some: np.ndarray) -> None:
        rotation: Any = None
        translation: Any = None
        for index in some:
            image = points[index, usable].astype(np.float64)
            if rotation is None:
                _, rotation, translation = cv2.solvePnP(
                    model[usable], image, K, None, flags=cv2.SOLVEPNP_SQPNP
                )
            _, rotation, translation = cv2.solvePnP(
                model[usable], image, K, None, rotation.copy(), translation.copy(), True,
                flags=cv2.SOLVEPNP_ITERATIVE,
            )  # fmt: skip
            poses[index, :3, :3] = cv2.Rodrigues(rotation)[0]
            poses[index, :3, 3] = translation[:, 0]

    runs = [seen[first : first + _RUN] for first in range(0, len(seen), _RUN)]
    for _ in parallel_map(solve, runs, workers):
        pass
    return _filled(poses, found)


def _rigid_landmarks(head: HeadModel) -> np.ndarray:
    """(478,) bool: neither sliding with the view nor moved much by any expression."""
    moved = np.linalg.norm(head.landmarks_of(head.expression), axis=-1).max(0)
    steady = (head.landmark_sigma < _RIGID_SIGMA) & (np.arange(len(moved)) < 468)
    for limit in _RIGID_MOTION:
        usable = steady & (moved < limit)
        if usable.sum() >= 40:
            return usable
    return np.arange(len(moved)) < 468


def mean_pose(poses: np.ndarray) -> np.ndarray:
    """Rigid mean (4, 4) of poses (T, 4, 4): chordal mean rotation, mean translation."""
    u, _, vt = np.linalg.svd(poses[:, :3, :3].mean(0))
    result = np.eye(4)
    result[:3, :3] = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    result[:3, 3] = poses[:, :3, 3].mean(0)
    return result


def _filled(poses: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Poses of frames without a face, interpolated between their neighbours with one."""
    from scipy.spatial.transform import Rotation, Slerp

    known = np.flatnonzero(found)
    if len(known) in (0, len(found)):
        return poses
    times = np.clip(np.arange(len(found)), known[0], known[-1])
    if len(known) > 1:
        poses[:, :3, :3] = Slerp(known, Rotation.from_matrix(poses[known, :3, :3]))(
            times
        ).as_matrix()
    for axis in range(3):
        poses[:, axis, 3] = np.interp(times, known, poses[known, axis, 3])
    return poses
