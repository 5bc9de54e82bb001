"""The frames that training looks at, decoded once and held as bytes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from avatar3d.errors import UserError
from avatar3d.head.landmarks import EYE_LEFT, EYE_RIGHT, LIPS
from avatar3d.kernels import decode_pixels
from avatar3d.progress import track
from avatar3d.subject import Subject, Tracking

__all__ = ["FrameStore", "region_weights", "select_frames", "train_count"]


def select_frames(tracking: Tracking, train_fraction: float, limit: int) -> np.ndarray:
    """Indices (n,) of valid frames of the leading fraction, at most `limit`, evenly spread.

    Raises:
        UserError: too few frames with a tracked face.
    """
    stop = train_count(len(tracking), train_fraction)
    valid = np.flatnonzero(tracking.valid[:stop])
    if len(valid) < 8:
        raise UserError(
            f"Only {len(valid)} of the first {stop} frames have a well tracked face, at least 8 "
            "are needed; use a longer clip in which the face is visible."
        )
    if len(valid) > limit:
        valid = valid[np.linspace(0, len(valid) - 1, limit).astype(int)]
    return valid


def train_count(frames: int, train_fraction: float) -> int:
    """How many leading frames belong to training: int(N * fraction), as the field splits clips."""
    return min(frames, int(frames * train_fraction + 1e-9)) if train_fraction < 1 else frames


class FrameStore:
    """Frames and mattes of some frame numbers in memory, as uint8.

    Attributes:
        indices: (n,) frame numbers held.
        background: (H, W, 3) float tensor in [0, 1], the empty plate.
        device: of the tensors; the bytes stay in main memory.
    """

    def __init__(
        self, subject: Subject, indices: np.ndarray, device: str | torch.device = "cpu"
    ) -> None:
        self.indices, self.device = indices, torch.device(device)
        self._row = {int(index): row for row, index in enumerate(indices)}
        height, width = subject.info.height, subject.info.width
        self._images = np.empty((len(indices), height, width, 3), np.uint8)
        self._mattes = np.empty((len(indices), height, width), np.uint8)
        plate = torch.from_numpy(subject.background.astype(np.float32) / 255)
        self.background = plate.to(self.device)

        def read(row: int) -> None:
            self._images[row] = subject.frame(int(indices[row]))
            self._mattes[row] = subject.matte(int(indices[row]))

        with ThreadPoolExecutor(2) as pool:
            for _ in track(pool.map(read, range(len(indices))), "Reading frames", len(indices)):
                pass

    def image(self, index: int) -> Tensor:
        """(H, W, 3) float in [0, 1]."""
        return decode_pixels(self._bytes(self._images, index))

    def on_flat(self, index: int, color: Tensor) -> Tensor:
        """`image` with the background replaced by a colour (3,)."""
        image, matte = self._bytes(self._images, index), self._bytes(self._mattes, index)
        return decode_pixels(image, matte, color)

    def matte(self, index: int) -> Tensor:
        """(H, W) float in [0, 1]."""
        return self._bytes(self._mattes, index).to(torch.float32).div_(255)

    def _bytes(self, frames: np.ndarray, index: int) -> Tensor:
        return torch.from_numpy(frames[self._row[int(index)]]).to(self.device)


def region_weights(
    landmarks: np.ndarray, height: int, width: int, mouth: float, eyes: float
) -> Tensor:
    """(H, W) loss weights: 1, more in boxes around the mouth and the eyes.

    Args:
        landmarks: (478, 2) pixels.
    """
    weights = torch.ones(height, width)
    for region, margin, value in (
        (LIPS, 0.35, mouth),
        (EYE_LEFT, 0.5, eyes),
        (EYE_RIGHT, 0.5, eyes),
    ):
        points = landmarks[list(region)]
        low, high = points.min(0), points.max(0)
        grow = (high - low).max() * margin
        x0, y0 = np.maximum(low - grow, 0).astype(int)
        x1, y1 = np.maximum(high + grow, 0).astype(int)
        weights[y0:y1, x0:x1] = weights[y0:y1, x0:x1].clamp_min(value)
    return weights
