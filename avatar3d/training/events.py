"""What a training run tells its listeners."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avatar3d.avatar import PosedAvatar

__all__ = [
    "Checkpointed",
    "Done",
    "Event",
    "FrameRefined",
    "HeldBack",
    "Preview",
    "PreviewClip",
    "Said",
    "Started",
    "Step",
]


@dataclass(frozen=True)
class Started:
    """Training begins or goes on.

    Listeners may call `avatar`, the avatar as it is, and `preview` of one of the training
    `frames` (n,) while they handle an event.
    """

    avatar: Callable[[], PosedAvatar]
    preview: "Callable[[int], Preview]"
    frames: np.ndarray


@dataclass(frozen=True)
class Step:
    """One optimiser step. `phase` is "warmup" or "final"; loss is that of the step's frame, the
    sum of `terms`."""

    phase: str
    iteration: int
    loss: float
    terms: dict[str, float]


@dataclass(frozen=True)
class HeldBack:
    """Mean loss of the picture of training frames that are only looked at."""

    iteration: int
    loss: float


@dataclass(frozen=True)
class Said:
    """Something the person may want to know, as a sentence."""

    message: str


@dataclass(frozen=True)
class FrameRefined:
    """Photometric tracking finished one frame."""

    frame: int


@dataclass(frozen=True)
class Preview:
    """A frame beside its render and five times their difference, (H, 3 W, 3) uint8."""

    iteration: int
    frame: int
    image: np.ndarray


@dataclass(frozen=True)
class PreviewClip:
    """A short stretch of the clip, frames (H / 2, W, 3) uint8 beside their renders.

    `pictures` renders them when it is called, which must be before the next event is asked for.
    """

    pictures: Callable[[], Iterator[np.ndarray]]
    fps: float


@dataclass(frozen=True)
class Checkpointed:
    """A checkpoint is on disk."""

    path: Path


@dataclass(frozen=True)
class Done:
    """Training is over."""

    avatar: PosedAvatar


Event = (
    Started | Step | FrameRefined | HeldBack | Said | Preview | PreviewClip | Checkpointed | Done
)
