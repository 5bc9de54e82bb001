"""Rays of a camera in the head frame."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from avatar3d.geometry import Camera

__all__ = ["camera_rays", "picture_rays"]


def camera_rays(camera: Camera, T_camera_head: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Origins and unit directions (n, 3) through the centres of pixels, head frame, metres.

    Differentiable in the pose.

    Args:
        pixels: (n,) numbers of pixels, row by row.
    """
    return _in_head(_ahead(np.asarray(camera.K, np.float64), camera.width, pixels), T_camera_head)


def picture_rays(camera: Camera, T_camera_head: Tensor) -> tuple[Tensor, Tensor]:
    """`camera_rays` of all pixels; where they look from the camera is kept from frame to frame."""
    device = T_camera_head.device
    ahead = _ahead_of_picture(
        np.asarray(camera.K, np.float64).tobytes(), camera.width, camera.height, str(device)
    )
    return _in_head(ahead, T_camera_head)


@lru_cache(maxsize=2)
def _ahead_of_picture(K: bytes, width: int, height: int, device: str) -> Tensor:
    pixels = torch.arange(width * height, device=device)
    return _ahead(np.frombuffer(K, np.float64).reshape(3, 3), width, pixels)


def _ahead(K: np.ndarray, width: int, pixels: Tensor) -> Tensor:
    """(n, 3) unit directions, camera frame."""
    inverse = torch.tensor(np.linalg.inv(K), dtype=torch.float32, device=pixels.device)
    columns, rows = pixels % width, pixels // width
    image = torch.stack([columns + 0.5, rows + 0.5, torch.ones_like(columns) + 0.0], 1)
    return torch.nn.functional.normalize(image.float() @ inverse.T, dim=1)


def _in_head(ahead: Tensor, T_camera_head: Tensor) -> tuple[Tensor, Tensor]:
    rotation, translation = T_camera_head[:3, :3], T_camera_head[:3, 3]
    origin = -(rotation.T @ translation)
    return origin.expand(len(ahead), 3).contiguous(), ahead @ rotation
