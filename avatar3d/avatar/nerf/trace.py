"""Pictures of a field."""

from typing import NamedTuple

import torch
from torch import Tensor

from avatar3d.avatar.nerf.field import Field
from avatar3d.avatar.nerf.rays import picture_rays
from avatar3d.avatar.nerf.warp import WarpRig
from avatar3d.avatar.rig import FaceParameters
from avatar3d.geometry import Camera
from avatar3d.kernels import Occupancy, posed_mask, render_rays

__all__ = ["Traced", "trace"]

_OPAQUE = 1e-3
"""Light that may be missing of a pixel: a quarter of a step of its eight bits."""


class Traced(NamedTuple):
    """All pixels of a picture.

    Attributes:
        color: (H, W, 3) over black; alpha: (H, W); depth: (H, W) metres along the ray times alpha;
        gates: (H, W, G) times alpha.
    """

    color: Tensor
    alpha: Tensor
    depth: Tensor
    gates: Tensor

    def over(self, background: Tensor) -> Tensor:
        """(H, W, 3) over a background (3,) or (H, W, 3)."""
        return self.color + (1 - self.alpha)[..., None] * background


@torch.no_grad()
def trace(
    field: Field,
    rig: WarpRig,
    occupancy: Occupancy,
    step: float,
    face: FaceParameters,
    camera: Camera,
    known: Tensor | None = None,
) -> Traced:
    """A face as a camera sees it.

    Args:
        field, rig, occupancy, step: of a `NerfState`.
        face: what it does; its warp follows its expression even where sound drives the mouth.
        camera: in whose frame the face is.
        known: (Z,) of the sound, which then drives the mouth's code.
    """
    device = face.weights.device
    warp = rig.grids([face])
    codes = field.codes(rig.signal(face.weights, face.gaze)[None])
    if known is not None:
        codes = torch.cat([field.heard_code(known[None])[:, None], codes[:, 1:]], 1)
    vectors = field.vectors(codes)
    mask = posed_mask(occupancy, warp)
    rays = picture_rays(camera, face.T_camera_head)
    frames = torch.zeros(camera.width * camera.height, dtype=torch.int32, device=device)
    weights = field.weights()
    whole = render_rays(
        *rays, frames, warp, occupancy, step, weights, vectors, opaque=_OPAQUE, mask=mask
    )
    shape = (camera.height, camera.width)
    return Traced(*(part.reshape(*shape, *part.shape[1:]) for part in whole))
