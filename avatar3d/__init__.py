"""avatar3d: from a video of one person to their talking 3D avatar."""

import os
from importlib import import_module
from typing import Any

# Read by torch's OpenMP when torch loads. Its waiting threads would otherwise spin and take the
# core from a busy neighbour: on a shared machine an iteration costs half the time without.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"

_EXPORTS = {
    "Avatar": "avatar3d.avatar",
    "Camera": "avatar3d.geometry",
    "HeadModel": "avatar3d.head",
    "Motion": "avatar3d.motion",
    "Subject": "avatar3d.subject",
    "UserError": "avatar3d.errors",
    "load": "avatar3d.avatar",
    "render": "avatar3d.rendering",
    "train": "avatar3d.training",
}

__all__ = [*sorted(_EXPORTS), "__version__"]


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `import avatar3d` stays quick."""
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'avatar3d' has no attribute {name!r}")
