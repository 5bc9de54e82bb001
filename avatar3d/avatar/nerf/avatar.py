"""The NeRF avatar: a radiance field around a posed head, over a background plate."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar.nerf.audio import heard, spoken_weights
from avatar3d.avatar.nerf.field import Field
from avatar3d.avatar.nerf.layers import LAYERS, Layers, layer_picture, surface_normals
from avatar3d.avatar.nerf.state import NerfState
from avatar3d.avatar.nerf.trace import Traced, trace
from avatar3d.avatar.nerf.warp import WarpRig
from avatar3d.avatar.posed import PosedAvatar
from avatar3d.avatar.rig import FaceParameters
from avatar3d.errors import UserError
from avatar3d.geometry import Camera
from avatar3d.kernels import Occupancy, WarpGrid, encode_pixels, torch_on_one_thread
from avatar3d.motion.motion import Motion

__all__ = ["NerfAvatar", "occupancy_of"]

_FINER = 4
"""Pictures of layers take steps so much shorter: those of colour are terraces of the depth."""
_MOST_STEPS = 3500  # of a ray, so that a fine field is not refused


@dataclass
class NerfAvatar(PosedAvatar):
    """A trained radiance field; see `PosedAvatar`, and `NerfState` for `state`."""

    state: NerfState

    def figures(self) -> dict[str, str]:
        grid, cells = self.state.grid, self._occupancy.occupied_fraction
        return {
            "hash grid": f"{grid.levels} levels, {grid.resolutions[0]} to {grid.resolutions[-1]} "
            f"nodes a side, {self.state.table.size} numbers",
            "occupied": f"{cells:.1%} of {self.state.occupancy_resolution} cells cubed",
            "driven by sound": "yes" if self.state.hears else "no",
        }

    def layers(
        self,
        face: FaceParameters | None = None,
        camera: Camera | None = None,
        known: Tensor | None = None,
        finer: int = 1,
    ) -> Layers:
        """Colour, alpha, depth, normals and gates of a face, default the neutral one at rest.

        Args:
            known: (Z,) what the field knows of a sound that drives its mouth.
            finer: how many steps to take for each of `render`, whose picture 1 describes.
        """
        camera = camera or self.camera
        coarse, box = float(self.state.ray_step), np.asarray(self.state.box, float)
        step = max(coarse / finer, float(np.linalg.norm(box[1] - box[0])) / _MOST_STEPS)
        seen = self._trace(face or self.face(), camera, known, min(coarse, step))
        far = torch.where(seen.alpha > 0.5, seen.depth / seen.alpha.clamp_min(1e-6), torch.inf)
        return Layers(seen.color, seen.alpha, far, surface_normals(far, camera), seen.gates)

    def render_layer(
        self, name: str, motion: Motion, features: dict[str, np.ndarray] | None = None
    ) -> Iterator[np.ndarray]:
        """Pictures (H, W, 3) uint8 of a layer for people to look at; see `layer_picture`.

        Args:
            name: of `LAYERS`; motion, features: as in `render_heard`, without sound None.

        Raises:
            UserError: no layer has this name, or as `render_heard`.
        """
        if name not in LAYERS:
            raise UserError(f"There is no layer {name!r} to show, only {', '.join(LAYERS)}.")
        usual = float(np.linalg.norm(np.asarray(self.state.T_camera_rest)[:3, 3]))
        for face, known in self._driven(motion, features):
            picture = layer_picture(self.layers(face, known=known, finer=_FINER), name, usual)
            yield encode_pixels(picture).cpu().numpy()

    def render_heard(
        self,
        features: dict[str, np.ndarray],
        motion: Motion,
        camera: Camera | None = None,
        background: np.ndarray | None = None,
    ) -> Iterator[np.ndarray]:
        """Pictures (H, W, 3) uint8 whose mouth is driven by sound alone, without coefficients.

        Args:
            features: of the sound, one row per frame (`avatar3d.audio.features`).
            motion: as long; everything but its mouth.

        Raises:
            UserError: the field has heard no speech in training, or hears other features.
        """
        plate, camera = self._plate(background, camera), camera or self.camera
        for face, known in self._driven(motion, features):
            yield encode_pixels(self._trace(face, camera, known).over(plate)).cpu().numpy()

    def _driven(
        self, motion: Motion, features: dict[str, np.ndarray] | None
    ) -> Iterator[tuple[FaceParameters, Tensor | None]]:
        """Faces of a motion, with features of a sound that drives their mouths where there is."""
        if features is None:
            yield from ((face, None) for face in self.faces(motion))
            return
        known = torch.tensor(heard(self.state, features)[: len(motion)], device=self.device)
        with torch_on_one_thread():
            for face, row in zip(self.faces(motion), known, strict=True):
                face.weights = spoken_weights(self.state, row, face.weights)
                face.vertices = None
                yield face, row

    def warp(self, face: FaceParameters) -> WarpGrid:
        """Where the canonical points are in a face's head frame."""
        return self._rig.grids([face])

    @cached_property
    def _rig(self) -> WarpRig:
        return WarpRig(self.state, self.device)

    @cached_property
    def _field(self) -> Field:
        return Field(self.state, self.device).requires_grad_(False)

    @cached_property
    def _occupancy(self) -> Occupancy:
        return occupancy_of(self.state, self.device)

    def _draw(self, faces: list[FaceParameters], camera: Camera, plate: Tensor) -> np.ndarray:
        pictures = [encode_pixels(self.picture(face, camera, plate)[0]) for face in faces]
        return torch.stack(pictures).cpu().numpy()

    def picture(
        self, face: FaceParameters, camera: Camera, background: Tensor
    ) -> tuple[Tensor, Tensor]:
        seen = self._trace(face, camera)
        return seen.over(background), seen.alpha

    def _trace(
        self,
        face: FaceParameters,
        camera: Camera,
        known: Tensor | None = None,
        step: float | None = None,
    ) -> Traced:
        step = float(self.state.ray_step) if step is None else step
        return trace(self._field, self._rig, self._occupancy, step, face, camera, known)


def occupancy_of(state: NerfState, device: str | torch.device = "cpu") -> Occupancy:
    """The occupancy of a state; its values are not kept, only whether a cell is occupied."""
    bits = torch.tensor(state.occupancy, device=device)
    cells = state.occupancy_resolution
    box = torch.tensor(state.box, dtype=torch.float32, device=device)
    return Occupancy(box, cells, box.new_zeros(cells**3), bits)
