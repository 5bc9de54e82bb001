"""Motion: what a face does over time, and everything that makes one."""

from avatar3d.motion.config import MotionConfig
from avatar3d.motion.motion import Motion

__all__ = ["Motion", "MotionConfig"]
