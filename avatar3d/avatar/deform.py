"""From a face's parameters to Gaussians in the camera frame, in torch, differentiable."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from avatar3d.avatar.state import SplatState
from avatar3d.geometry import matrix_to_quaternion, quaternion_multiply

__all__ = [
    "BASIS_UNITS",
    "FaceParameters",
    "Gaussians",
    "SplatParameters",
    "SplatRig",
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
    """

    weights: Tensor
    gaze: Tensor
    T_camera_head: Tensor
    T_camera_torso: Tensor


@dataclass
class Gaussians:
    """N activated Gaussians in the camera frame: what `kernels.rasterize` takes."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor


class SplatParameters(nn.Module):
    """The learned part of a `SplatState`; names and shapes are those of the state.

    `basis` is held divided by `BASIS_UNITS`.
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

    NAMES = ("position", "quat", "log_scale", "opacity", "color", "basis", "map", "bias")

    def __init__(self, state: SplatState, device: str | torch.device = "cpu") -> None:
        super().__init__()
        units = torch.tensor(BASIS_UNITS, device=device)[:, None]
        self.register_buffer("units", units)
        for name in self.NAMES:
            value = torch.tensor(getattr(state, name), dtype=torch.float32, device=device)
            self.register_parameter(name, nn.Parameter(value / units if name == "basis" else value))

    def write_to(self, state: SplatState) -> None:
        """Copy the parameters back into `state`."""
        for name in self.NAMES:
            value = getattr(self, name).detach()
            value = value * self.units if name == "basis" else value.clone()
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
        self.bound = bound
        self.vertices = tensor(state.vertices)
        self.expression = tensor(state.expression).flatten(1)
        self.corners = tensor(state.faces, torch.long)[tensor(state.face[:bound], torch.long)]
        self.bary = tensor(state.bary[:bound])
        self.eyes = [tensor((state.eye == side).nonzero()[0], torch.long) for side in (1, 2)]
        self.eye_centers = tensor(state.eye_centers)
        torso_weight = torch.ones(len(state), device=device)
        torso_weight[:bound] = (tensor(state.torso_weight)[self.corners] * self.bary).sum(-1)
        self.torso_weight = torso_weight[:, None]
        self.follows_torso = self.torso_weight >= 0.5
        self.mean = tensor(state.mean)
        self.signal_min, self.signal_max = tensor(state.signal_min), tensor(state.signal_max)
        self.limit = float(state.limit)

    def head_vertices(self, weights: Tensor, gaze: Tensor) -> Tensor:
        """Vertices (V, 3) in the head frame for weights (E,) and gaze (2, 2)."""
        vertices = self.vertices + (weights @ self.expression).view(-1, 3)
        for side, indices in enumerate(self.eyes):
            if len(indices):
                center = self.eye_centers[side]
                turned = (vertices[indices] - center) @ _eye_rotation(gaze[side]).T + center
                vertices = vertices.index_copy(0, indices, turned)
        return vertices

    def basis_weights(self, parameters: SplatParameters, face: FaceParameters) -> Tensor:
        """Blendshape weights (K,) within +-limit."""
        signal = torch.cat([face.weights, face.gaze.flatten()])
        signal = torch.clamp(signal, self.signal_min, self.signal_max)
        raw = parameters.map @ (signal - self.mean) + parameters.bias
        return self.limit * torch.tanh(raw / self.limit)


def pose_gaussians(
    rig: SplatRig, parameters: SplatParameters, face: FaceParameters, use_basis: bool = True
) -> Gaussians:
    """Gaussians in the camera frame.

    Gradients reach the learned parameters, the expression (through the anchor points), the gaze
    and both transforms (through the means). The triangles' orientations are taken as constants:
    their derivative is second to that of the positions and would double the cost.
    """
    vertices = rig.head_vertices(face.weights, face.gaze)
    corners = vertices[rig.corners]
    anchor = (corners * rig.bary[:, :, None]).sum(1)
    with torch.no_grad():
        frames = triangle_frames(corners)
        frame_quats = matrix_to_quaternion(frames)

    position, quat, color = parameters.position, parameters.quat, parameters.color
    if use_basis and parameters.basis.shape[-1]:
        with_basis = len(parameters.basis)
        delta = parameters.basis @ rig.basis_weights(parameters, face)
        delta = delta * parameters.units.T
        position = _add_to_first(position, delta[:, :3], with_basis)
        quat = _add_to_first(quat, delta[:, 3:7], with_basis)
        color = _add_to_first(color, delta[:, 7:], with_basis)

    n = rig.bound
    moved = anchor + (frames @ position[:n, :, None]).squeeze(-1)
    points = torch.cat([moved, position[n:]])
    by_head = points @ face.T_camera_head[:3, :3].T + face.T_camera_head[:3, 3]
    by_torso = points @ face.T_camera_torso[:3, :3].T + face.T_camera_torso[:3, 3]
    means = torch.lerp(by_head, by_torso, rig.torso_weight)

    local = torch.cat([quaternion_multiply(frame_quats, quat[:n]), quat[n:]])
    with torch.no_grad():
        head_quat = matrix_to_quaternion(face.T_camera_head[:3, :3])
        torso_quat = matrix_to_quaternion(face.T_camera_torso[:3, :3])
        carrier = torch.where(rig.follows_torso, torso_quat, head_quat)
    return Gaussians(
        means=means,
        quats=quaternion_multiply(carrier, local),
        scales=parameters.log_scale.exp(),
        opacities=parameters.opacity.sigmoid(),
        colors=color,
    )


def triangle_frames(corners: Tensor) -> Tensor:
    """Rotation (N, 3, 3) of each triangle (N, 3 corners, 3): columns first edge, n x u, normal."""
    u = nn.functional.normalize(corners[:, 1] - corners[:, 0], dim=-1, eps=1e-12)
    n = torch.linalg.cross(u, corners[:, 2] - corners[:, 0])
    n = nn.functional.normalize(n, dim=-1, eps=1e-12)
    return torch.stack([u, torch.linalg.cross(n, u), n], -1)


def _add_to_first(values: Tensor, delta: Tensor, count: int) -> Tensor:
    if count == len(values):
        return values + delta
    return torch.cat([values[:count] + delta, values[count:]])


def _eye_rotation(gaze: Tensor) -> Tensor:
    """Rotation (3, 3) for gaze (yaw, pitch); the torch twin of `head.model.eye_rotation`."""
    cy, sy = torch.cos(gaze[0]), torch.sin(gaze[0])
    cp, sp = torch.cos(gaze[1]), -torch.sin(gaze[1])
    zero = torch.zeros_like(cy)
    rows = [cy, sy * sp, sy * cp, zero, cp, -sp, -sy, cy * sp, cy * cp]
    return torch.stack(rows).view(3, 3)
