"""Motion of the shoulders, measured on the clothes and skin below the chin.

Points with texture are tracked from reference frames by sparse optical flow, checked forwards and
backwards, and explained by one similarity transform of the image per frame. Where too few points
agree (bare or plain shoulders) the measurement has no weight, and the shoulders follow the head a
little instead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = [
    "TorsoMotion", "TorsoTracker", "measure_all", "pivot_pixel", "smooth_motion", "torso_poses",
]  # fmt: skip

NECK_BASE = (0.0, -0.16, -0.02)
"""Pivot in the head frame, metres: about where the neck meets the shoulders."""

FOLLOW = 0.12
"""How far unmeasured shoulders follow the head's translation; findings put it at 1 to 4 % of the
inter-ocular distance against 4 to 23 % for the head."""

_MAX_POINTS = 240
_MIN_POINTS = 12
_WINDOW = 21


@dataclass(frozen=True)
class TorsoMotion:
    """Per frame, relative to the reference: a similarity about a pivot pixel, and trust in it.

    Attributes:
        shift: (T, 2) pixels; log_scale: (T,); roll: (T,) radians, clockwise in the image.
        confidence: (T,) in [0, 1].
    """

    shift: np.ndarray
    log_scale: np.ndarray
    roll: np.ndarray
    confidence: np.ndarray


class TorsoTracker:
    """Measures one frame at a time against a reference frame; use it in order."""

    def __init__(self, image: np.ndarray, matte: np.ndarray, points: np.ndarray, pivot: np.ndarray):
        """Reference picture (H, W, 3), its alpha, landmarks (478, 2) and the pivot (2,), pixels."""
        import cv2

        self._gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        self._pivot = np.asarray(pivot, np.float64)
        self._points = self._choose(matte, points)
        self._last = np.array([[1.0, 0, 0], [0, 1.0, 0]])

    def measure(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        """(shift x, shift y, log scale, roll) and confidence of one frame."""
        import cv2

        none = np.zeros(4)
        if len(self._points) < _MIN_POINTS:
            return none, 0.0
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        options = {
            "winSize": (_WINDOW, _WINDOW),
            "maxLevel": 3,
            "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.02),
            "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
        }
        start = self._points
        guess = (start @ self._last[:, :2].T + self._last[:, 2]).astype(np.float32)
        there, ok, _ = cv2.calcOpticalFlowPyrLK(self._gray, gray, start, guess.copy(), **options)
        back, ok_back, _ = cv2.calcOpticalFlowPyrLK(gray, self._gray, there, start.copy(), **options)
        limit = max(1.0, 0.003 * gray.shape[0])
        good = (ok[:, 0] > 0) & (ok_back[:, 0] > 0)
        good &= np.linalg.norm(back - start, axis=1) < limit
        if good.sum() < _MIN_POINTS:
            return none, 0.0
        transform, inliers = cv2.estimateAffinePartial2D(
            start[good], there[good], method=cv2.RANSAC, ransacReprojThreshold=limit,
            maxIters=300, confidence=0.995, refineIters=10,
        )  # fmt: skip
        if transform is None:
            return none, 0.0
        chosen = inliers[:, 0] > 0
        confidence = self._confidence(start[good][chosen], len(start))
        motion = self._about_pivot(transform)
        if abs(motion[2]) > 0.25 or abs(motion[3]) > 0.5:
            return none, 0.0
        if confidence > 0:
            self._last = transform
        return motion, confidence

    def _choose(self, matte: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Corners inside the person, below the chin (N, 2) float32."""
        import cv2

        height, width = matte.shape
        chin, brow = points[152], points[10]
        face_height = float(np.linalg.norm(chin - brow))
        border = max(5, round(0.02 * height))
        mask = cv2.erode((matte > 250).astype(np.uint8), np.ones((border, border), np.uint8))
        mask[: min(height, int(chin[1] + 0.25 * face_height))] = 0
        mask[height - 3 :] = 0
        mask[:, :3] = mask[:, width - 3 :] = 0
        if mask.sum() < 0.005 * height * width:
            return np.zeros((0, 2), np.float32)
        strength = cv2.cornerMinEigenVal(self._gray, 7, 3)
        mask[strength < 2e-4] = 0
        corners = cv2.goodFeaturesToTrack(
            self._gray, _MAX_POINTS, 0.005, max(3, round(0.012 * height)), mask=mask, blockSize=7
        )
        return np.zeros((0, 2), np.float32) if corners is None else corners[:, 0].astype(np.float32)

    def _confidence(self, inliers: np.ndarray, total: int) -> float:
        """From the number and share of agreeing points and how widely they are spread."""
        if len(inliers) < _MIN_POINTS:
            return 0.0
        amount = np.clip((len(inliers) - _MIN_POINTS) / 30, 0, 1)
        share = np.clip((len(inliers) / total - 0.25) / 0.35, 0, 1)
        spread = np.clip(inliers[:, 0].std() / (0.08 * self._gray.shape[1]), 0, 1)
        return float(amount * share * spread)

    def _about_pivot(self, transform: np.ndarray) -> np.ndarray:
        scale = np.hypot(transform[0, 0], transform[1, 0])
        roll = np.arctan2(transform[1, 0], transform[0, 0])
        shift = transform[:, :2] @ self._pivot + transform[:, 2] - self._pivot
        return np.array([*shift, np.log(max(scale, 1e-6)), roll])


def smooth_motion(motion: TorsoMotion, head_shift: np.ndarray, fps: float) -> TorsoMotion:
    """Weigh the measurement by its confidence against a damped head motion, without lag.

    Args:
        motion: raw measurement.
        head_shift: (T, 2) pixels, motion of the head relative to the clip's mean.
        fps: frames per second.
    """
    from scipy.ndimage import gaussian_filter1d

    weight = motion.confidence[:, None]
    values = np.column_stack([motion.shift, motion.log_scale, motion.roll])
    trusted = weight.sum() > 0
    center = (weight * values).sum(0) / weight.sum() if trusted else np.zeros(4)
    fallback = np.zeros_like(values)
    fallback[:, :2] = FOLLOW * gaussian_filter1d(head_shift, 0.2 * fps, axis=0, mode="nearest")
    sigma = 0.05 * fps
    evidence = gaussian_filter1d(weight, sigma, axis=0, mode="nearest")
    mixed = gaussian_filter1d(weight * (values - center), sigma, axis=0, mode="nearest")
    prior = 0.02
    result = (mixed + prior * fallback) / (evidence + prior)
    return TorsoMotion(result[:, :2], result[:, 2], result[:, 3], motion.confidence)


def torso_poses(motion: TorsoMotion, rest: np.ndarray, K: np.ndarray) -> np.ndarray:
    """T_camera_torso (T, 4, 4): the rest pose moved as the image of the shoulders says.

    Scale becomes depth, shift becomes translation, roll turns about the neck base.
    """
    pivot = rest[:3, :3] @ np.array(NECK_BASE) + rest[:3, 3]
    depth = pivot[2] * np.exp(-motion.log_scale)
    pixel = K[:2, :2] @ (pivot[:2] / pivot[2]) + motion.shift
    moved = np.column_stack([pixel / np.diag(K)[:2] * depth[:, None], depth])
    cosine, sine = np.cos(motion.roll), np.sin(motion.roll)
    turn = np.tile(np.eye(4), (len(depth), 1, 1))
    turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1] = cosine, -sine, sine, cosine
    turn[:, :3, 3] = moved - np.einsum("tij,j->ti", turn[:, :3, :3], pivot)
    return turn @ rest


def pivot_pixel(rest: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Where the neck base of the rest pose appears, (2,) pixels."""
    point = rest[:3, :3] @ np.array(NECK_BASE) + rest[:3, 3]
    return K[:2, :2] @ (point[:2] / point[2]) + K[:2, 2]


def measure_all(
    tracker: TorsoTracker, frame: Callable[[int], np.ndarray], indices: np.ndarray
) -> TorsoMotion:
    """Track every frame in order."""
    rows, trust = [], []
    for index in indices:
        motion, confidence = tracker.measure(frame(int(index)))
        rows.append(motion)
        trust.append(confidence)
    values = np.array(rows).reshape(-1, 4)
    return TorsoMotion(values[:, :2], values[:, 2], values[:, 3], np.array(trust))
