"""The Gaussians, still or frame by frame, in the formats of splat viewers, editors and engines."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avatar3d.avatar.canonical import canonical_cloud, posed_clouds
from avatar3d.errors import UserError
from avatar3d.export.gltf import Document
from avatar3d.export.ply import AXES, encode_avatar_ply, rotated, write_neutral_ply
from avatar3d.io.atomic import atomic_folder, atomic_path
from avatar3d.io.ply import SH_C0
from avatar3d.io.splat import write_splat
from avatar3d.io.spz import encode_spz
from avatar3d.motion.motion import Motion
from avatar3d.progress import say, track
from avatar3d.provenance import declare, declared_write, facts_of, slot

if TYPE_CHECKING:
    from avatar3d.avatar import SplatAvatar

__all__ = [
    "write_neutral_splat", "write_neutral_spz", "write_ply_sequence", "write_sog",
    "write_splat_glb",
]  # fmt: skip

_CONVERTER = "splat-transform"
_MOST_SECONDS = 600


def write_neutral_spz(avatar: "SplatAvatar", path: str | os.PathLike[str]) -> None:
    """Write the neutral pose as SPZ, y up: a fifth of the PLY, for Spark and Babylon.js."""
    facts = facts_of(avatar.info)
    declared_write(path, encode_spz(canonical_cloud(avatar.state), slot(facts)), facts)


def write_neutral_splat(avatar: "SplatAvatar", path: str | os.PathLike[str]) -> None:
    """Write the neutral pose as .splat of 32 bytes a Gaussian, y down as in a PLY.

    The format has no place for the statement that it is synthetic; the user is told.
    """
    write_splat(path, rotated(canonical_cloud(avatar.state), AXES["3dgs"][0]))
    say(f"{path} cannot say of itself that it is synthetic; say so where you show it.")


def write_splat_glb(avatar: "SplatAvatar", path: str | os.PathLike[str]) -> None:
    """Write the neutral Gaussians as binary glTF with KHR_gaussian_splatting.

    Programs that do not know the extension show coloured points.
    Source: https://github.com/KhronosGroup/glTF, extensions/2.0/Khronos/KHR_gaussian_splatting.
    """
    cloud = canonical_cloud(avatar.state)
    alpha = 1 / (1 + np.exp(-cloud.opacity))
    rgba = np.concatenate([cloud.colors, alpha[:, None]], axis=1)
    document = Document()
    attributes = {
        "POSITION": document.add(cloud.means, bounds=True),
        "COLOR_0": document.add(np.rint(rgba * 255).clip(0, 255).astype(np.uint8), normalized=True),
        "KHR_gaussian_splatting:ROTATION": document.add(cloud.quats[:, [1, 2, 3, 0]]),
        "KHR_gaussian_splatting:SCALE": document.add(np.exp(cloud.log_scales)),
        "KHR_gaussian_splatting:OPACITY": document.add(alpha),
        "KHR_gaussian_splatting:SH_DEGREE_0_COEF_0": document.add((cloud.colors - 0.5) / SH_C0),
    }
    kind = {
        "kernel": "ellipse", "colorSpace": "srgb_rec709_display",
        "sortingMethod": "cameraDistance", "projection": "perspective",
    }  # fmt: skip
    primitive = {
        "attributes": attributes, "mode": 0, "extensions": {"KHR_gaussian_splatting": kind},
    }  # fmt: skip
    content = {
        "extensionsUsed": ["KHR_gaussian_splatting"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "head"}],
        "meshes": [{"primitives": [primitive]}],
    }
    facts = facts_of(avatar.info)
    declared_write(path, document.encoded(content, slot(facts)), facts)


def write_ply_sequence(
    avatar: "SplatAvatar",
    path: str | os.PathLike[str],
    motion: Motion | None = None,
    axes: str = "3dgs",
) -> None:
    """Write `motion` as the folder `path` of 000000.ply, 000001.ply, ...: a splat video.

    Args:
        avatar: any splat avatar.
        path: folder to write; an existing one is replaced.
        motion: default the avatar's own captured motion.
        axes: as for `write_neutral_ply`.
    """
    motion = motion if motion is not None else avatar.idle_motion
    facts = facts_of(avatar.info)
    clouds: Iterator = track(posed_clouds(avatar, motion), "Writing", len(motion))
    with atomic_folder(path) as folder:
        for index, cloud in enumerate(clouds):
            file = folder / f"{index:06d}.ply"
            file.write_bytes(encode_avatar_ply(cloud, axes, facts))
            declare(file, facts, path)


def write_sog(avatar: "SplatAvatar", path: str | os.PathLike[str]) -> None:
    """Write the neutral pose as SOG with PlayCanvas' splat-transform, where that is installed."""
    program = shutil.which(_CONVERTER)
    if program is None:
        raise UserError(
            f"SOG files are made by {_CONVERTER}, which is not installed; run "
            "`npm install -g @playcanvas/splat-transform`, or export as spz."
        )
    with tempfile.TemporaryDirectory(prefix="avatar3d-") as folder, atomic_path(path) as target:
        source = Path(folder) / "head.ply"
        write_neutral_ply(avatar, source)
        made = Path(folder) / "head.sog"
        command = [program, "--quiet", "--gpu", "cpu", str(source), str(made)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MOST_SECONDS)
        if done.returncode or not made.is_file():
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
            raise UserError(f"{_CONVERTER} could not write {path}: {last[0].strip()}")
        shutil.copyfile(made, target)
