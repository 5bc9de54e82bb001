"""A motion as JSON, for web pages and whatever reads no .npz."""

import json
import os
from typing import Any

from avatar3d.io.atomic import atomic_write
from avatar3d.motion.motion import TRACKS, Motion

__all__ = ["write_json"]

_DIGITS = 5


def write_json(motion: Motion, path: str | os.PathLike[str]) -> None:
    """Write the tracks as nested lists: the fields of `Motion`, with "format" and "version".

    Residual rows mean nothing outside their head model and are left out.
    """
    content: dict[str, Any] = {"format": "avatar3d.motion", "version": 1, "fps": motion.fps}
    for name in TRACKS:
        track = getattr(motion, name)
        if track is not None and name != "residual":
            content[name] = track.astype(float).round(_DIGITS).tolist()
    atomic_write(path, json.dumps(content, separators=(",", ":")))
