"""The avatar file NAME.a3d: a ZIP of data that can be read without running any code.

Members:
    manifest.json       format, version, units, kind, info, and size and sha256 of the others
    splats.safetensors  the SplatState, packed as `avatar3d.avatar.packing` says; kind "splat"
    field.safetensors   the NerfState, packed likewise; kind "nerf", from version 3
    motion.safetensors  the idle motion, packed likewise
    driver.safetensors  the audio driver, when there is one
    gamut.safetensors   the colours that further training may use, in 127ths, when they are limited
    background.png      the empty plate, when there is one
    preview.png         a small picture of the avatar

The tensors are deflated, the pictures stored. Version 1 stored everything, with `expression` in
half precision and the basis as `basis_q` times `basis_scale`, beside a canonical.ply; it is still
read.
"""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from avatar3d.avatar.gamut import Gamut
from avatar3d.avatar.nerf import NerfAvatar, NerfState
from avatar3d.avatar.packing import pack, scaled, unpack
from avatar3d.avatar.posed import PosedAvatar
from avatar3d.avatar.splat import SplatAvatar
from avatar3d.avatar.state import SplatState
from avatar3d.errors import UserError
from avatar3d.io.images import read_image
from avatar3d.motion.motion import Motion
from avatar3d.progress import say
from avatar3d.provenance import declared_path, facts_of, slot

__all__ = ["load", "save"]

FORMAT = "avatar3d.avatar"
_VERSIONS = {"splat": (1, 2), "nerf": (3,)}
"""Versions of each kind that can be read; the last one is written."""
_STATES = {"splat": "splats.safetensors", "nerf": "field.safetensors"}
# What a damaged ZIP makes zipfile raise. RuntimeError: an encrypted member, unknown compression
# (NotImplementedError), or a manifest nested too deep (RecursionError); OSError: an offset before
# the beginning; struct.error: a header that is cut off.
_NO_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, struct.error)
# What a manifest and arrays of other types, shapes or sizes than ours make the reader raise: all of
# it is from a file whose archive is sound, so an error of another kind is a fault of ours.
_NO_AVATAR = (SafetensorError, KeyError, ValueError, TypeError, AttributeError, OverflowError)
_MAX_FILE = 1 << 28  # bytes, inflated; the largest avatar we would ever write is far smaller
_MAX_GAUSSIANS = 2_000_000
_PREVIEW = 256  # pixels of the longer side
_TRACKS = ("expression", "residual", "head_pose", "gaze", "torso_pose")


def save(avatar: PosedAvatar, path: str | Path) -> None:
    """Write `avatar` to `path` in one step."""
    kind = "nerf" if isinstance(avatar, NerfAvatar) else "splat"
    state = avatar.state
    assert isinstance(state, SplatState | NerfState)
    state.validate()
    members = {
        _STATES[kind]: save_tensors(_state_arrays(state)),
        "motion.safetensors": save_tensors(_motion_arrays(avatar.idle_motion)),
        "preview.png": _png(_preview(avatar)),
    }
    if avatar.driver is not None:
        members["driver.safetensors"] = save_tensors(avatar.driver.arrays())
    if isinstance(avatar, SplatAvatar) and avatar.gamut is not None:
        members["gamut.safetensors"] = save_tensors(_gamut_arrays(avatar.gamut))
    if avatar.background is not None:
        members["background.png"] = _png(avatar.background)
    manifest = {
        "format": FORMAT,
        "version": _VERSIONS[kind][-1],
        "kind": kind,
        "units": {"length": "m", "angle": "rad", "color": "sRGB"},
        "synthetic": "This file and every picture made from it are synthetic media.",
        "info": avatar.info,
        "motion_fps": avatar.idle_motion.fps,
        "members": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in members.items()
        },
    }
    facts = facts_of(avatar.info) | {"consent": avatar.info.get("consent")}
    with declared_path(path, facts) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.comment = slot(facts).encode()
        archive.writestr("manifest.json", json.dumps(manifest, indent=2))
        for name, data in members.items():
            method = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
            archive.writestr(name, data, method)


def load(path: str | Path) -> SplatAvatar | NerfAvatar:
    """Read an avatar file.

    Raises:
        UserError: missing, damaged, too large, or written by a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no avatar file {path}; make one with `avatar3d train`.")
    if path.stat().st_size > _MAX_FILE:
        raise UserError(f"{path} is larger than any avatar file may be (256 MiB).")
    try:
        with zipfile.ZipFile(path) as archive:
            manifest, members = _read_members(archive)
    except (*_NO_ARCHIVE, *_NO_AVATAR) as error:
        raise UserError(f"{path} is not a readable avatar file ({error}).") from error
    try:
        return _unpack(manifest, members)
    except _NO_AVATAR as error:
        raise UserError(f"{path} is not a readable avatar file ({error}).") from error


def _read_members(archive: zipfile.ZipFile) -> tuple[dict[str, Any], dict[str, bytes]]:
    entries = {entry.filename: entry for entry in archive.infolist()}
    methods = {entry.compress_type for entry in entries.values()}
    if methods - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("a member is compressed in an unknown way")
    if sum(entry.file_size for entry in entries.values()) > _MAX_FILE:
        raise ValueError("its members are larger than those of any avatar")
    manifest = json.loads(_read(archive, entries["manifest.json"]))
    if manifest.get("format") != FORMAT:
        raise ValueError("its manifest is not that of an avatar")
    if manifest.get("version") not in _VERSIONS.get(manifest.get("kind"), ()):
        raise ValueError(
            f"version {manifest.get('version')} of kind {manifest.get('kind')} needs another "
            "release of avatar3d"
        )
    members = {}
    for name, described in manifest["members"].items():
        data = _read(archive, entries[name])
        if (
            len(data) != described["size"]
            or hashlib.sha256(data).hexdigest() != described["sha256"]
        ):
            raise ValueError(f"member {name} is damaged")
        members[name] = data
    return manifest, members


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The member, inflated no further than the size it claims: it may be lying."""
    with archive.open(entry) as member:
        return member.read(entry.file_size)


def _unpack(manifest: dict[str, Any], members: dict[str, bytes]) -> SplatAvatar | NerfAvatar:
    arrays = load_tensors(members[_STATES[manifest["kind"]]])
    state = NerfState(**unpack(arrays)) if manifest["kind"] == "nerf" else _splat_state(arrays)
    state.validate()
    if isinstance(state, SplatState) and len(state) > _MAX_GAUSSIANS:
        raise ValueError(f"{len(state)} Gaussians")
    tracks = unpack(load_tensors(members["motion.safetensors"]))
    motion = Motion(
        fps=float(manifest["motion_fps"]),
        source="capture",
        **{name: tracks[name].astype(np.float32) for name in _TRACKS if name in tracks},
    )
    driver = None
    if "driver.safetensors" in members:
        from avatar3d.motion.audio_driver import AudioDriver

        arrays = load_tensors(members["driver.safetensors"])
        if "lead" in arrays:
            driver = AudioDriver.from_arrays(arrays)
        else:
            say(
                "The audio driver in this avatar is that of an earlier version and is left out: "
                "the mouth will follow the universal one, until you train it again."
            )
    background = None
    if "background.png" in members:
        background = _plate(members["background.png"], state)
    info = manifest["info"]
    if not isinstance(info, dict):
        raise ValueError("its info is not a table")
    if isinstance(state, NerfState):
        return NerfAvatar(state, background, motion, driver, info)
    gamut = None
    if "gamut.safetensors" in members:
        gamut = _unpacked_gamut(load_tensors(members["gamut.safetensors"]), len(state))
    return SplatAvatar(state, background, motion, driver, info, gamut=gamut)


def _gamut_arrays(gamut: Gamut) -> dict[str, np.ndarray]:
    """In steps of 1/127, rounded outwards so that no limit becomes tighter."""
    low, high = (np.clip(bound, -1, 1) * 127 for bound in (gamut.low, gamut.high))
    return {
        "low": np.floor(low).astype(np.int8),
        "high": np.ceil(high).astype(np.int8),
        "steady": gamut.steady.astype(np.uint8),
    }


def _unpacked_gamut(arrays: dict[str, np.ndarray], count: int) -> Gamut:
    low, high = (arrays[name].astype(np.float64) / 127 for name in ("low", "high"))
    steady = arrays["steady"] != 0
    if low.shape != (count, 3) or high.shape != (count, 3) or steady.shape != (count,):
        raise ValueError("its limits of colours do not fit its Gaussians")
    return Gamut(low, high, steady)


def _state_arrays(state: SplatState | NerfState) -> dict[str, np.ndarray]:
    return pack({f.name: getattr(state, f.name) for f in fields(state)})


def _splat_state(arrays: dict[str, np.ndarray]) -> SplatState:
    if "basis_q" in arrays:  # version 1
        scale = arrays.pop("basis_scale").astype(np.float32)
        arrays["basis"] = scaled(arrays.pop("basis_q").astype(np.float32), scale)
        arrays["expression"] = arrays["expression"].astype(np.float32)
    return SplatState(**unpack(arrays))


def _motion_arrays(motion: Motion) -> dict[str, np.ndarray]:
    tracks = {name: getattr(motion, name) for name in _TRACKS}
    return pack({name: track for name, track in tracks.items() if track is not None})


def _preview(avatar: PosedAvatar) -> np.ndarray:
    camera = avatar.camera
    return avatar.render(camera=camera.scaled(_PREVIEW / max(camera.width, camera.height)))


def _png(image: np.ndarray) -> bytes:
    import imageio.v3 as iio

    buffer = io.BytesIO()
    iio.imwrite(buffer, image, extension=".png")
    return buffer.getvalue()


def _plate(data: bytes, state: SplatState | NerfState) -> np.ndarray:
    """The background (H, W, 3)."""
    picture = read_image(data, (int(state.size[0]), int(state.size[1])), "background.png")
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"background.png is {picture.shape} of {picture.dtype}")
    return picture
