"""The splat avatar: posed Gaussians over a background plate."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar.deform import SplatParameters, SplatRig, draw_face
from avatar3d.avatar.posed import PosedAvatar
from avatar3d.avatar.rig import FaceParameters
from avatar3d.avatar.state import SplatState
from avatar3d.geometry import Camera
from avatar3d.kernels import draw_faces

if TYPE_CHECKING:
    from avatar3d.avatar.gamut import Gamut

__all__ = ["SplatAvatar"]


@dataclass
class SplatAvatar(PosedAvatar):
    """A trained head of Gaussians; see `PosedAvatar`, and `SplatState` for `state`.

    `gamut` bounds the colours that further training may give the Gaussians; None does not.
    """

    state: SplatState
    gamut: "Gamut | None" = None

    def figures(self) -> dict[str, str]:
        count, size = len(self.state.basis), self.state.basis.shape[-1]
        return {"Gaussians": f"{len(self.state)}, {count} of them with {size} blendshapes"}

    @cached_property
    def _rig(self) -> SplatRig:
        return SplatRig(self.state, self.device)

    @cached_property
    def _parameters(self) -> SplatParameters:
        return SplatParameters(self.state, self.device).requires_grad_(False)

    @torch.no_grad()
    def _draw(self, faces: list[FaceParameters], camera: Camera, plate: Tensor) -> np.ndarray:
        rig, parameters = self._rig, self._parameters
        K = torch.as_tensor(camera.K, dtype=torch.float32, device=self.device)
        poses = rig.poses(parameters, faces)
        size = camera.width, camera.height
        pictures = draw_faces(rig.binding, parameters.attributes(), poses, K, *size, plate)
        return pictures.cpu().numpy()

    @torch.no_grad()
    def picture(
        self, face: FaceParameters, camera: Camera, background: Tensor
    ) -> tuple[Tensor, Tensor]:
        return draw_face(self._rig, self._parameters, face, camera, background)
