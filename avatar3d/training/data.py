"""The frames that training looks at."""

import tempfile
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avatar3d.errors import UserError
from avatar3d.head.landmarks import EYE_LEFT, EYE_RIGHT, LIPS
from avatar3d.kernels import decode_pixels
from avatar3d.progress import track
from avatar3d.subject import Subject, Tracking

__all__ = ["FEWEST", "FrameStore", "hold_back", "region_weights", "select_frames", "train_count"]

FEWEST = 8
"""Frames that training cannot do without."""
_AHEAD = 16


def select_frames(tracking: Tracking, train_fraction: float, limit: int) -> np.ndarray:
    """Indices (n,) of valid frames of the leading fraction, at most `limit`, evenly spread.

    Raises:
        UserError: too few frames with a tracked face.
    """
    stop = train_count(len(tracking), train_fraction)
    valid = np.flatnonzero(tracking.valid[:stop])
    if len(valid) < FEWEST:
        raise UserError(
            f"Only {len(valid)} of the first {stop} frames have a well tracked face, at least "
            f"{FEWEST} are needed; use a longer clip in which the face is visible."
        )
    if len(valid) > limit:
        valid = valid[np.linspace(0, len(valid) - 1, limit).astype(int)]
    return valid


def hold_back(frames: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames to train on and `count` to only look at, none where frames are few.

    They are one stretch, because a frame beside a trained one says little about others.
    """
    if not count or len(frames) < 10 * count:
        return frames, frames[:0]
    start = (len(frames) - count) * 2 // 3
    kept = np.r_[frames[:start], frames[start + count :]]
    return kept, frames[start : start + count]


def train_count(frames: int, train_fraction: float) -> int:
    """How many leading frames belong to training: int(N * fraction), as the field splits clips."""
    return min(frames, int(frames * train_fraction + 1e-9)) if train_fraction < 1 else frames


class FrameStore:
    """Some frames of a subject and their mattes, decoded once and then read from the disk.

    The bytes lie in a nameless file, which takes no memory and vanishes with the process however
    that ends.

    Args:
        subject: whose frames.
        indices: (n,) frame numbers to hold.
        folder: where there is room for the file.
        device: of the tensors.
        size: (width, height) to bring the frames to, default theirs.

    Attributes:
        background: (H, W, 3) float tensor in [0, 1], the empty plate.
        row: place of each frame number among `indices`.

    Raises:
        UserError: a frame cannot be read, or the disk is full.
    """

    def __init__(
        self,
        subject: Subject,
        indices: np.ndarray,
        folder: Path,
        device: str | torch.device = "cpu",
        size: tuple[int, int] | None = None,
    ) -> None:
        self.indices, self.device = indices, torch.device(device)
        self.row = {int(index): row for row, index in enumerate(indices)}
        self._size = size or (subject.info.width, subject.info.height)
        width, height = self._size
        self._image = np.empty((height, width, 3), np.uint8)
        self._matte = np.empty((height, width), np.uint8)
        plate = torch.from_numpy(self._resized(subject.background).astype(np.float32) / 255)
        self.background = plate.to(self.device)
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, closed by the next line
            weakref.finalize(self, self._file.close)
            self._decode(subject)
        except OSError as error:
            amount = len(indices) * (self._image.nbytes + self._matte.nbytes) / 1e9
            raise UserError(
                f"Cannot keep the decoded frames ({amount:.1f} GB) in {folder}: "
                f"{error.strerror or error}; free some space or lower max_frames."
            ) from error

    def image(self, index: int) -> Tensor:
        """(H, W, 3) float in [0, 1]."""
        return decode_pixels(self._read(index, self._image))

    def on_flat(self, index: int, color: Tensor) -> Tensor:
        """`image` with the background replaced by a colour (3,)."""
        image, matte = self._read(index, self._image), self._read(index, self._matte)
        return decode_pixels(image, matte, color)

    def matte(self, index: int) -> Tensor:
        """(H, W) float in [0, 1]."""
        return self._read(index, self._matte).to(torch.float32).div_(255)

    def _decode(self, subject: Subject) -> None:
        def read(index: int) -> tuple[np.ndarray, np.ndarray]:
            return self._resized(subject.frame(index)), self._resized(subject.matte(index))

        def pictures() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            with ThreadPoolExecutor(2) as pool:
                # A few at a time, or decoded frames would wait in memory for the disk.
                for first in range(0, len(self.indices), _AHEAD):
                    yield from pool.map(read, self.indices[first : first + _AHEAD].tolist())

        people = 0
        for image, matte in track(pictures(), "Reading frames", len(self.indices)):
            people += int(matte.max() > 127)
            self._file.write(np.ascontiguousarray(image).data)
            self._file.write(np.ascontiguousarray(matte).data)
        self._file.flush()
        if people < FEWEST:
            raise UserError(
                f"Only {people} of {len(self.indices)} mattes in {subject.folder} show a person, "
                f"at least {FEWEST} are needed; run `avatar3d capture` again."
            )

    def _resized(self, image: np.ndarray) -> np.ndarray:
        if image.shape[1::-1] == self._size:
            return image
        from PIL import Image

        return np.array(Image.fromarray(image).resize(self._size, Image.Resampling.BOX))

    def _read(self, index: int, into: np.ndarray) -> Tensor:
        """The image or the matte of a frame, in memory that the next call uses again."""
        size = self._image.nbytes + self._matte.nbytes
        inside = self._image.nbytes if into is self._matte else 0
        self._file.seek(self.row[int(index)] * size + inside)
        self._file.readinto(into.data)
        return torch.from_numpy(into).to(self.device)


def region_weights(
    landmarks: np.ndarray,
    height: int,
    width: int,
    mouth: float,
    eyes: float,
    out: Tensor | None = None,
) -> Tensor:
    """(H, W) loss weights: 1, more in boxes around the mouth and the eyes.

    Args:
        landmarks: (478, 2) pixels.
        out: where to write them.
    """
    weights = torch.empty(height, width) if out is None else out
    weights.fill_(1)
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
