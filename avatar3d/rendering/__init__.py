"""Rendering: an Avatar and a Motion to a video."""

from avatar3d.rendering.video import render

__all__ = ["render"]
