"""Rays of a camera in the head frame."""

import numpy as np
import torch
from torch import Tensor

from avatar3d.geometry import Camera

__all__ = ["camera_rays"]


def camera_rays(camera: Camera, T_camera_head: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Origins and unit directions (n, 3) through the centres of pixels, head frame, metres.

    Differentiable in the pose.

    Args:
        pixels: (n,) numbers of pixels, row by row.
    """
    device = T_camera_head.device
    inverse = torch.tensor(np.linalg.inv(camera.K), dtype=torch.float32, device=device)
    columns, rows = pixels % camera.width, pixels // camera.width
    image = torch.stack([columns + 0.5, rows + 0.5, torch.ones_like(columns) + 0.0], 1)
    ahead = torch.nn.functional.normalize(image.float() @ inverse.T, dim=1)
    rotation, translation = T_camera_head[:3, :3], T_camera_head[:3, 3]
    origin = -(rotation.T @ translation)
    return origin.expand(len(pixels), 3).contiguous(), ahead @ rotation
