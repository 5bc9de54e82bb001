"""Fetch, verify and cache assets."""

import difflib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avatar3d.assets.manifest import Asset, manifest
from avatar3d.assets.sources import download, extract, matches
from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_path
from avatar3d.io.cache import cache_folder
from avatar3d.io.storage_cache import made_once
from avatar3d.progress import say

__all__ = [
    "AssetStatus", "cache_folder", "fetch", "get", "import_file", "list_assets", "remove",
]  # fmt: skip

_verified: dict[Path, tuple[int, int]] = {}


@dataclass(frozen=True)
class AssetStatus:
    """One line of `avatar3d assets`.

    `state` is "ready", "missing" (fetched when needed), "import" (missing, to be given by hand) or
    "damaged" (size differs; fetched again when needed). `size` is in bytes.
    """

    name: str
    state: Literal["ready", "missing", "import", "damaged"]
    size: int
    licence: str
    purpose: str
    path: Path


def get(name: str) -> Path:
    """Path of a verified asset, fetched first if it is not in the cache.

    Raises:
        UserError: unknown name, or it cannot be had; says what to run.
    """
    asset = _find(name)
    path = _path(asset)
    if path.is_file():
        if _intact(asset, path):
            return path
        say(f"The cached asset {name} is damaged and is fetched again.")
    made_once(path, lambda path: _intact(asset, path), lambda: fetch(name))
    return path


def fetch(name: str) -> Path:
    """Fetch an asset from its source, whether or not it is cached; return its path."""
    asset = _find(name)
    path = _path(asset)
    if asset.source.kind != "import":
        say(f"Fetching {name} ({asset.size / 1e6:.1f} MB): {asset.purpose}.")
    with tempfile.TemporaryDirectory(prefix="avatar3d-") as folder:
        found = download(asset, Path(folder))
        if not matches(asset, found):
            raise UserError(
                f"The asset {name!r} does not have the sha256 {asset.sha256[:12]}... of its "
                "manifest, so it was discarded; check your mirror or proxy."
            )
        _store(asset, found, path)
    return path


def import_file(name: str, file: str | os.PathLike[str]) -> Path:
    """Take an asset from a file of the user's: the file itself, or the package it is part of.

    Raises:
        UserError: unknown name, no such file, or it is not this asset.
    """
    asset, file = _find(name), Path(file)
    if not file.is_file():
        raise UserError(f"There is no file {file} to import; check the path.")
    if matches(asset, file):
        return _store(asset, file, _path(asset))
    if asset.source.member is None:
        raise UserError(
            f"{file} is not {asset.file} (its size or sha256 differs); nothing was imported."
        )
    with tempfile.TemporaryDirectory(prefix="avatar3d-") as folder:
        found = extract(asset, file, Path(folder))
        if not matches(asset, found):
            raise UserError(f"{file} holds another version of {asset.file}; nothing was imported.")
        return _store(asset, found, _path(asset))


def remove(name: str) -> bool:
    """Delete an asset from the cache; False when it was not there."""
    path = _path(_find(name))
    if not path.is_file():
        return False
    path.unlink()
    return True


def list_assets() -> list[AssetStatus]:
    """Every asset of the manifest with its state; looks at sizes only, so it is quick."""
    rows = []
    for asset in manifest().values():
        path = _path(asset)
        state: Literal["ready", "missing", "import", "damaged"]
        if path.is_file():
            state = "ready" if path.stat().st_size == asset.size else "damaged"
        else:
            state = "import" if asset.source.kind == "import" else "missing"
        rows.append(AssetStatus(asset.name, state, asset.size, asset.licence, asset.purpose, path))
    return rows


def _find(name: str) -> Asset:
    assets = manifest()
    if name not in assets:
        near = difflib.get_close_matches(name, assets, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"There is no asset named {name!r};{hint} `avatar3d assets` lists them all."
        )
    return assets[name]


def _path(asset: Asset) -> Path:
    # The hash in the folder's name lets versions of avatar3d share a cache.
    return cache_folder() / "assets" / f"{asset.name}-{asset.sha256[:8]}" / asset.file


def _store(asset: Asset, source: Path, target: Path) -> Path:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def _intact(asset: Asset, path: Path) -> bool:
    """sha256 of the cached file, computed once a process for the same file."""
    stat = path.stat()
    stamp = (stat.st_size, stat.st_mtime_ns)
    if _verified.get(path) == stamp:
        return True
    if not matches(asset, path):
        return False
    _verified[path] = stamp
    return True
