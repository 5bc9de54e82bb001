"""The command line: the verbs a person types. No logic here; it is in the functions called."""

from avatar3d.cli.main import main

__all__ = ["main"]
