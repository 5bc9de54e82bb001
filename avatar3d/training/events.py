"""What a training run tells its listeners."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avatar3d.avatar import SplatAvatar

__all__ = ["Checkpointed", "Done", "Event", "FrameRefined", "Preview", "Step"]


@dataclass(frozen=True)
class Step:
    """One optimiser step. `phase` is "warmup" or "final"; loss is that of the step's frame."""

    phase: str
    iteration: int
    loss: float


@dataclass(frozen=True)
class FrameRefined:
    """Photometric tracking finished one frame."""

    frame: int


@dataclass(frozen=True)
class Preview:
    """Frame beside its render and their difference, (H, 3 W, 3) uint8."""

    iteration: int
    image: np.ndarray


@dataclass(frozen=True)
class Checkpointed:
    """A checkpoint is on disk."""

    path: Path


@dataclass(frozen=True)
class Done:
    """Training is over."""

    avatar: SplatAvatar


Event = Step | FrameRefined | Preview | Checkpointed | Done
