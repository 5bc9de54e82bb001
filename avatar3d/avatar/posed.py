"""What avatars have in common: a head that a motion poses, in front of a background plate."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar.confidence import confidence
from avatar3d.avatar.rig import FaceParameters, HeadArrays, HeadRig
from avatar3d.avatar.torso import predict_torso
from avatar3d.geometry import Camera, yaw_pitch_roll
from avatar3d.head.arkit import ARKIT_52
from avatar3d.kernels import encode_pixels, torch_on_one_thread
from avatar3d.motion.motion import Motion
from avatar3d.motion.sliders import expression_vector

if TYPE_CHECKING:
    from avatar3d.motion.audio_driver import AudioDriver

__all__ = ["PosedAvatar"]

_FRAMES_TOGETHER = 16  # whose vertices are made in one matrix product, and drawn at once


@dataclass
class PosedAvatar(ABC):
    """An avatar but for how it is drawn; see `Avatar` for the attributes.

    `state` has at least the arrays of `HeadArrays`. `driver` turns speech into this person's mouth
    motion; None when the clip had no speech. `device` is where pictures are drawn; see `to`.
    """

    state: HeadArrays
    background: np.ndarray | None
    idle_motion: Motion
    driver: "AudioDriver | None"
    info: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    def to(self, device: str) -> Self:
        """The same avatar, drawn on another device. Pictures come back as arrays all the same."""
        return replace(self, device=device)

    @property
    def camera(self) -> Camera:
        width, height = (int(side) for side in self.state.size)
        return Camera(np.asarray(self.state.K_matrix, np.float64), width, height)

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
        """One picture, uint8 (H, W, 3), or (H, W, 4) with straight alpha when `transparent`.

        Args:
            expression: ARKit weights in [0, 1] by name, or all 52 in order; default neutral. A name
                without Left or Right means both sides.
            yaw, pitch, roll: head rotation in radians from the rest pose; see `yaw_pitch_roll`.
            gaze: (yaw to the person's left, pitch up) of both eyes in radians.
            camera: default the camera of the clip.

        Raises:
            UserError: an unknown expression name or a wrong number of weights.
        """
        face = self.face(expression, yaw, pitch, roll, gaze)
        image, alpha = self.picture(face, camera or self.camera, self._plate(None, camera))
        if not transparent:
            return encode_pixels(image).cpu().numpy()
        nothing = torch.zeros(3, device=self.device)
        black, alpha = self.picture(face, camera or self.camera, nothing)
        straight = black / alpha.clamp_min(1e-6)[..., None]
        return encode_pixels(torch.cat([straight, alpha[..., None]], -1)).cpu().numpy()

    def render_motion(
        self, motion: Motion, camera: Camera | None = None, background: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """A picture (H, W, 3) uint8 per frame.

        Args:
            motion: tracks that are None stay at rest; a missing torso track is predicted.
            camera: default the camera of the clip.
            background: (H, W, 3) uint8 instead of the clip's own plate.
        """
        plate = self._plate(background, camera)
        with torch_on_one_thread():
            faces = self.faces(motion)
            while some := list(islice(faces, _FRAMES_TOGETHER)):
                yield from self._draw(some, camera or self.camera, plate)

    def confidence(self, motion: Motion) -> np.ndarray:
        """(T,) how much of each frame's expression was filmed; see `avatar3d.avatar.confidence`."""
        return confidence(self.state, motion)

    def save(self, path: str | Path) -> None:
        """Write the avatar to `NAME.a3d`; see `avatar3d.avatar.file`."""
        from avatar3d.avatar.file import save

        save(self, path)

    @abstractmethod
    def figures(self) -> dict[str, str]:
        """What it is made of, for people to read."""

    def face(
        self,
        expression: Mapping[str, float] | np.ndarray | None = None,
        yaw: float = 0.0,
        pitch: float = 0.0,
        roll: float = 0.0,
        gaze: tuple[float, float] | None = None,
    ) -> FaceParameters:
        """What the face does in one picture; arguments as in `render`."""
        pose = np.eye(4, dtype=np.float32)
        angles = (torch.tensor(float(angle)) for angle in (yaw, pitch, roll))
        pose[:3, :3] = yaw_pitch_roll(*angles).numpy()
        motion = Motion(
            fps=25,
            expression=expression_vector(expression)[None],
            head_pose=pose[None],
            gaze=np.tile(np.asarray(gaze or (0.0, 0.0), np.float32), (1, 2, 1)),
        )
        (face,) = self.faces(motion)
        return face

    def faces(self, motion: Motion) -> Iterator[FaceParameters]:
        """What the face does in every frame of a motion."""
        count, rows = len(motion), len(self.state.expression)
        weights = np.zeros((count, rows), np.float32)
        if motion.expression is not None:
            weights[:, : len(ARKIT_52)] = motion.expression
        if motion.residual is not None and motion.residual.shape[1] == rows - len(ARKIT_52):
            weights[:, len(ARKIT_52) :] = motion.residual
        head = motion.head_pose
        if head is None:
            head = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
        torso = motion.torso_pose
        if torso is None:
            torso = predict_torso(head, self.state.torso_map, self.state.torso_limit, motion.fps)
        gaze = motion.gaze if motion.gaze is not None else np.zeros((count, 2, 2), np.float32)
        T_camera_rest = np.asarray(self.state.T_camera_rest)
        tracks = [
            torch.tensor(np.asarray(track), dtype=torch.float32, device=self.device)
            for track in (weights, gaze, T_camera_rest @ head, T_camera_rest @ torso)
        ]
        for first in range(0, count, _FRAMES_TOGETHER):
            some = [track[first : first + _FRAMES_TOGETHER] for track in tracks]
            for face in zip(*some, self._rig.head_vertices(some[0], some[1]), strict=True):
                yield FaceParameters(*face)

    @cached_property
    def _rig(self) -> HeadRig:
        return HeadRig(self.state, self.device)

    @abstractmethod
    def _draw(self, faces: list[FaceParameters], camera: Camera, plate: Tensor) -> np.ndarray:
        """(F, H, W, 3) uint8 over a plate (H, W, 3) or a colour (3,)."""

    @abstractmethod
    def picture(
        self, face: FaceParameters, camera: Camera, background: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Picture (H, W, 3) over a background (3,) or (H, W, 3), and alpha (H, W)."""

    def _plate(self, background: np.ndarray | None, camera: Camera | None) -> Tensor:
        """The plate as (H, W, 3) floats in the size of the camera; grey where there is none."""
        camera = camera or self.camera
        plate = self.background if background is None else background
        if plate is None:
            return torch.full((3,), 0.5, device=self.device)
        planar = torch.from_numpy(np.ascontiguousarray(plate)).permute(2, 0, 1).float() / 255
        if planar.shape[1:] != (camera.height, camera.width):
            size = (camera.height, camera.width)
            planar = torch.nn.functional.interpolate(
                planar[None], size=size, mode="bilinear", antialias=True
            )[0]
        return planar.permute(1, 2, 0).contiguous().to(self.device)
