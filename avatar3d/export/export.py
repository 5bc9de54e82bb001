"""One verb for every format."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avatar3d.errors import UserError
from avatar3d.export.glb import write_glb
from avatar3d.export.html import write_html
from avatar3d.export.ply import write_neutral_ply
from avatar3d.export.png import write_png_sequence
from avatar3d.export.web import write_web

if TYPE_CHECKING:
    from avatar3d.avatar import SplatAvatar

__all__ = ["FORMATS", "export"]

FORMATS: dict[str, Callable[..., None]] = {
    "glb": write_glb,
    "html": write_html,
    "ply": write_neutral_ply,
    "png": write_png_sequence,
    "web": write_web,
}
"""Name of a format to its writer (avatar, path, **options)."""

_MOVING = ("glb", "html", "png", "web")


def export(
    avatar: "SplatAvatar", output: str | os.PathLike[str], format: str | None = None, **options: Any
) -> Path:
    """Write `avatar` for use outside avatar3d.

    Args:
        avatar: what to hand over.
        output: the file to write.
        format: default by the suffix of `output`.
            "html": one page that animates the avatar in any browser (`write_html`);
            "web": a folder to embed it in a page of your own (`write_web`);
            "ply": its neutral pose for splat editors and viewers (`write_neutral_ply`);
            "glb": its mesh with ARKit morph targets for game engines (`write_glb`);
            "png": a folder of pictures with transparency (`write_png_sequence`).
        options: further arguments of that writer.

    Returns:
        The path written.

    Raises:
        UserError: unknown format, or the file cannot be written.
    """
    path = Path(output)
    name = format or path.suffix.lstrip(".").lower()
    if name not in FORMATS:
        raise UserError(
            f"Cannot export as {name or 'a file without a suffix'!r}; "
            f"choose one of {', '.join(sorted(FORMATS))}."
        )
    if options.get("motion") is not None and name not in _MOVING:
        raise UserError(
            f"A {name} file keeps still; only {', '.join(_MOVING)} can be given a motion."
        )
    FORMATS[name](avatar, path, **options)
    return path
