"""Capture: a video of one person, or a prepared folder, becomes a Subject folder."""

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.importing import import_folder
from avatar3d.capture.pipeline import capture
from avatar3d.capture.preflight import check

__all__ = ["CaptureConfig", "capture", "check", "import_folder"]
