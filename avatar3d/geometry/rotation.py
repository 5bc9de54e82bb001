"""Rotations in torch, batched and differentiable. Quaternions are (w, x, y, z)."""

import torch
from torch import Tensor

__all__ = [
    "matrix_to_quaternion",
    "quaternion_multiply",
    "quaternion_to_matrix",
    "rigid_inverse",
    "rotation_from_vector",
    "rotation_to_vector",
    "yaw_pitch_roll",
]


def rotation_from_vector(vector: Tensor) -> Tensor:
    """Rodrigues: rotation vectors (..., 3) in radians to matrices (..., 3, 3).

    Smooth through zero, so that optimisers may start there.
    """
    squared = (vector * vector).sum(-1)[..., None, None]
    small = squared < 1e-6
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    a = torch.where(small, 1 - squared / 6, torch.sin(angle) / angle)
    b = torch.where(small, 0.5 - squared / 24, (1 - torch.cos(angle)) / safe)
    x, y, z = vector.unbind(-1)
    o = torch.zeros_like(x)
    cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return eye + a * cross + b * (cross @ cross)


def rotation_to_vector(matrix: Tensor) -> Tensor:
    """Inverse of `rotation_from_vector` for angles below pi; (..., 3, 3) to (..., 3)."""
    quaternion = matrix_to_quaternion(matrix)
    w, xyz = quaternion[..., :1], quaternion[..., 1:]
    norm = xyz.norm(dim=-1, keepdim=True)
    factor = torch.where(
        norm < 1e-7, 2 / w.clamp_min(1e-12), 2 * torch.atan2(norm, w) / norm.clamp_min(1e-12)
    )
    return xyz * factor


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Quaternions (..., 4), normalised here, to matrices (..., 3, 3)."""
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) to unit quaternions (..., 4) with w >= 0.

    Builds the four candidates of Shepperd's method and keeps the best conditioned one, so that it
    stays accurate near half turns.
    """
    m00, m11, m22 = matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 2, 2]
    m01, m02, m10 = matrix[..., 0, 1], matrix[..., 0, 2], matrix[..., 1, 0]
    m12, m20, m21 = matrix[..., 1, 2], matrix[..., 2, 0], matrix[..., 2, 1]
    candidates = torch.stack(
        [
            torch.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], -1),
            torch.stack([m21 - m12, 1 + m00 - m11 - m22, m01 + m10, m02 + m20], -1),
            torch.stack([m02 - m20, m01 + m10, 1 - m00 + m11 - m22, m12 + m21], -1),
            torch.stack([m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22], -1),
        ],
        -2,
    )
    best = torch.diagonal(candidates, dim1=-2, dim2=-1).argmax(-1)
    index = best[..., None, None].expand(*best.shape, 1, 4)
    chosen = torch.nn.functional.normalize(candidates.gather(-2, index).squeeze(-2), dim=-1)
    return torch.where(chosen[..., :1] < 0, -chosen, chosen)


def quaternion_multiply(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton product of (..., 4) with (..., 4), broadcasting."""
    aw, ax, ay, az = left.unbind(-1)
    bw, bx, by, bz = right.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def rigid_inverse(transform: Tensor) -> Tensor:
    """Inverse of rigid transforms (..., 4, 4)."""
    rotation = transform[..., :3, :3].transpose(-1, -2)
    translation = -(rotation @ transform[..., :3, 3:])
    inverse = torch.zeros_like(transform)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3:] = translation
    inverse[..., 3, 3] = 1
    return inverse


def yaw_pitch_roll(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Head rotation (..., 3, 3) in the head frame from angles in radians.

    Positive yaw turns the face to the person's left (towards +x), positive pitch raises the face,
    positive roll tilts the crown towards the person's left: Ry(yaw) Rx(-pitch) Rz(-roll).
    """
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)

    def stack(rows: list[Tensor]) -> Tensor:
        return torch.stack(rows, -1).unflatten(-1, (3, 3))

    cy, sy = torch.cos(yaw), torch.sin(yaw)
    cp, sp = torch.cos(-pitch), torch.sin(-pitch)
    cr, sr = torch.cos(-roll), torch.sin(-roll)
    around_y = stack([cy, zero, sy, zero, one, zero, -sy, zero, cy])
    around_x = stack([one, zero, zero, zero, cp, -sp, zero, sp, cp])
    around_z = stack([cr, -sr, zero, sr, cr, zero, zero, zero, one])
    return around_y @ around_x @ around_z
