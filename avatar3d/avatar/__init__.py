"""Avatar: a radiance field of one person that a Motion and a Camera turn into pictures."""

from avatar3d.avatar.base import Avatar
from avatar3d.avatar.file import load
from avatar3d.avatar.nerf import NerfAvatar, NerfState
from avatar3d.avatar.posed import PosedAvatar
from avatar3d.avatar.splat import SplatAvatar
from avatar3d.avatar.state import SplatState

__all__ = [
    "Avatar",
    "NerfAvatar",
    "NerfState",
    "PosedAvatar",
    "SplatAvatar",
    "SplatState",
    "load",
]
