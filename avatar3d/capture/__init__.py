"""Capture: a video of one person becomes a Subject folder."""

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.pipeline import capture

__all__ = ["CaptureConfig", "capture"]
