"""Head models by name or by path."""

import hashlib
import re
import zipfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from avatar3d.assets import cache_folder
from avatar3d.errors import UserError
from avatar3d.head.model import FORMAT_VERSION, HeadModel
from avatar3d.io.storage_cache import made_once
from avatar3d.progress import say

if TYPE_CHECKING:
    from avatar3d.head.sources.foreign import Embed

__all__ = ["load_head"]

_NEUTRAL = "generic_neutral_mesh.obj"  # by which ICT-FaceKit's folder is known
_ICT_ARRAYS, _ICT_MARKS = {"vertices", "parts"}, "ict_mediapipe478.npz"
_ADAPTER_VERSION = 2
"""Raised when an adapter's result changes, so that converted models are converted again."""


def load_head(name: str = "anny", embed: "Embed | None" = None) -> HeadModel:
    """A head model, kept in memory after the first call.

    Published models are converted once, which takes a minute or two, and cached; `name` of the
    result, such as "flame-0123456789ab", then loads it again without the original.

    Args:
        name: "anny" (the default model, built and cached at first use), "ict" (from
            `ict_facekit.npz` and `ict_mediapipe478.npz` imported as assets), the name of a
            converted model, or a path: the folder `FaceXModel` of ICT-FaceKit or the same as .npz,
            `gnm_head.npz` of Google's GNM, `generic_model.pkl` of FLAME 2020 or 2023, or a
            `HeadModel` saved as .npz.
        embed: finds the landmarks of a model that has none; `capture` and `avatar3d head` bring
            one. Without it only models that are already converted can be loaded.

    Raises:
        UserError: an unknown name, or its data cannot be had; says what to run.
    """
    head = _load(str(name))
    return head if head is not None else _converted(Path(name), embed)


@lru_cache(maxsize=4)
def _load(name: str) -> HeadModel | None:
    """A model that needs no conversion, or None."""
    if name == "anny":
        from avatar3d.head.anny import load_anny

        return load_anny()
    if name == "ict":
        from avatar3d.assets import get
        from avatar3d.head.sources import ict

        return ict.from_npz(get("ict-facekit"), get("ict-mediapipe478"))
    path = Path(name)
    if re.fullmatch(r"(flame|gnm|ict)-[0-9a-f]{12}", name) and not path.exists():
        return _read_cached(name)
    if path.is_dir() or path.suffix == ".pkl":
        return None
    if path.suffix != ".npz":
        raise UserError(
            f"There is no head model named {name!r}; use anny, ict or the path of a model "
            "(.npz, .pkl or ICT-FaceKit's folder)."
        )
    return _from_npz(path)


def _from_npz(path: Path) -> HeadModel | None:
    if not path.is_file():
        raise UserError(f"The head model {path} does not exist; check the path.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.removesuffix(".npy") for member in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not an .npz file ({error}).") from error
    from avatar3d.head.sources import gnm

    if members.issuperset(gnm.MEMBERS) or members >= _ICT_ARRAYS:
        return None
    # By this name what was tracked with it finds it again.
    return replace(HeadModel.load(path), name=str(path.absolute()))


def _converted(path: Path, embed: "Embed | None") -> HeadModel:
    """A published model through its adapter, or from the cache."""
    kind, files = _kind(path)
    digest = hashlib.sha256(f"{FORMAT_VERSION} {_ADAPTER_VERSION} {kind}".encode())
    for file in files:
        digest.update(file.name.encode())
        if not file.is_file():
            raise UserError(f"{path} needs {file.name} beside it; put it there.")
        with open(file, "rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    name = f"{kind}-{digest.hexdigest()[:12]}"
    if _cached_path(name).is_file():
        return _read_cached(name)
    if embed is None and len(files) != 2:
        raise UserError(
            f"The landmarks of {path} are not known yet; run `avatar3d head {path}` once."
        )

    def convert() -> None:
        say(f"Converting the head model {path}, once.")
        # The recipe is the identity of a converted model: its last bits differ between machines.
        replace(_adapt(kind, path, embed), name=name, recipe=name).save(_cached_path(name))

    made_once(_cached_path(name), Path.is_file, convert)
    return _read_cached(name)


def _kind(path: Path) -> tuple[str, list[Path]]:
    """Which adapter, and the files that decide on its result."""
    if not path.exists():
        raise UserError(f"The head model {path} does not exist; check the path.")
    if path.is_dir():
        if not (path / _NEUTRAL).is_file():
            raise UserError(f"{path} has no {_NEUTRAL}; give the folder FaceXModel of ICT-FaceKit.")
        return "ict", sorted(path.glob("*.obj"))
    if path.suffix == ".pkl":
        return "flame", [path]
    with zipfile.ZipFile(path) as archive:
        arrays = {member.removesuffix(".npy") for member in archive.namelist()} >= _ICT_ARRAYS
    return ("ict", [path, path.with_name(_ICT_MARKS)]) if arrays else ("gnm", [path])


def _adapt(kind: str, path: Path, embed: "Embed | None") -> HeadModel:
    from avatar3d.head.sources import flame, gnm, ict

    if kind == "ict" and path.is_file():
        return ict.from_npz(path)
    assert embed is not None
    if kind == "ict":
        return ict.from_folder(path, embed)
    adapter = flame.from_pickle if kind == "flame" else gnm.from_npz
    return adapter(path, load_head(), embed)


def _cached_path(name: str) -> Path:
    return cache_folder() / "heads" / f"{name}.npz"


@lru_cache(maxsize=4)
def _read_cached(name: str) -> HeadModel:
    path = _cached_path(name)
    if not path.is_file():
        raise UserError(
            f"The head model {name} is not on this machine; run `avatar3d head PATH` with the "
            "model that it was made from."
        )
    return HeadModel.load(path)
