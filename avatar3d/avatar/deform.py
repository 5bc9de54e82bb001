"""From a face's parameters to Gaussians in the camera frame, in torch, differentiable."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from avatar3d.avatar.rig import FaceParameters, HeadRig
from avatar3d.avatar.state import SplatState
from avatar3d.geometry import Camera
from avatar3d.kernels import (
    Attributes,
    Binding,
    BoundGaussians,
    FaceLoss,
    OuterGradient,
    Poses,
    Wanted,
    bind_gaussians,
    face_loss,
    rasterize,
)

__all__ = [
    "BASIS_UNITS",
    "FaceParameters",
    "SplatParameters",
    "SplatRig",
    "compare_face",
    "draw_face",
    "pose_gaussians",
]

BASIS_UNITS = (0.0133, 0.0133, 0.0133, 1.0, 1.0, 1.0, 1.0, 0.667, 0.667, 0.667)
"""Unit of each basis row (position 3, quat 4, color 3) while it is learned.

Adam moves every entry at the same rate, but a sensible step is 0.04 mm for a position and 0.002 for
a colour; in these units one learning rate suits all ten rows.
"""


class SplatParameters(nn.Module):
    """The learned part of a `SplatState`; names and shapes are those of the state.

    `eyes` are the Gaussians of the eyeballs that have a basis: they turn, but must not be moved by
    an expression, or they come through the lids of the next blink.

    `basis` is held divided by `BASIS_UNITS`. An optimiser that takes its gradient in factors sets
    `basis_gradient` and lets `basis` itself not require one.
    """

    position: Tensor
    quat: Tensor
    log_scale: Tensor
    opacity: Tensor
    color: Tensor
    basis: Tensor
    map: Tensor
    bias: Tensor
    units: Tensor
    eyes: Tensor

    NAMES = ("position", "quat", "log_scale", "opacity", "color", "basis", "map", "bias")

    def __init__(self, state: SplatState, device: str | torch.device = "cpu") -> None:
        super().__init__()
        self.basis_gradient: OuterGradient | None = None
        self.register_buffer("units", torch.tensor(BASIS_UNITS, device=device))
        eyes = state.part[: len(state.basis)] == SplatState.PARTS.index("eyes")
        self.register_buffer("eyes", torch.tensor(eyes.nonzero()[0], device=device))
        for name in self.NAMES:
            value = torch.tensor(getattr(state, name), dtype=torch.float32, device=device)
            self.register_parameter(
                name, nn.Parameter(value / self.units[:, None] if name == "basis" else value)
            )

    def attributes(self) -> Attributes:
        """The parameters as the binding kernel takes them."""
        return Attributes(
            self.position,
            self.quat,
            self.log_scale,
            self.opacity,
            self.color,
            self.basis,
            self.units,
            self.basis_gradient,
        )

    def write_to(self, state: SplatState) -> None:
        """Copy the parameters back into `state`."""
        for name in self.NAMES:
            value = getattr(self, name).detach()
            value = value * self.units[:, None] if name == "basis" else value.clone()
            setattr(state, name, value.cpu().numpy())


class SplatRig(HeadRig):
    """The fixed part of a `SplatState`: head geometry and bindings as tensors."""

    def __init__(self, state: SplatState, device: str | torch.device = "cpu") -> None:
        super().__init__(state, device)

        def tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(array, dtype=dtype, device=device)  # a copy, as in `HeadRig`

        bound = int((state.face >= 0).sum())
        if bound and (state.face[:bound] < 0).any():
            raise ValueError("bound Gaussians must come before the torso's")
        corners = state.faces[state.face[:bound]]
        torso_weight = np.ones(len(state), np.float32)
        torso_weight[:bound] = (state.torso_weight[corners] * state.bary[:bound]).sum(-1)
        self.binding = Binding(
            tensor(corners, torch.int32), tensor(state.bary[:bound]), tensor(torso_weight)
        )
        self.limit = float(state.limit)

    def basis_weights(self, parameters: SplatParameters, face: FaceParameters) -> Tensor:
        """Blendshape weights (K,) within +-limit."""
        signal = self.signal(face.weights, face.gaze)
        raw = parameters.map @ (signal - self.mean) + parameters.bias
        return self.limit * torch.tanh(raw / self.limit)

    def poses(
        self, parameters: SplatParameters, faces: Sequence[FaceParameters], use_basis: bool = True
    ) -> Poses:
        """Several faces as the kernels take them together."""
        blended = use_basis and parameters.basis.shape[-1] > 0
        vertices = [
            self.head_vertices(face.weights, face.gaze) if face.vertices is None else face.vertices
            for face in faces
        ]
        weights = [self.basis_weights(parameters, face) for face in faces] if blended else []
        return Poses(
            torch.stack(vertices),
            torch.stack([face.T_camera_head for face in faces]),
            torch.stack([face.T_camera_torso for face in faces]),
            torch.stack(weights) if blended else None,
        )


def pose_gaussians(
    rig: SplatRig, parameters: SplatParameters, face: FaceParameters, use_basis: bool = True
) -> BoundGaussians:
    """Gaussians in the camera frame, activated, as `kernels.rasterize` takes them.

    Gradients reach the learned parameters, the expression and gaze (through the anchor points)
    and both transforms (through the means); the triangles' orientations count as constants.
    """
    return bind_gaussians(
        rig.binding, parameters.attributes(), *_pose(rig, parameters, face, use_basis)
    )


def compare_face(
    rig: SplatRig,
    parameters: SplatParameters,
    face: FaceParameters,
    camera: Camera,
    wanted: Wanted,
    use_basis: bool = True,
) -> FaceLoss:
    """What a face loses against a picture; gradients reach the learned parameters only."""
    pose = _pose(rig, parameters, face, use_basis)
    K = torch.as_tensor(camera.K, dtype=torch.float32, device=wanted.image.device)
    return face_loss(rig.binding, parameters.attributes(), pose, K, wanted)


def _pose(
    rig: SplatRig, parameters: SplatParameters, face: FaceParameters, use_basis: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Vertices, both transforms and weights, as the kernels take them."""
    vertices = face.vertices
    if vertices is None:
        vertices = rig.head_vertices(face.weights, face.gaze)
    blended = use_basis and parameters.basis.shape[-1] > 0
    weights = rig.basis_weights(parameters, face) if blended else None
    return vertices, face.T_camera_head, face.T_camera_torso, weights


def draw_face(
    rig: SplatRig,
    parameters: SplatParameters,
    face: FaceParameters,
    camera: Camera,
    background: Tensor,
    use_basis: bool = True,
) -> tuple[Tensor, Tensor]:
    """Picture (H, W, 3) and alpha (H, W) of a face, differentiable as `pose_gaussians` is.

    Args:
        background: (3,) or (H, W, 3), sRGB in [0, 1].
    """
    splats = pose_gaussians(rig, parameters, face, use_basis)
    device = splats.means.device
    K = torch.as_tensor(camera.K, dtype=torch.float32, device=device)
    size = (camera.width, camera.height)
    return rasterize(*splats, torch.eye(4, device=device), K, *size, background=background)
