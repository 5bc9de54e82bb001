"""Looking at an avatar: a live server, and the page that `avatar3d.export` writes."""

from avatar3d.viewer.live import LiveViewer, view

__all__ = ["LiveViewer", "view"]
