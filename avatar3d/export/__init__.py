"""Handing an avatar over to other programs and other people."""

from avatar3d.export.export import FORMATS, export

__all__ = ["FORMATS", "export"]
