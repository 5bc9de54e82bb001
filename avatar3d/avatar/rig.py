"""The head of an avatar, and what its face does in a frame."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["FaceParameters", "HeadArrays", "HeadRig"]


class HeadArrays(Protocol):
    """What the states of all avatars have: a head that moves, and the clip it was filmed in.

    V vertices, E expression rows; metres in the head frame.

    Attributes:
        vertices (V, 3), expression (E, V, 3), eye (V,) uint8: 0 none, 1 left, 2 right;
            eye_centers (2, 3); torso_weight (V,) skinning weight.
        mean, signal_min, signal_max: (E + 4,) of expression weights and gaze in training.
        T_camera_rest (4, 4); K_matrix (3, 3) pixels; size (2,) width, height.
        torso_map (12, 6), torso_limit (6,): see `avatar3d.avatar.torso`.
    """

    vertices: np.ndarray
    expression: np.ndarray
    torso_weight: np.ndarray
    eye: np.ndarray
    eye_centers: np.ndarray
    mean: np.ndarray
    signal_min: np.ndarray
    signal_max: np.ndarray
    T_camera_rest: np.ndarray
    K_matrix: np.ndarray
    size: np.ndarray
    torso_map: np.ndarray
    torso_limit: np.ndarray


@dataclass
class FaceParameters:
    """What the face does in one frame.

    Attributes:
        weights: (E,) expression weights, residual rows included.
        gaze: (2, 2) radians, eye x (yaw, pitch).
        T_camera_head, T_camera_torso: (4, 4).
        vertices: (V, 3) `HeadRig.head_vertices` of weights and gaze where they are known already.
    """

    weights: Tensor
    gaze: Tensor
    T_camera_head: Tensor
    T_camera_torso: Tensor
    vertices: Tensor | None = None


class HeadRig:
    """The geometry of a head as tensors."""

    def __init__(self, state: HeadArrays, device: str | torch.device = "cpu") -> None:
        # Copies, because torch aligns its own memory and a matrix product may round differently
        # on memory that is aligned otherwise; training must resume bit by bit.
        def tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(array, dtype=dtype, device=device)

        self.vertices = tensor(state.vertices)
        self.expression = tensor(state.expression).flatten(1)
        self.eyes = [tensor((state.eye == side).nonzero()[0], torch.long) for side in (1, 2)]
        self.eye_centers = tensor(state.eye_centers)
        self.mean = tensor(state.mean)
        self.signal_min, self.signal_max = tensor(state.signal_min), tensor(state.signal_max)

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

    def signal(self, weights: Tensor, gaze: Tensor) -> Tensor:
        """(..., E + 4) expression weights and gaze within the range of training."""
        return torch.cat([weights, gaze.flatten(-2)], -1).clamp(self.signal_min, self.signal_max)


def _eye_rotation(gaze: Tensor) -> Tensor:
    """Rotations (..., 3, 3) for gaze (..., 2) of yaw, pitch; twin of `head.model.eye_rotation`."""
    (cy, cp), (sy, sp) = torch.cos(gaze).unbind(-1), torch.sin(gaze).unbind(-1)
    sp = -sp
    zero = torch.zeros_like(cy)
    rows = [cy, sy * sp, sy * cp, zero, cp, -sp, -sy, cy * sp, cy * cp]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
