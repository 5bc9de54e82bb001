"""Handing an avatar, or a captured performance, over to other programs and other people."""

from avatar3d.export.export import FORMATS, export
from avatar3d.export.performance import export_motion, export_tracking

__all__ = ["FORMATS", "export", "export_motion", "export_tracking"]
