"""From a face's parameters to Gaussians in the camera frame, in torch, differentiable."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

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


@dataclass
class FaceParameters:
    """What the face does in one frame.

    Attributes:
        weights: (E,) expression weights, residual rows included.
        gaze: (2, 2) radians, eye x (yaw, pitch).
        T_camera_head, T_camera_torso: (4, 4).
        vertices: (V, 3) `SplatRig.head_vertices` of weights and gaze where they are known already.
    """

    weights: Tensor
    gaze: Tensor
    T_camera_head: Tensor
    T_camera_torso: Tensor
    vertices: Tensor | None = None


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


class SplatRig:
    """The fixed part of a `SplatState`: head geometry and bindings as tensors."""

    def __init__(self, state: SplatState, device: str | torch.device = "cpu") -> None:
        # Copies, because torch aligns its own memory and a matrix product may round differently
        # on memory that is aligned otherwise; training must resume bit by bit.
        def tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(array, dtype=dtype, device=device)

        bound = int((state.face >= 0).sum())
        if bound and (state.face[:bound] < 0).any():
            raise ValueError("bound Gaussians must come before the torso's")
        self.vertices = tensor(state.vertices)
        self.expression = tensor(state.expression).flatten(1)
        self.eyes = [tensor((state.eye == side).nonzero()[0], torch.long) for side in (1, 2)]
        self.eye_centers = tensor(state.eye_centers)
        corners = state.faces[state.face[:bound]]
        torso_weight = np.ones(len(state), np.float32)
        torso_weight[:bound] = (state.torso_weight[corners] * state.bary[:bound]).sum(-1)
        self.binding = Binding(
            tensor(corners, torch.int32), tensor(state.bary[:bound]), tensor(torso_weight)
        )
        self.mean = tensor(state.mean)
        self.signal_min, self.signal_max = tensor(state.signal_min), tensor(state.signal_max)
        self.limit = float(state.limit)

    def head_vertices(self, weights: Tensor, gaze: Tensor) -> Tensor:
        """Vertices (..., V, 3) in the head frame for weights (..., E) and gaze (..., 2, 2)."""
        moved = (weights @ self.expression).unflatten(-1, (-1, 3))
        vertices = self.vertices + moved
        for side, indices in enumerate(self.eyes):
            if len(indices):
                center = self.eye_centers[side]
                rest = vertices.index_select(-2, indices) - center
                turned = rest @ _eye_rotation(gaze[..., side, :]).mT + center
                vertices = vertices.index_copy(-2, indices, turned)
        return vertices

    def basis_weights(self, parameters: SplatParameters, face: FaceParameters) -> Tensor:
        """Blendshape weights (K,) within +-limit."""
        signal = torch.cat([face.weights, face.gaze.flatten()])
        signal = torch.clamp(signal, self.signal_min, self.signal_max)
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


def _eye_rotation(gaze: Tensor) -> Tensor:
    """Rotations (..., 3, 3) for gaze (..., 2) of yaw, pitch; twin of `head.model.eye_rotation`."""
    (cy, cp), (sy, sp) = torch.cos(gaze).unbind(-1), torch.sin(gaze).unbind(-1)
    sp = -sp
    zero = torch.zeros_like(cy)
    rows = [cy, sy * sp, sy * cp, zero, cp, -sp, -sy, cy * sp, cy * cp]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
