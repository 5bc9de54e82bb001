"""From looks to what the field shows there."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar.nerf.rays import camera_rays
from avatar3d.avatar.nerf.state import NerfState
from avatar3d.avatar.nerf.warp import WarpRig
from avatar3d.avatar.rig import FaceParameters
from avatar3d.geometry import Camera, rotation_from_vector
from avatar3d.kernels import Composited, Occupancy, composite, march
from avatar3d.training.nerf.looks import Look
from avatar3d.training.nerf.parameters import TrainedField

__all__ = ["Drawn", "FieldDrawing"]

_MOST_SAMPLES = 1 << 20


class Drawn(NamedTuple):
    """The rays of some looks, one look after the other.

    Attributes:
        rays: colours over black and the rest, see `kernels.composite`.
        points: (N, 3) canonical, of the samples; gates: (N, G) there.
        disagreement: mean square between the mouth's codes from
            expression and from sound, None where there is no sound.
    """

    rays: Composited
    points: Tensor
    gates: Tensor
    disagreement: Tensor | None


class FieldDrawing:
    """Draws looks with a field that is being learned.

    Args:
        state: whose head and step; camera: of the looks.
        rig, field: of the state.
        poses: whether the heads' poses are learned too.
    """

    def __init__(
        self, state: NerfState, camera: Camera, rig: WarpRig, field: TrainedField, poses: bool
    ) -> None:
        self.camera, self.rig, self.field, self.poses = camera, rig, field, poses
        self.step = float(state.ray_step)

    def __call__(
        self,
        looks: list[Look],
        occupancy: Occupancy,
        rng: np.random.Generator,
        known: Tensor | None = None,
        spoken: list[FaceParameters] | None = None,
    ) -> Drawn:
        """Draw.

        Args:
            occupancy: where there is something.
            rng: for the places of the samples.
            known: (F, Z) of each look's sound, where there is any.
            spoken: the faces with mouths that follow the sound; the codes then do, too.
        """
        faces = [look.face for look in looks] if spoken is None else spoken
        counts = torch.tensor([len(look.pixels) for look in looks])
        device = faces[0].weights.device
        frames = torch.repeat_interleave(torch.arange(len(looks)), counts).int().to(device)
        origins, directions = zip(*(self._rays(look) for look in looks), strict=True)
        jitter = torch.tensor(rng.random(len(frames)), dtype=torch.float32, device=device)
        samples = march(
            torch.cat(origins), torch.cat(directions), frames, self.rig.grids(faces), occupancy,
            self.step, jitter, _MOST_SAMPLES,
        )  # fmt: skip
        vectors, disagreement = self._vectors(looks, known, spoken is not None)
        rows = frames[samples.rays.long()]
        found = self.field(samples.points, rows, vectors)
        rays = composite(found.density, found.color, samples)
        return Drawn(rays, samples.points.detach(), found.gates, disagreement)

    def _rays(self, look: Look) -> tuple[Tensor, Tensor]:
        pose = look.face.T_camera_head
        if self.poses and look.row is not None:
            change = self.field.poses[look.row]
            turned = rotation_from_vector(change[None, :3])[0] @ pose[:3, :3]
            place = (pose[:3, 3] + change[3:])[:, None]
            pose = torch.cat([torch.cat([turned, place], 1), pose[3:]])
        return camera_rays(self.camera, pose, look.pixels)

    def _vectors(
        self, looks: list[Look], known: Tensor | None, speaks: bool
    ) -> tuple[Tensor, Tensor | None]:
        field = self.field
        weights = torch.stack([look.face.weights for look in looks])
        gaze = torch.stack([look.face.gaze for look in looks])
        codes = field.codes(self.rig.signal(weights, gaze))
        disagreement = None
        if known is not None:
            said = field.heard_code(known)
            disagreement = (said - codes[:, 0]).square().mean()
            if speaks:
                codes = torch.cat([said[:, None], codes[:, 1:]], 1)
        rows = [look.row for look in looks if look.row is not None]
        appearance = field.appearances[rows] if rows else field.appearances.mean(0)[None]
        return field.vectors(codes, appearance), disagreement
