"""The shoulders' motion: rigid vectors, and its prediction from the head's motion."""

import numpy as np
from scipy.ndimage import maximum_filter1d, uniform_filter1d
from scipy.spatial.transform import Rotation

from avatar3d.subject import Tracking

__all__ = [
    "fit_torso_map",
    "predict_torso",
    "rigid_to_vectors",
    "torso_statistics",
    "vectors_to_rigid",
]

SMOOTHING_SECONDS = 0.5
EASING_SECONDS = 1.0
"""On either side of a motion that is too large for the shoulders, to ease in and out of it."""


def rigid_to_vectors(transforms: np.ndarray) -> np.ndarray:
    """Rigid transforms (T, 4, 4) to (T, 6): rotation vector in radians, translation in metres."""
    rotations = Rotation.from_matrix(transforms[:, :3, :3]).as_rotvec()
    return np.concatenate([rotations, transforms[:, :3, 3]], axis=1)


def vectors_to_rigid(vectors: np.ndarray) -> np.ndarray:
    """Inverse of `rigid_to_vectors`."""
    transforms = np.tile(np.eye(4), (len(vectors), 1, 1))
    transforms[:, :3, :3] = Rotation.from_rotvec(vectors[:, :3]).as_matrix()
    transforms[:, :3, 3] = vectors[:, 3:]
    return transforms


def fit_torso_map(
    head_pose: np.ndarray, torso_pose: np.ndarray, fps: float, ridge: float = 1e-2
) -> np.ndarray:
    """Linear map (12, 6) from head motion to shoulder motion, without offset: rest goes to rest.

    Args:
        head_pose, torso_pose: (T, 4, 4) relative to the rest pose.
        fps: frames per second.
        ridge: fraction of the mean feature variance added to the normal equations.
    """
    features = _features(head_pose, fps)
    targets = rigid_to_vectors(torso_pose)
    gram = features.T @ features
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram)) + 1e-12 * np.eye(len(gram))
    return np.linalg.solve(gram, features.T @ targets)


def torso_statistics(
    tracking: Tracking, frames: np.ndarray, fps: float
) -> tuple[np.ndarray, np.ndarray]:
    """`fit_torso_map` on some frames of a tracking, and the largest motion (6,) seen in them."""
    inverse = np.linalg.inv(tracking.T_camera_rest)
    head, torso = inverse @ tracking.T_camera_head, inverse @ tracking.T_camera_torso
    limit = np.abs(rigid_to_vectors(torso[frames])).max(0)
    return fit_torso_map(head[frames], torso[frames], fps), limit


def predict_torso(
    head_pose: np.ndarray, torso_map: np.ndarray, torso_limit: np.ndarray, fps: float
) -> np.ndarray:
    """Shoulder motion (T, 4, 4) for head motion (T, 4, 4), both relative to the rest pose.

    Each component stays within +-`torso_limit` (6,): a head turned further than in the clip does
    not take the shoulders along. While it turns to and fro that far they follow it in proportion,
    less than they did in the clip, or they would jump from one limit to the other.
    """
    vectors = _features(head_pose, fps) @ torso_map
    excess = np.abs(vectors) / np.maximum(torso_limit, 1e-9)
    around = 2 * round(EASING_SECONDS * fps) + 1
    # The mean over a window of the largest over a wider one is nowhere below what it was made of.
    largest = maximum_filter1d(excess, 2 * around - 1, axis=0, mode="nearest")
    eased = uniform_filter1d(largest, around, axis=0, mode="nearest")
    return vectors_to_rigid(vectors / np.maximum(eased, 1))


def _features(head_pose: np.ndarray, fps: float) -> np.ndarray:
    """(T, 12): the head's motion now, and averaged over half a second around now."""
    now = rigid_to_vectors(head_pose)
    half = max(1, round(SMOOTHING_SECONDS * fps / 2))
    padded = np.pad(now, ((half, half), (0, 0)), mode="edge")
    window = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=0)
    return np.concatenate([now, window.mean(-1)], axis=1)
