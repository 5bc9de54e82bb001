"""What an iteration looks at: some pixels of some frames."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar.rig import FaceParameters
from avatar3d.geometry import Camera
from avatar3d.subject import Tracking
from avatar3d.training.data import FrameStore, region_weights
from avatar3d.training.nerf.config import NerfConfig
from avatar3d.training.nerf.pixels import PixelChoice, widened
from avatar3d.training.nerf.sides import Sides
from avatar3d.training.refine import face_parameters

__all__ = ["Look", "Looks"]


@dataclass
class Look:
    """Pixels of one face.

    Attributes:
        face: what it does, with its vertices.
        pixels: (n,) numbers of pixels; target: (n, 3) what they show, before `background` (n, 3).
        row: of the frame among those of the store; None for a picture of the quick avatar.
    """

    face: FaceParameters
    pixels: Tensor
    target: Tensor
    background: Tensor
    row: int | None


class Looks:
    """Makes looks at the frames of a store.

    Args:
        tracking: of all frames; store: those to look at, in the size of `camera`.
        config: weights of the face's parts and how often the background is a random colour.
        sides: pictures of the quick avatar, or None.
    """

    def __init__(
        self,
        tracking: Tracking,
        store: FrameStore,
        camera: Camera,
        config: NerfConfig,
        sides: Sides | None,
    ) -> None:
        self.store, self.camera, self.config, self.sides = store, camera, config, sides
        self.choice = PixelChoice(camera.height, camera.width)
        scale = camera.width / tracking.camera.width
        self._landmarks = tracking.landmarks_fit * scale
        self._tracks = face_parameters(tracking, store.indices, store.device)
        self._people: dict[int, Tensor] = {}  # a byte a pixel, as widening takes long
        self._weight = torch.empty(camera.height, camera.width)

    def face(self, frame: int) -> FaceParameters:
        """What a frame's face does."""
        row, tracks = self.store.row[frame], self._tracks
        return FaceParameters(
            tracks.weights[row],
            tracks.gaze[row],
            tracks.T_camera_head[row],
            tracks.T_camera_torso[row],
        )

    def some(self, frame: int, count: int, rng: np.random.Generator) -> Look:
        """About so many pixels of a frame, where the avatar errs and where it matters."""
        pixels = self.choice.pixels(self._chances(frame), count, rng)
        return self._look(frame, pixels, rng)

    def square(self, frame: int, side: int, rng: np.random.Generator) -> Look:
        """All pixels of a square of so many pixels a side."""
        pixels = self.choice.square(self._chances(frame), side, rng)
        return self._look(frame, pixels, rng)

    def side(self, count: int, rng: np.random.Generator) -> Look:
        """Pixels of a picture of the quick avatar from a side that was not filmed."""
        assert self.sides is not None
        row = int(rng.integers(len(self.sides)))
        color = torch.tensor(rng.random(3), dtype=torch.float32, device=self.store.device)
        near = widened(self.sides.alphas[row])
        chances = self.choice.chances(near, torch.ones_like(self._weight))
        pixels = self.choice.pixels(chances, count, rng)
        target = self.sides.over(row, color).view(-1, 3)[pixels]
        background = color.expand(len(pixels), 3)
        return Look(self.sides.faces[row], pixels, target, background, None)

    def _chances(self, frame: int) -> Tensor:
        landmarks, config = self._landmarks[frame], self.config
        size = self.camera.height, self.camera.width
        weight = region_weights(
            landmarks, *size, config.mouth_weight, config.eye_weight, self._weight
        )
        if frame not in self._people:
            near = widened(self.store.matte(frame).cpu())
            self._people[frame] = (near * 255).round().to(torch.uint8)
        return self.choice.chances(self._people[frame].to(torch.float32) / 255, weight)

    def _look(self, frame: int, pixels: Tensor, rng: np.random.Generator) -> Look:
        if rng.random() < self.config.random_background:
            color = torch.tensor(rng.random(3), dtype=torch.float32, device=self.store.device)
            image, background = self.store.on_flat(frame, color), color.expand(len(pixels), 3)
        else:
            image = self.store.image(frame)
            background = self.store.background.view(-1, 3)[pixels]
        target = image.view(-1, 3)[pixels]
        return Look(self.face(frame), pixels, target, background, self.store.row[frame])
