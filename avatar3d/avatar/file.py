"""The avatar file NAME.a3d: a ZIP of data that can be read without running any code.

Members, stored uncompressed:
    manifest.json       format, version, units, kind, info, and size and sha256 of the others
    splats.safetensors  the SplatState; displacement fields in half precision, the basis in 8 bit
    motion.safetensors  the idle motion
    driver.safetensors  the audio driver, when there is one
    canonical.ply       the neutral head for any splat viewer
    background.png      the empty plate, when there is one
    preview.png         a picture of the avatar
"""

import hashlib
import io
import json
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from avatar3d.avatar.canonical import canonical_cloud
from avatar3d.avatar.splat import SplatAvatar
from avatar3d.avatar.state import SplatState
from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_path
from avatar3d.io.ply import encode_ply
from avatar3d.motion.motion import Motion

__all__ = ["load", "save"]

FORMAT = "avatar3d.avatar"
VERSION = 1
_MAX_FILE = 1 << 30  # bytes; the largest avatar we would ever write is far smaller
_MAX_GAUSSIANS = 2_000_000
_HALF = ("expression",)
_TRACKS = ("expression", "residual", "head_pose", "gaze", "torso_pose")


def save(avatar: SplatAvatar, path: str | Path) -> None:
    """Write `avatar` to `path` in one step."""
    avatar.state.validate()
    members = {
        "splats.safetensors": save_tensors(_packed(avatar.state)),
        "motion.safetensors": save_tensors(_motion_arrays(avatar.idle_motion)),
        "canonical.ply": encode_ply(canonical_cloud(avatar.state)),
        "preview.png": _png(avatar.render()),
    }
    if avatar.driver is not None:
        members["driver.safetensors"] = save_tensors(avatar.driver.arrays())
    if avatar.background is not None:
        members["background.png"] = _png(avatar.background)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "kind": "splat",
        "units": {"length": "m", "angle": "rad", "color": "sRGB"},
        "synthetic": "This file and every picture made from it are synthetic media.",
        "info": avatar.info,
        "motion_fps": avatar.idle_motion.fps,
        "members": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in members.items()
        },
    }
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        archive.writestr("manifest.json", json.dumps(manifest, indent=2))
        for name, data in members.items():
            archive.writestr(name, data)


def load(path: str | Path) -> SplatAvatar:
    """Read an avatar file.

    Raises:
        UserError: missing, damaged, too large, or written by a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no avatar file {path}; make one with `avatar3d train`.")
    if path.stat().st_size > _MAX_FILE:
        raise UserError(f"{path} is larger than any avatar file may be (1 GiB).")
    try:
        with zipfile.ZipFile(path) as archive:
            manifest, members = _read_members(archive)
        return _unpack(manifest, members)
    except (
        zipfile.BadZipFile, SafetensorError, KeyError, ValueError, TypeError, OSError, EOFError,
    ) as error:  # fmt: skip
        raise UserError(f"{path} is not a readable avatar file ({error}).") from error


def _read_members(archive: zipfile.ZipFile) -> tuple[dict[str, Any], dict[str, bytes]]:
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > _MAX_FILE:
            raise ValueError(f"member {entry.filename} is compressed or too large")
    manifest = json.loads(archive.read("manifest.json"))
    if manifest.get("format") != FORMAT:
        raise ValueError("its manifest is not that of an avatar")
    if manifest.get("version") != VERSION or manifest.get("kind") != "splat":
        raise ValueError(
            f"version {manifest.get('version')} of kind {manifest.get('kind')} needs another "
            "release of avatar3d"
        )
    members = {}
    for name, entry in manifest["members"].items():
        data = archive.read(name)
        if len(data) != entry["size"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise ValueError(f"member {name} is damaged")
        members[name] = data
    return manifest, members


def _unpack(manifest: dict[str, Any], members: dict[str, bytes]) -> SplatAvatar:
    state = _unpacked(load_tensors(members["splats.safetensors"]))
    state.validate()
    if len(state) > _MAX_GAUSSIANS:
        raise ValueError(f"{len(state)} Gaussians")
    tracks = load_tensors(members["motion.safetensors"])
    motion = Motion(
        fps=float(manifest["motion_fps"]),
        source="capture",
        **{name: tracks[name].astype(np.float32) for name in _TRACKS if name in tracks},
    )
    driver = None
    if "driver.safetensors" in members:
        from avatar3d.motion.audio_driver import AudioDriver

        driver = AudioDriver.from_arrays(load_tensors(members["driver.safetensors"]))
    background = None
    if "background.png" in members:
        background = _from_png(members["background.png"], tuple(state.size[::-1]))
    info = manifest["info"]
    if not isinstance(info, dict):
        raise ValueError("its info is not a table")
    return SplatAvatar(state, background, motion, driver, info)


def _packed(state: SplatState) -> dict[str, np.ndarray]:
    arrays = {f.name: np.array(getattr(state, f.name), order="C") for f in fields(SplatState)}
    for name in _HALF:
        arrays[name] = arrays[name].astype(np.float16)
    basis = arrays.pop("basis")
    scale = np.abs(basis).max(-1, keepdims=True, initial=0) / 127
    # Halves below 6e-8 vanish; such a row is all but zero anyway.
    scale = np.maximum(scale, 1e-7).astype(np.float16).astype(np.float32)
    arrays["basis_q"] = np.round(basis / scale).clip(-127, 127).astype(np.int8)
    arrays["basis_scale"] = scale.astype(np.float16)
    return arrays


def _unpacked(arrays: dict[str, np.ndarray]) -> SplatState:
    scale = arrays.pop("basis_scale").astype(np.float32)
    arrays["basis"] = arrays.pop("basis_q").astype(np.float32) * scale
    for name in _HALF:
        arrays[name] = arrays[name].astype(np.float32)
    return SplatState(**arrays)


def _motion_arrays(motion: Motion) -> dict[str, np.ndarray]:
    tracks = {name: getattr(motion, name) for name in _TRACKS}
    return {name: track for name, track in tracks.items() if track is not None}


def _png(image: np.ndarray) -> bytes:
    import imageio.v3 as iio

    buffer = io.BytesIO()
    iio.imwrite(buffer, image, extension=".png")
    return buffer.getvalue()


def _from_png(data: bytes, shape: tuple[int, int]) -> np.ndarray:
    """Decode an RGB picture after checking the size in its header against `shape` (H, W)."""
    import imageio.v3 as iio

    properties = iio.improps(data, extension=".png")
    if tuple(properties.shape) != (*shape, 3):
        raise ValueError(f"background.png is {properties.shape}, expected {(*shape, 3)}")
    return iio.imread(data, extension=".png")
