"""Where things are kept that can be made or fetched again."""

import os
import sys
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """AVATAR3D_CACHE, or the platform's folder for caches."""
    chosen = os.environ.get("AVATAR3D_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
        return base / "avatar3d" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "avatar3d"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avatar3d"
