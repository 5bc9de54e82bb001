"""Motion of the shoulders, measured on the clothes and skin below the chin.

A reference picture of the shoulders is registered to every frame by one similarity transform:
Gauss-Newton on brightness and on the matte's outline, with robust weights (inverse compositional
Lucas-Kanade, Baker & Matthews 2004). One global transform needs no corners, as edges in different
directions complete each other, and cannot be carried away by shading. The curvature of the
objective says how well each component is determined; what is not determined (bare or plain
shoulders) follows the head a little instead.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from avatar3d.capture.blur import widely_blurred

__all__ = [
    "TorsoMotion", "TorsoTracker", "measure_all", "pivot_pixel", "smooth_motion",
    "torso_poses", "torso_region",
]  # fmt: skip

NECK_BASE = (0.0, -0.16, -0.02)
"""Pivot in the head frame, metres: about where the neck meets the shoulders."""

FOLLOW = 0.15
"""How far unmeasured shoulders follow the head's translation."""

_WORK_SIZE = 256
_LEVELS = (2, 1, 0)  # halvings of the working size, coarse to fine
_MAX_PIXELS = 2000
_GRAY_NOISE, _ALPHA_NOISE = 5.0, 60.0
_CORRELATED = 40.0
"""Neighbouring pixels err together: one independent observation per this many."""
_REACH = np.array([10.0, 6.0, 0.02, 0.04])
"""Spread of the shoulders' motion over a clip, in the same units as `_PRIOR_SIGMA`."""
_PRIOR_SIGMA = np.array([1.0, 1.0, 0.01, 0.01])
"""Expected size of the shoulders' own motion: pixels at the working size, and radians."""


@dataclass(frozen=True)
class TorsoMotion:
    """Similarity of the image about a pivot pixel, relative to the reference, per frame.

    Attributes:
        values: (T, 4) shift x and y in pixels, logarithm of the scale, roll in radians clockwise.
        sigma: (T, 4) standard deviations; infinite where nothing was measured.
    """

    values: np.ndarray
    sigma: np.ndarray


class TorsoTracker:
    """Registers the shoulders of one reference frame to others; feed it frames in order."""

    def __init__(
        self, image: np.ndarray, matte: np.ndarray, region: np.ndarray, pivot: np.ndarray
    ) -> None:
        """
        Args:
            image: (H, W) or (H, W, 3) uint8 reference picture.
            matte: (H, W) uint8 alpha.
            region: (H, W) bool, where the shoulders may be measured.
            pivot: (2,) pixels, centre of scale and roll.
        """
        import cv2

        self._scale = min(1.0, _WORK_SIZE / max(matte.shape))
        self._pivot = np.asarray(pivot, np.float64) * self._scale
        self._levels = []
        channels = self._channels(image, matte)
        small = cv2.resize(region.astype(np.uint8), channels[0].shape[::-1]) > 0
        for level in _LEVELS:
            picked = [_shrunk(channel, level) for channel in channels]
            mask = _shrunk(small.astype(np.float32), level) > 0.99
            self._levels.append(_Template(picked, mask, self._pivot / 2**level, 2**level))
        self._last: np.ndarray | None = None

    @property
    def unit(self) -> float:
        """Pixels of the frame per pixel of the working size."""
        return 1 / self._scale

    @property
    def usable(self) -> bool:
        return all(len(template.points) >= 100 for template in self._levels[1:])

    def restart(self) -> None:
        """Forget where the shoulders were; the next frame may show them anywhere."""
        self._last = None

    def measure(self, image: np.ndarray, matte: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (4,) and sigma (4,) of one frame, as in `TorsoMotion`."""
        return self.register(self.pyramid(image, matte))

    def pyramid(self, image: np.ndarray, matte: np.ndarray) -> list[list[np.ndarray]]:
        """What `register` needs of a frame; needs no order, so it can be made on any thread."""
        channels = self._channels(image, matte)
        return [[_shrunk(channel, level) for channel in channels] for level in _LEVELS]

    def register(self, pyramid: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """`measure` of a frame's pyramid."""
        unknown = np.zeros(4), np.full(4, np.inf)
        if not self.usable:
            return unknown
        known = self._last is not None
        transform = self._last if self._last is not None else np.eye(3)
        for template, channels, level in zip(self._levels, pyramid, _LEVELS, strict=True):
            if known and level == _LEVELS[0]:
                continue
            transform, sigma = template.register(channels, transform, 5 if known else 12)
        values = _parameters(transform, self._pivot)
        if not np.isfinite(values).all() or abs(values[2]) > 0.2 or abs(values[3]) > 0.4:
            self._last = None
            return unknown
        self._last = transform
        to_pixels = np.array([1 / self._scale, 1 / self._scale, 1, 1])
        return values * to_pixels, sigma * to_pixels

    def _channels(self, image: np.ndarray, matte: np.ndarray) -> list[np.ndarray]:
        """Brightness without slow shading, and alpha, both in units of their noise."""
        import cv2

        size = tuple(max(8, round(side * self._scale)) for side in matte.shape[::-1])
        gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        alpha = cv2.resize(matte, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        gray -= widely_blurred(gray, 12)
        gray = cv2.GaussianBlur(gray, (0, 0), 0.7)
        alpha = cv2.GaussianBlur(alpha, (0, 0), 1.0)
        return [gray * np.float32(1 / _GRAY_NOISE), alpha * np.float32(1 / _ALPHA_NOISE)]


class _Template:
    """One pyramid level of the reference, reduced to its informative pixels."""

    def __init__(
        self, channels: list[np.ndarray], mask: np.ndarray, pivot: np.ndarray, factor: int
    ) -> None:
        import cv2

        self._pivot, self._factor = pivot, factor
        points, values, slopes = [], [], []
        for channel in channels:
            gx = cv2.Scharr(channel, cv2.CV_32F, 1, 0) / 32
            gy = cv2.Scharr(channel, cv2.CV_32F, 0, 1) / 32
            strength = np.where(mask, np.hypot(gx, gy), 0)
            strength[[0, -1]] = strength[:, [0, -1]] = 0
            rows, columns = np.nonzero(strength > 0.15)
            every = max(1, len(rows) // _MAX_PIXELS)
            rows, columns = rows[::every], columns[::every]
            points.append(np.column_stack([columns, rows]) + 0.5)
            values.append(channel[rows, columns])
            slopes.append(np.column_stack([gx[rows, columns], gy[rows, columns]]))
        self.points, self._values = np.concatenate(points), np.concatenate(values)
        self._ends = np.cumsum([0, *map(len, values)])  # of each channel's points among all
        slope, offset = np.concatenate(slopes), self.points - pivot
        self._steepest = np.column_stack(
            [
                slope,
                (slope * offset).sum(1),
                slope[:, 1] * offset[:, 0] - slope[:, 0] * offset[:, 1],
            ]
        )
        self._prior = 1 / (_REACH * [1 / factor, 1 / factor, 1, 1]) ** 2

    def register(
        self, channels: list[np.ndarray], start: np.ndarray, steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Transform (3, 3) at full working size and sigma (4,)."""
        scale = np.diag([1 / self._factor, 1 / self._factor, 1])
        transform = scale @ start @ np.linalg.inv(scale)
        prior = np.diag(self._prior)
        curvature = prior
        cost = np.inf
        for _ in range(steps):
            residual, inside = self._residual(channels, transform)
            weight = np.where(inside, 1 / (1 + (residual / 2) ** 2), 0)
            cost = float((weight * residual**2).sum() / max(weight.sum(), 1))
            weighted = self._steepest * weight[:, None]
            curvature = weighted.T @ self._steepest / _CORRELATED + prior
            pull = self._prior * _parameters(transform, self._pivot)
            step = np.linalg.solve(curvature, weighted.T @ residual / _CORRELATED + pull)
            transform = transform @ np.linalg.inv(_similarity(step, self._pivot))
            if np.abs(step[:2]).max() < 0.02 and np.abs(step[2:]).max() < 3e-4:
                break
        sigma = np.sqrt(np.diag(np.linalg.inv(curvature)) * max(cost, 1.0))
        sigma[:2] *= self._factor
        return np.linalg.inv(scale) @ transform @ scale, sigma

    def _residual(
        self, channels: list[np.ndarray], transform: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        moved = self.points @ transform[:2, :2].T + transform[:2, 2]
        height, width = channels[0].shape
        inside = (moved >= 0.5).all(1) & (moved <= (width - 0.5, height - 0.5)).all(1)
        residual = np.empty(len(moved), np.float32)
        for kind, channel in enumerate(channels):
            own = slice(self._ends[kind], self._ends[kind + 1])
            if own.start < own.stop:
                residual[own] = _sampled(channel, moved[own]) - self._values[own]
        return residual, inside


def torso_region(matte: np.ndarray, points: np.ndarray, clothes: np.ndarray) -> np.ndarray:
    """(H, W) bool: below the jaw, away from the face, neck and hair where there are clothes.

    Args:
        matte: (H, W) uint8.
        points: (478, 2) landmarks in pixels.
        clothes: (H, W) bool from the parsing; the person's outline there counts too.
    """
    import cv2

    from avatar3d.head.landmarks import FACE_OVAL

    oval = points[list(FACE_OVAL)].astype(np.int32)
    face_height = max(float(np.ptp(oval[:, 1])), 8.0)
    face = np.zeros(matte.shape, np.uint8)
    cv2.fillPoly(face, [oval], 1)
    grow = int(0.12 * face_height) | 1
    face = cv2.dilate(face, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow, grow)))
    below = np.zeros(matte.shape, bool)
    below[max(0, int(points[152, 1] - 0.12 * face_height)) :] = True
    person = cv2.dilate((matte > 127).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    allowed = below & (face == 0) & person
    near = max(3, int(0.015 * matte.shape[0]))
    dressed = cv2.dilate(clothes.astype(np.uint8), np.ones((near, near), np.uint8)) > 0
    if (allowed & clothes).sum() > 0.02 * matte.size:
        return allowed & dressed
    # Bare shoulders: the neck between them moves with the head.
    beside = np.abs(np.arange(matte.shape[1]) - points[152, 0]) > 0.45 * face_height
    return allowed & beside


def measure_all(
    tracker: TorsoTracker,
    pyramids: Iterable[list[list[np.ndarray]]],
    segments: np.ndarray | None = None,
) -> TorsoMotion:
    """Register the pyramid of every frame in order; segments (T,) say which shot each is in."""
    rows = []
    for index, pyramid in enumerate(pyramids):
        if segments is not None and index and segments[index] != segments[index - 1]:
            tracker.restart()
        rows.append(tracker.register(pyramid))
    values, sigma = (np.array([row[k] for row in rows]).reshape(-1, 4) for k in (0, 1))
    return TorsoMotion(values, sigma)


def smooth_motion(
    motion: TorsoMotion,
    head_shift: np.ndarray,
    fps: float,
    unit: float,
    segments: np.ndarray | None = None,
) -> tuple[TorsoMotion, np.ndarray]:
    """Fuse measurement and damped head motion by their certainty, without lag.

    Args:
        motion: raw measurement.
        head_shift: (T, 2) pixels, motion of the head relative to the clip's mean.
        fps: frames per second.
        unit: pixels of the frame per pixel of the working size.
        segments: (T,) shot of each frame; nothing is smoothed across; default one shot.

    Returns:
        The motion about the clip's mean, and the share (T,) of the measurement in the shifts.
    """
    shots = np.zeros(len(head_shift), int) if segments is None else segments
    prior_sigma = _PRIOR_SIGMA * [unit, unit, 1, 1]
    evidence = np.where(np.isfinite(motion.sigma), 1 / np.maximum(motion.sigma, 1e-6) ** 2, 0)
    total = evidence.sum(0)
    center = (evidence * motion.values).sum(0) / np.maximum(total, 1e-12)
    fallback = np.zeros_like(motion.values)
    fallback[:, :2] = FOLLOW * _smoothed(head_shift, 0.2 * fps, shots)
    sigma = 0.04 * fps
    amount = _smoothed(evidence, sigma, shots)
    mixed = _smoothed(evidence * (motion.values - center), sigma, shots)
    prior = 1 / prior_sigma**2
    fused = (mixed + prior * fallback) / (amount + prior)
    share = (amount / (amount + prior))[:, :2].mean(1)
    return TorsoMotion(fused, 1 / np.sqrt(amount + prior)), share


def _smoothed(track: np.ndarray, sigma: float, segments: np.ndarray) -> np.ndarray:
    """Gaussian over time (T, C), within each shot."""
    from scipy.ndimage import gaussian_filter1d

    starts = np.flatnonzero(np.diff(segments)) + 1
    parts = np.split(np.asarray(track, np.float64), starts)
    filtered = [gaussian_filter1d(part, sigma, axis=0, mode="nearest") for part in parts]
    return np.concatenate(filtered)


def torso_poses(motion: TorsoMotion, rest: np.ndarray, K: np.ndarray) -> np.ndarray:
    """T_camera_torso (T, 4, 4): the rest pose moved as the image of the shoulders says.

    Scale becomes depth, shift becomes translation, roll turns about the neck base.
    """
    shift, log_scale, roll = motion.values[:, :2], motion.values[:, 2], motion.values[:, 3]
    pivot = rest[:3, :3] @ np.array(NECK_BASE) + rest[:3, 3]
    depth = pivot[2] * np.exp(-log_scale)
    pixel = K[:2, :2] @ (pivot[:2] / pivot[2]) + shift
    moved = np.column_stack([pixel / np.diag(K)[:2] * depth[:, None], depth])
    cosine, sine = np.cos(roll), np.sin(roll)
    turn = np.tile(np.eye(4), (len(depth), 1, 1))
    turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1] = cosine, -sine, sine, cosine
    turn[:, :3, 3] = moved - np.einsum("tij,j->ti", turn[:, :3, :3], pivot)
    return turn @ rest


def pivot_pixel(rest: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Where the neck base of the rest pose appears, (2,) pixels."""
    point = rest[:3, :3] @ np.array(NECK_BASE) + rest[:3, 3]
    return K[:2, :2] @ (point[:2] / point[2]) + K[:2, 2]


def _shrunk(channel: np.ndarray, level: int) -> np.ndarray:
    import cv2

    for _ in range(level):
        channel = cv2.resize(channel, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return channel


def _sampled(channel: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Bilinear values (N,) at image coordinates (N, 2); pixel centres are at halves."""
    import cv2

    places = (points[:, None] - 0.5).astype(np.float32)
    return cv2.remap(channel, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]


def _similarity(step: np.ndarray, pivot: np.ndarray) -> np.ndarray:
    """(3, 3) transform about a pivot from (shift x, shift y, log scale, roll)."""
    scale = np.exp(step[2])
    a, b = scale * np.cos(step[3]), scale * np.sin(step[3])
    linear = np.array([[a, -b], [b, a]])
    result = np.eye(3)
    result[:2, :2] = linear
    result[:2, 2] = pivot - linear @ pivot + step[:2]
    return result


def _parameters(transform: np.ndarray, pivot: np.ndarray) -> np.ndarray:
    scale = np.hypot(transform[0, 0], transform[1, 0])
    roll = np.arctan2(transform[1, 0], transform[0, 0])
    shift = transform[:2, :2] @ pivot + transform[:2, 2] - pivot
    return np.array([*shift, np.log(max(scale, 1e-9)), roll])
