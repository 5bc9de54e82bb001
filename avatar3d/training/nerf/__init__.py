"""Training of NeRF avatars."""

from avatar3d.training.nerf.config import NerfConfig

__all__ = ["NerfConfig"]
