"""Files that take long to make or fetch: once a machine, and with a shared cache once for all."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from avatar3d.errors import UserError
from avatar3d.io.cache import cache_folder
from avatar3d.io.locks import file_lock
from avatar3d.progress import say

__all__ = ["SHARED_CACHE", "made_once"]

SHARED_CACHE = "AVATAR3D_SHARED_CACHE"
"""Environment variable: URL of a storage in which machines share what they have made."""

_OLD = 3600.0  # seconds; nothing is being written that long


def made_once(path: Path, usable: Callable[[Path], bool], make: Callable[[], object]) -> None:
    """See that the file `path` of the cache is there, made by one process of many.

    Others wait for it. With AVATAR3D_SHARED_CACHE it is taken from there, or put there for other
    machines; where that storage fails, it is made here all the same.

    Args:
        path: inside `cache_folder()`; its name must say what it depends on.
        usable: whether a file that is there will do.
        make: writes `path`, atomically.
    """
    with file_lock(path):
        _sweep(path)
        if path.is_file() and usable(path):
            return
        url = _shared_url(path)
        if url and _fetched(url, path) and usable(path):
            return
        make()
        if url:
            _offered(url, path)


def _sweep(path: Path) -> None:
    """Remove what killed processes left of `path`."""
    for partial in path.parent.glob(f".partial-*-{path.name}"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > _OLD:
                partial.unlink()


def _shared_url(path: Path) -> str:
    base = os.environ.get(SHARED_CACHE, "").rstrip("/")
    folder = cache_folder()
    return f"{base}/{path.relative_to(folder).as_posix()}" if base else ""


def _fetched(url: str, path: Path) -> bool:
    from avatar3d.io.storage import fetch, published, shown

    try:
        if published(url) is None:
            return False
        fetch(url, path)
    except UserError as error:
        say(f"The shared cache gives no {shown(url)}: {error}")
        return False
    return True


def _offered(url: str, path: Path) -> None:
    from avatar3d.io.storage import publish

    try:
        publish(path, url, os.environ[SHARED_CACHE])
    except UserError as error:
        say(f"The shared cache takes no {path.name}: {error}")
