"""What is in a storage, and the removal of objects that nothing there refers to any more.

An object may not be removed while a publisher has just found it and is about to name it in its
manifest. So a sweep only lists what is unused as condemned; publishers upload condemned objects
again; and a later sweep removes what is still unused and as old as before. A publisher has to be
done within the time between the two.
"""

import json
import time
from collections.abc import Iterator
from typing import NamedTuple

from avatar3d.errors import UserError
from avatar3d.io.storage_manifest import (
    CONDEMNED,
    OBJECTS,
    SUFFIX,
    Manifest,
    condemned_objects,
    object_key,
    read_manifest,
)
from avatar3d.io.storage_remote import Entry, Remote
from avatar3d.io.storage_transfer import in_parallel

__all__ = ["DAY", "Swept", "list_published", "sweep"]

DAY = 86_400.0  # seconds


class Swept(NamedTuple):
    """What a sweep did: objects and bytes removed now, and objects condemned for a later one."""

    removed: int
    freed: int
    condemned: int


def list_published(url: str) -> Iterator[tuple[str, Manifest]]:
    """Names below `url`, and what they consist of.

    Raises:
        UserError: the storage fails, or something in it is not one of our manifests.
    """
    remote = Remote(url)
    keys = sorted(_manifests(remote, ""))
    for key, manifest in zip(
        keys, in_parallel(lambda key: read_manifest(remote, key), keys), strict=True
    ):
        if manifest is not None:  # removed meanwhile
            yield key.removesuffix(SUFFIX), manifest


def sweep(root: str, grace: float = DAY) -> Swept:
    """Remove objects below a root that no manifest has named for a while.

    Args:
        root: as given to `publish`.
        grace: seconds in which every publisher is done. What is unused is removed by the first
            sweep that comes this much later; with 0 at once, for which nobody may be publishing.

    Raises:
        UserError: the storage fails, or a manifest cannot be read; then nothing is removed.
    """
    remote, now = Remote(root), time.time()
    stored = dict(_objects(remote))  # before the manifests: what comes later is not ours to judge
    used = {
        item.sha256
        for name, manifest in list_published(root)
        if manifest.up == name.count("/")
        for item in manifest.objects
    }
    unused = {
        key: entry
        for key, entry in stored.items()
        if entry.name not in used
        and entry.modified is not None
        and (grace <= 0 or now - entry.modified > grace)
    }
    before = {} if grace <= 0 else condemned_objects(remote)
    doomed = {
        key: entry
        for key, entry in unused.items()
        if grace <= 0 or _is_partial(entry) or now - before.get(entry.name, now) > grace
    }
    waiting = {
        entry.name: before.get(entry.name, now)
        for key, entry in unused.items()
        if key not in doomed
    }
    in_parallel(remote.delete, doomed)
    # Afterwards: until then publishers take what is being removed for condemned.
    if waiting or before:
        remote.write(CONDEMNED, json.dumps(waiting).encode())
    return Swept(len(doomed), sum(entry.size for entry in doomed.values()), len(waiting))


def _manifests(remote: Remote, folder: str) -> Iterator[str]:
    for entry in remote.entries(folder):
        key = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_folder:
            if entry.name != OBJECTS:
                yield from _manifests(remote, key)
        elif entry.name.endswith(SUFFIX) and not _is_partial(entry):
            yield key


def _objects(remote: Remote) -> Iterator[tuple[str, Entry]]:
    for shard in remote.entries(f"{OBJECTS}/sha256"):
        for entry in remote.entries(f"{OBJECTS}/sha256/{shard.name}"):
            key = f"{OBJECTS}/sha256/{shard.name}/{entry.name}"
            if _is_partial(entry) or key == object_key(entry.name):
                yield key, entry
            else:
                raise UserError(
                    f"{remote.shown(key)} is no object of avatar3d; nothing was removed, move it."
                )


def _is_partial(entry: Entry) -> bool:
    """Half-written, by a process that was killed; object stores have no such things."""
    return entry.name.startswith(".partial-")
