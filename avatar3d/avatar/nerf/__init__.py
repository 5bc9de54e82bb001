"""The NeRF avatar: a radiance field in the head frame, warped by the head model."""

from avatar3d.avatar.nerf.avatar import NerfAvatar
from avatar3d.avatar.nerf.state import NerfState

__all__ = ["NerfAvatar", "NerfState"]
