"""The avatar as plain Gaussians, for files and viewers that know no animation."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig, pose_gaussians
from avatar3d.avatar.state import SplatState
from avatar3d.io.ply import GaussianCloud
from avatar3d.kernels import BoundGaussians
from avatar3d.motion.motion import Motion

if TYPE_CHECKING:
    from avatar3d.avatar.splat import SplatAvatar

__all__ = ["canonical_cloud", "posed_clouds"]


@torch.no_grad()
def canonical_cloud(state: SplatState) -> GaussianCloud:
    """Neutral face, rest pose, in the head frame (metres, y up, face towards +z)."""
    face = FaceParameters(
        weights=torch.zeros(len(state.expression)),
        gaze=torch.zeros(2, 2),
        T_camera_head=torch.eye(4),
        T_camera_torso=torch.eye(4),
    )
    return _cloud(pose_gaussians(SplatRig(state), SplatParameters(state), face), state)


@torch.no_grad()
def posed_clouds(avatar: "SplatAvatar", motion: Motion) -> Iterator[GaussianCloud]:
    """The avatar in every frame of a motion, in the head frame at rest; blendshapes included."""
    state = avatar.state
    rig, parameters = SplatRig(state), SplatParameters(state)
    T_rest_camera = torch.from_numpy(np.linalg.inv(state.T_camera_rest.astype(np.float64))).float()
    for face in avatar.faces(motion):
        here = replace(
            face,
            T_camera_head=T_rest_camera @ face.T_camera_head.cpu(),
            T_camera_torso=T_rest_camera @ face.T_camera_torso.cpu(),
        )
        yield _cloud(pose_gaussians(rig, parameters, here), state)


def _cloud(splats: BoundGaussians, state: SplatState) -> GaussianCloud:
    return GaussianCloud(
        means=splats.means.numpy(),
        quats=torch.nn.functional.normalize(splats.quats, dim=-1).numpy(),
        log_scales=splats.scales.log().numpy(),
        opacity=np.asarray(state.opacity, np.float32),
        colors=splats.colors.numpy(),
    )
