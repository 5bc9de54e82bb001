"""Downloads that are verified, and transfers a few at a time."""

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from avatar3d.errors import UserError
from avatar3d.io.storage_manifest import Manifest, StoredFile, object_key
from avatar3d.io.storage_remote import CHUNK, Remote

__all__ = ["download", "in_parallel"]

S = TypeVar("S")
T = TypeVar("T")

_AT_ONCE = 4  # transfers, each of which holds a few times CHUNK bytes


def download(remote: Remote, manifest: Manifest, place: Callable[[str], Path]) -> None:
    """Write the files of a manifest to their places, each verified."""
    members: list[list[StoredFile]] = [[] for _ in manifest.objects]
    for file in manifest.files:
        members[file.object].append(file)

    def get(number: int) -> None:
        stored = manifest.objects[number]
        key = object_key(stored.sha256)
        if stored.size <= CHUNK:
            data = b"".join(remote.chunks(key, stored.size))
            for file in members[number]:
                part = memoryview(data)[file.offset : file.offset + file.size]
                _verify(remote, key, file, hashlib.sha256(part).hexdigest())
                place(file.path).write_bytes(part)
            return
        for file in members[number]:
            if (file.offset, file.size) != (0, stored.size):
                raise UserError(f"{remote.shown(key)} is laid out in an unknown way.")
            digest = hashlib.sha256()
            with open(place(file.path), "wb") as handle:
                for chunk in remote.chunks(key, stored.size):
                    digest.update(chunk)
                    handle.write(chunk)
            _verify(remote, key, file, digest.hexdigest())

    in_parallel(get, (number for number, files in enumerate(members) if files))


def in_parallel(work: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """`work` for all items, a few at a time, in their order; the first failure ends it."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="storage") as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _verify(remote: Remote, key: str, file: StoredFile, digest: str) -> None:
    if digest != file.sha256:
        raise UserError(
            f"{file.path} came damaged from {remote.shown(key)}; publish it again with --rewrite."
        )
