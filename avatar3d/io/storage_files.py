"""The files of a folder that is to be published, and how they are put together into objects."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from avatar3d.errors import UserError
from avatar3d.io.storage_manifest import StoredFile, StoredObject, safe_name
from avatar3d.io.storage_remote import CHUNK

__all__ = ["LocalFile", "grouped", "read_group", "scan", "unchanged"]

_SMALL = 1 << 20  # bytes; smaller files of a folder share objects


class LocalFile(NamedTuple):
    """A file and its path within what is published; `size` is in bytes."""

    path: str
    source: Path
    size: int


def scan(source: Path) -> Iterator[LocalFile]:
    """The files of a folder, sorted, or a file itself."""
    if source.is_file() and not source.is_symlink():
        yield LocalFile(source.name, source, source.stat().st_size)
        return
    if not source.is_dir():
        raise UserError(f"There is no file or folder {source} to publish; check the path.")
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted([*names, *folders]):
            path = Path(folder) / name
            if path.is_symlink():
                raise UserError(f"{path} is a link; put a copy in its place before publishing it.")
            if not safe_name(name):
                raise UserError(f"{path} has a name that not every system allows; rename it.")
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_file() and not name.startswith((".partial-", ".lock-")):
                yield LocalFile(path.relative_to(source).as_posix(), path, path.stat().st_size)
        folders[:] = [name for name in folders if not name.startswith(".partial-")]


def grouped(files: Iterable[LocalFile]) -> Iterator[list[LocalFile]]:
    """Files that share an object: the small ones of one folder, but not those at the top."""
    waiting: list[LocalFile] = []
    where, held = "", 0
    for file in files:
        folder = file.path.rpartition("/")[0]
        if not folder or file.size >= _SMALL:
            yield [file]
            continue
        if waiting and (folder != where or held + file.size > CHUNK):
            yield waiting
            waiting, held = [], 0
        waiting.append(file)
        where, held = folder, held + file.size
    if waiting:
        yield waiting


def read_group(group: list[LocalFile]) -> tuple[bytes | None, StoredObject, list[StoredFile]]:
    """The object's content (None: it is a file too large for the memory), and what is in it."""
    if len(group) == 1 and group[0].size > CHUNK:
        file = group[0]
        with _readable(file), open(file.source, "rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        stored = StoredFile(path=file.path, size=file.size, sha256=digest, object=0, offset=0)
        return None, StoredObject(sha256=digest, size=file.size), [stored]
    pieces, members, offset = [], [], 0
    for file in group:
        with _readable(file):
            data = file.source.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        members.append(
            StoredFile(path=file.path, size=len(data), sha256=digest, object=0, offset=offset)
        )
        pieces.append(data)
        offset += len(data)
    whole = b"".join(pieces)
    return whole, StoredObject(sha256=hashlib.sha256(whole).hexdigest(), size=offset), members


def unchanged(file: LocalFile, stored: StoredObject) -> None:
    """A file that was read twice, for its hash and to upload it, was the same both times."""
    with _readable(file), open(file.source, "rb") as handle:
        same = hashlib.file_digest(handle, "sha256").hexdigest() == stored.sha256
    if not same:
        raise UserError(f"{file.source} changed while it was published; publish it again.")


@contextmanager
def _readable(file: LocalFile) -> Iterator[None]:
    """Say in a sentence what keeps a file from being read."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Cannot read {file.source}: {error.strerror}; see that nothing else writes there and "
            "publish it again."
        ) from error
