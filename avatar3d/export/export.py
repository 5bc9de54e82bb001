"""One verb for every format."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avatar3d.errors import UserError
from avatar3d.export.clouds import (
    write_neutral_splat,
    write_neutral_spz,
    write_ply_sequence,
    write_sog,
    write_splat_glb,
)
from avatar3d.export.film import write_mov, write_webm
from avatar3d.export.gaussian_avatars import write_gaussian_avatars
from avatar3d.export.glb import write_glb
from avatar3d.export.html import write_html
from avatar3d.export.lam import write_lam
from avatar3d.export.ply import write_neutral_ply
from avatar3d.export.png import write_png_sequence
from avatar3d.export.web import write_web

if TYPE_CHECKING:
    from avatar3d.avatar import PosedAvatar

__all__ = ["FORMATS", "export"]

FORMATS: dict[str, Callable[..., None]] = {
    "gaussian-avatars": write_gaussian_avatars,
    "glb": write_glb,
    "html": write_html,
    "lam": write_lam,
    "mov": write_mov,
    "ply": write_neutral_ply,
    "ply-sequence": write_ply_sequence,
    "png": write_png_sequence,
    "sog": write_sog,
    "splat": write_neutral_splat,
    "splat-glb": write_splat_glb,
    "spz": write_neutral_spz,
    "web": write_web,
    "webm": write_webm,
}
"""Name of a format to its writer (avatar, path, **options)."""

_FOLDERS = {
    "gaussian-avatars": r"point_cloud\.ply|flame_param\.npz",
    "ply-sequence": r"\d+\.ply",
    "png": r"\d+\.png",
    "web": r"avatar\.(json|bin)|avatar3d\.(js|d\.ts)|index\.html|plate\.jpg|sound\.\w+",
}
"""Formats that are folders, to what their files are named."""
_BY_SUFFIX = {"zip": "lam"}
_ANY_KIND = ("mov", "png", "webm")
_MOVING = ("gaussian-avatars", "glb", "html", "lam", "mov", "ply-sequence", "png", "web", "webm")


def export(
    avatar: "PosedAvatar", output: str | os.PathLike[str], format: str | None = None, **options: Any
) -> Path:
    """Write `avatar` for use outside avatar3d.

    Args:
        avatar: what to hand over.
        output: the file to write.
        format: default by the suffix of `output`.
            "html": one page that animates the avatar in any browser (`write_html`);
            "web": a folder to embed it in a page of your own (`write_web`);
            "ply", "spz", "splat", "sog": its neutral pose for splat editors and viewers
            (`write_neutral_ply`, `write_neutral_spz`, `write_neutral_splat`, `write_sog`);
            "splat-glb": the same as glTF with KHR_gaussian_splatting (`write_splat_glb`);
            "ply-sequence": a folder of a PLY for every frame (`write_ply_sequence`);
            "glb": its textured mesh with ARKit morph targets for game engines (`write_glb`);
            "gaussian-avatars": a folder for the viewer of GaussianAvatars, of an avatar on FLAME
            (`write_gaussian_avatars`);
            "lam": a zip for the web renderer of LAM (`write_lam`);
            "png": a folder of pictures with transparency (`write_png_sequence`);
            "mov", "webm": a film with transparency (`write_mov`, `write_webm`).
        options: further arguments of that writer.

    Returns:
        The path written.

    Raises:
        UserError: unknown format, or the file cannot be written.
    """
    from avatar3d.avatar import SplatAvatar

    path = Path(output)
    suffix = path.suffix.lstrip(".").lower()
    name = format or _BY_SUFFIX.get(suffix, suffix)
    if name not in FORMATS:
        raise UserError(
            f"Cannot export as {name or 'a file without a suffix'!r}; "
            f"choose one of {', '.join(sorted(FORMATS))}."
        )
    if name not in _ANY_KIND and not isinstance(avatar, SplatAvatar):
        raise UserError(
            f"A {name} file needs Gaussians, and this avatar is a radiance field; make an avatar "
            "of splats of it with `avatar3d convert`, or export it as mov, png or webm."
        )
    if options.get("motion") is not None and name not in _MOVING:
        raise UserError(
            f"A {name} file keeps still; only {', '.join(_MOVING)} can be given a motion."
        )
    if name in _FOLDERS:
        _refuse_other_folders(path, _FOLDERS[name])
    FORMATS[name](avatar, path, **options)
    return path


def _refuse_other_folders(path: Path, own: str) -> None:
    """Writing a folder replaces it as a whole, which must not cost anybody their own files."""
    if path.is_dir() and not all(re.fullmatch(own, entry.name) for entry in path.iterdir()):
        raise UserError(
            f"The folder {path} holds files that are not of such an export, and would be replaced; "
            "choose another name."
        )
