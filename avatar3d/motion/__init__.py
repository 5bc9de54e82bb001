"""Motion: what a face does over time, and everything that makes one."""

from avatar3d.motion.composition import (
    blended,
    compose,
    crossfaded,
    layered,
    looped,
    with_speed,
)
from avatar3d.motion.config import MotionConfig
from avatar3d.motion.emotions import with_emotion
from avatar3d.motion.filters import StreamFilter, smoothed
from avatar3d.motion.keyframes import read_keyframes
from avatar3d.motion.manner import in_manner
from avatar3d.motion.motion import Motion
from avatar3d.motion.retargeting import retarget
from avatar3d.motion.sliders import pose

__all__ = [
    "Motion", "MotionConfig", "StreamFilter", "blended", "compose", "crossfaded", "in_manner",
    "layered", "looped", "pose", "read_keyframes", "retarget", "smoothed", "with_emotion",
    "with_speed",
]  # fmt: skip
