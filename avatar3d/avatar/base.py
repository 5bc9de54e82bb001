"""What every avatar can do, whatever radiance field it is made of."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from avatar3d.geometry import Camera
from avatar3d.motion.motion import Motion

__all__ = ["Avatar"]


@runtime_checkable
class Avatar(Protocol):
    """A person who can be rendered.

    Attributes:
        info: JSON data: name, consent, how it was trained; `train_frames` is the number of leading
            frames of the clip that training could see.
        idle_motion: a piece of the captured performance, at most 20 s.
        camera: the camera of the clip.
        background: (H, W, 3) uint8 empty plate, or None.
    """

    info: dict[str, Any]
    idle_motion: Motion
    background: np.ndarray | None

    @property
    def camera(self) -> Camera: ...

    def render(
        self,
        expression: Mapping[str, float] | np.ndarray | None = None,
        yaw: float = 0.0,
        pitch: float = 0.0,
        roll: float = 0.0,
        gaze: tuple[float, float] | None = None,
        camera: Camera | None = None,
        transparent: bool = False,
    ) -> np.ndarray:
        """One picture (H, W, 3) or, when transparent, (H, W, 4), uint8; angles in radians."""
        ...

    def render_motion(
        self, motion: Motion, camera: Camera | None = None, background: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """A picture (H, W, 3) uint8 per frame of the motion."""
        ...

    def confidence(self, motion: Motion) -> np.ndarray:
        """(T,) in [0, 1]: how much of the expression that each frame asks for was filmed."""
        ...

    def to(self, device: str) -> "Avatar":
        """The same avatar, drawn on another device: "cpu" or "cuda"."""
        ...

    def save(self, path: str | Path) -> None:
        """Write the avatar file."""
        ...
