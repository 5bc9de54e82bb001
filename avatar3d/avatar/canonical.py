"""The avatar's neutral head as plain Gaussians, for files and viewers that know no animation."""

import numpy as np
import torch

from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig, pose_gaussians
from avatar3d.avatar.state import SplatState
from avatar3d.io.ply import GaussianCloud

__all__ = ["canonical_cloud"]


@torch.no_grad()
def canonical_cloud(state: SplatState) -> GaussianCloud:
    """Neutral face, rest pose, in the head frame (metres, y up, face towards +z)."""
    face = FaceParameters(
        weights=torch.zeros(len(state.expression)),
        gaze=torch.zeros(2, 2),
        T_camera_head=torch.eye(4),
        T_camera_torso=torch.eye(4),
    )
    splats = pose_gaussians(SplatRig(state), SplatParameters(state), face)
    quats = torch.nn.functional.normalize(splats.quats, dim=-1)
    return GaussianCloud(
        means=splats.means.numpy(),
        quats=quats.numpy(),
        log_scales=splats.scales.log().numpy(),
        opacity=np.asarray(state.opacity, np.float32),
        colors=splats.colors.numpy(),
    )
