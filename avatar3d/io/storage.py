"""Files and folders in shared storage: on S3-compatible stores, network disks and others.

Below a root, such as s3://bucket/library, there are

    objects/sha256/ab/abcd...   contents, each under its own hash and therefore stored once
    NAME.manifest.json          what NAME consists of

A publisher uploads the objects that are not there yet and then, in one step, the manifest: readers
see the old NAME or the new one, whole, and an interrupted upload leaves nothing visible. Of several
publishers the last manifest wins. `avatar3d.io.storage_sweep` removes objects that no manifest
names. Small files of one folder share an object, because stores charge and wait by the object.

Credentials are those of the storage's own library (for S3 AWS_PROFILE, AWS_ACCESS_KEY_ID, roles;
AWS_ENDPOINT_URL for a store that is not Amazon's); URLs that hold any are refused.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_folder, atomic_path
from avatar3d.io.cache import cache_folder
from avatar3d.io.locks import file_lock
from avatar3d.io.storage_files import LocalFile, grouped, read_group, scan, unchanged
from avatar3d.io.storage_manifest import (
    OBJECTS,
    SUFFIX,
    Manifest,
    StoredFile,
    StoredObject,
    UnreadableManifest,
    condemned_objects,
    object_key,
    read_manifest,
    safe_name,
)
from avatar3d.io.storage_remote import Remote, is_url, shown
from avatar3d.io.storage_transfer import download, in_parallel
from avatar3d.progress import say

__all__ = [
    "fetch", "is_url", "local_copy", "publish", "published", "read_object", "remove", "shown",
    "write_object",
]  # fmt: skip

_MAX_FETCHED = 1 << 40  # bytes of one item


def publish(
    source: str | os.PathLike[str], url: str, root: str | None = None, rewrite: bool = False
) -> Manifest:
    """Make a local file or folder visible at `url`, as a whole and in one step.

    What is there already, by content, is not uploaded again, and what another publisher needs is
    never removed. Half-written files of our own (`.partial-...`) are left out.

    Args:
        source: file or folder without links.
        url: its name in the storage, such as s3://bucket/library/anna.subject.
        root: URL whose objects are shared, above or at the parent of `url` (which is the default).
        rewrite: upload everything anew, to mend objects that were damaged.

    Raises:
        UserError: the source cannot be read, changes meanwhile, or the storage fails.
    """
    source = Path(source)
    up, base, name = _placed(url, root)
    remote = Remote(base)
    files = list(scan(source))
    old: Manifest | None = None
    with suppress(UnreadableManifest):  # which is replaced
        old = read_manifest(remote, f"{name}{SUFFIX}")
    condemned = set() if rewrite else set(condemned_objects(remote))
    sure: set[str] = set()
    if old is not None and old.up == up and not rewrite:
        sure = {stored.sha256 for stored in old.objects} - condemned
    sent: list[int] = []

    def upload(group: list[LocalFile]) -> tuple[StoredObject, list[StoredFile]]:
        data, stored, members = read_group(group)
        key = object_key(stored.sha256)
        trusted = stored.sha256 in sure or (
            not rewrite and stored.sha256 not in condemned and remote.size(key) == stored.size
        )
        if not trusted:
            sent.append(stored.size)
            if data is None:
                remote.write_file(key, group[0].source)
            else:
                remote.write(key, data)
        if data is None:
            unchanged(group[0], stored)
        return stored, members

    groups = in_parallel(upload, grouped(files))
    manifest = _assembled("folder" if source.is_dir() else "file", up, groups)
    if old != manifest:
        remote.write(f"{name}{SUFFIX}", manifest.model_dump_json().encode())
    say(
        f"Published {shown(url)}: {len(files)} files, {manifest.size / 1e6:.1f} MB, of which "
        f"{sum(sent) / 1e6:.1f} MB in {len(sent)} objects were new."
    )
    return manifest


def fetch(
    url: str,
    local: str | os.PathLike[str],
    max_bytes: int = _MAX_FETCHED,
    replace: bool = False,
) -> Path:
    """Write what is published at `url` to the file or folder `local`, verified and in one step.

    A single object that was put there by other means is fetched, too, without a hash to verify.

    Args:
        url: as given to `publish`, or of any object.
        local: where to; a folder that is there must be empty unless `replace`.
        max_bytes: refuse anything larger, before it is downloaded.
        replace: replace a folder that is there.

    Raises:
        UserError: nothing is there, it is too large, damaged, or the storage or the disk fails.
    """
    remote, local = Remote(url), Path(local)
    manifest = published(url)
    if manifest is None:
        return _fetch_object(remote, local, max_bytes)
    if manifest.size > max_bytes:
        raise UserError(
            f"{remote.name} has {manifest.size / 1e6:.0f} MB, more than the {max_bytes / 1e6:.0f} "
            "MB allowed; check the URL."
        )
    objects = Remote(_ancestor(url, manifest.up))
    if manifest.kind == "file":
        with atomic_path(local) as temporary:
            download(objects, manifest, lambda _: temporary)
        return local
    if local.exists() and not replace and (not local.is_dir() or any(local.iterdir())):
        raise UserError(f"{local} exists already; give another place to fetch {remote.name} to.")
    if local.is_dir() and not replace:
        local.rmdir()
    with atomic_folder(local) as folder:
        for parent in {(folder / file.path).parent for file in manifest.files}:
            parent.mkdir(parents=True, exist_ok=True)
        download(objects, manifest, lambda path: folder / path)
    return local


def local_copy(source: str) -> Path:
    """The local path of a URL's content, downloaded unless this version of it is cached.

    Text that is no URL is a path already. The copy has the URL's own name, is shared by all
    processes of this machine, and is not to be changed.
    """
    if not is_url(source):
        return Path(source)
    remote = Remote(source)
    manifest = published(source)
    version = manifest.model_dump_json() if manifest else remote.stamp("")
    if version is None:
        raise _nothing(remote)
    name = remote.name.rpartition("/")[2]
    if not safe_name(name):
        raise UserError(f"{remote.name} does not end in the name of a file or folder; correct it.")
    digest = hashlib.sha256(f"{remote.url}\n{version}".encode()).hexdigest()[:24]
    path = cache_folder() / "storage" / digest / name
    with file_lock(path):
        if not path.exists() or version == "":
            say(f"Fetching {remote.name}.")
            fetch(source, path)
    return path


def published(url: str) -> Manifest | None:
    """What is published at `url`, or None.

    Raises:
        UserError: the storage fails, or the manifest is not one of ours.
    """
    parent, name = _split(url)
    if url.startswith(("http://", "https://")):  # read as single files, whatever lies beside them
        return None
    return read_manifest(Remote(parent), f"{name}{SUFFIX}")


def remove(url: str) -> bool:
    """Make what is published at `url` invisible; False where nothing was.

    Its objects stay, because others may use them, until a sweep finds that none does.
    """
    parent, name = _split(url)
    return Remote(parent).delete(f"{name}{SUFFIX}")


def read_object(url: str, max_bytes: int = 1 << 30) -> bytes | None:
    """The content of one object, such as an index that is not published as a file, or None."""
    return Remote(url).read("", max_bytes)


def write_object(url: str, data: bytes) -> None:
    """Write one object, in one step."""
    Remote(url).write("", data)


def _split(url: str) -> tuple[str, str]:
    """Parent and last part of a URL."""
    parent, _, name = url.rstrip("/").rpartition("/")
    if not is_url(parent) or not safe_name(shown(url).rstrip("/").rpartition("/")[2]):
        raise UserError(
            f"{shown(url)} names nothing inside a place; write s3://bucket/folder/NAME."
        )
    return parent, name


def _placed(url: str, root: str | None) -> tuple[int, str, str]:
    """Folders between the root and the item, the root's URL, and the item's key below it."""
    parent, name = _split(url)
    base = (root or parent).rstrip("/")
    if parent != base and not parent.startswith(f"{base}/"):
        raise UserError(f"{shown(url)} is not inside {shown(base)}; correct either.")
    key = f"{parent}/{name}".removeprefix(f"{base}/")
    parts = key.split("/")
    if parts[0] == OBJECTS or not all(map(safe_name, parts)) or len(parts) > 16:
        raise UserError(f"{shown(url)} is not a name that can be published; choose another.")
    return len(parts) - 1, base, key


def _ancestor(url: str, up: int) -> str:
    place = _split(url)[0]
    for _ in range(up):
        place = place.rpartition("/")[0]
        if not is_url(place) or place.endswith("//"):
            raise UserError(
                f"{shown(url)} refers to a place outside its storage; publish it again."
            )
    return place


def _assembled(kind: str, up: int, groups: list[tuple[StoredObject, list[StoredFile]]]) -> Manifest:
    objects: dict[StoredObject, int] = {}
    files = []
    for stored, members in groups:
        number = objects.setdefault(stored, len(objects))
        files += [member.model_copy(update={"object": number}) for member in members]
    return Manifest.model_validate(
        {"kind": kind, "up": up, "objects": list(objects), "files": files}
    )


def _fetch_object(remote: Remote, local: Path, max_bytes: int) -> Path:
    pieces = remote.stream("", max_bytes)
    if pieces is None:
        raise _nothing(remote)
    with atomic_path(local) as temporary, open(temporary, "wb") as handle:
        for piece in pieces:
            handle.write(piece)
    return local


def _nothing(remote: Remote) -> UserError:
    return UserError(
        f"Nothing is published at {remote.name}; `avatar3d storage list` shows what is in a place."
    )
