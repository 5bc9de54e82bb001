"""The 3D morphable head model: one dataclass, whatever its source."""

from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.head.gallery import gallery
from avatar3d.head.library import load_head
from avatar3d.head.model import HeadModel, ShapedHead

__all__ = ["ARKIT_52", "ARKIT_INDEX", "HeadModel", "ShapedHead", "gallery", "load_head"]
