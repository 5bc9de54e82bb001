"""A library in shared storage: made in a local folder, and published row by row.

Below its URL, `NAME/NAME.subject` and the other results of a row are published items
(`io/storage.py`), and `NAME/row.json`, written after them, says what they were made of. The index
and the gallery are made of the rows that are known when they are written.
"""

import hashlib
import json
from collections.abc import Sequence

from avatar3d.batch.library import Library
from avatar3d.batch.record import Record, read_record, row_key, write_record
from avatar3d.batch.run import BatchOptions, make_library
from avatar3d.batch.table import Row
from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_write
from avatar3d.io.cache import cache_folder
from avatar3d.io.storage import fetch, publish, read_object, shown, write_object
from avatar3d.io.storage_manifest import OBJECTS, SUFFIX, safe_name
from avatar3d.io.storage_remote import Remote
from avatar3d.io.storage_transfer import in_parallel
from avatar3d.progress import say

__all__ = ["SharedLibrary", "make_shared_library"]

_MAX_ROW = 4 << 20
_MAX_INDEX = 1 << 30
_PICTURE = "thumbnail.png"
_MAX_PICTURE = 16 << 20


class SharedLibrary:
    """What a batch published below a URL.

    Attributes:
        url: of the library.
        local: where its rows are made, below the cache; machines of a cluster must all see it.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.local = cache_folder() / "batch" / digest

    def records(self) -> list[Record]:
        """The rows of the published index, by name.

        Raises:
            UserError: the storage fails, or the index is not one of ours.
        """
        data = read_object(f"{self.url}/library.json", _MAX_INDEX)
        try:
            rows = json.loads(data)["rows"] if data else []
            return [_harmless(Record.model_validate(row)) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{shown(self.url)}/library.json is not the index of a library; choose another "
                "place."
            ) from error

    def record(self, name: str) -> Record | None:
        """What `NAME/row.json` says; None where it is not there or cannot be read."""
        data = read_object(f"{self.url}/{name}/row.json", _MAX_ROW)
        try:
            record = _harmless(Record.model_validate_json(data)) if data else None
        except ValueError:
            return None
        return record if record is not None and record.name == name else None

    def is_published(self, row: Row) -> bool:
        """Whether this very row is there, with all its files."""
        record, remote = self.record(row.name), Remote(self.url)
        return (
            record is not None
            and (record.status, record.key) == ("done", row_key(row))
            and all(remote.size(f"{item}{SUFFIX}") is not None for item in _items(record))
        )

    def publish(self, record: Record) -> None:
        """Publish what the local folder has of a row, its `row.json` last."""
        if record.status == "done":
            for item in _items(record):
                publish(self.local / item, f"{self.url}/{item}", self.url)
            picture = self.local / record.name / _PICTURE
            write_object(f"{self.url}/{record.name}/{_PICTURE}", picture.read_bytes())
        write_object(f"{self.url}/{record.name}/row.json", record.model_dump_json().encode())

    def bring(self, name: str) -> None:
        """Fetch a row that another machine made, so that only what changed is made again."""
        folder = self.local / name
        record = None if read_record(folder) else self.record(name)
        if record is None or record.status != "done":
            return
        remote = Remote(self.url)
        for item in _items(record):
            if remote.size(f"{item}{SUFFIX}") is not None:
                fetch(f"{self.url}/{item}", self.local / item, replace=True)
        self._bring_picture(name)
        write_record(folder, record)

    def write_index(self, changed: Sequence[Record] = ()) -> None:
        """Write the index anew, with rows that others added to it meanwhile."""
        rows = {record.name: record for record in [*self.records(), *changed]}
        records = [rows[name] for name in sorted(rows)]
        for record in records:
            if record.status == "done" and not (self.local / record.name / _PICTURE).is_file():
                self._bring_picture(record.name)
        Library(self.local).write_index(records, linked=False)
        for name in ("index.html", "library.csv", "library.parquet", "library.json"):
            if (self.local / name).is_file():
                write_object(f"{self.url}/{name}", (self.local / name).read_bytes())

    def _bring_picture(self, name: str) -> None:
        data = read_object(f"{self.url}/{name}/{_PICTURE}", _MAX_PICTURE)
        if data:
            atomic_write(self.local / name / _PICTURE, data)


def make_shared_library(
    rows: Sequence[Row], url: str, options: BatchOptions | None = None
) -> list[Record]:
    """`make_library` for a URL: each row is published when it is finished, and is then skipped.

    Raises:
        UserError: as `make_library`, or the storage cannot be read or written. A row that cannot
            be published stops no other: it is tried again at the end, and what is still refused
            then stays in the local folder, where the same call goes on.
    """
    shared = SharedLibrary(url)
    for row in rows:
        if row.name == OBJECTS or not safe_name(row.name):
            raise UserError(f"A row in shared storage cannot be named {row.name!r}; rename it.")
    shared.records()  # one question, before many, of a storage that may not answer
    there = in_parallel(shared.is_published, rows)
    waiting = [row for row, is_there in zip(rows, there, strict=True) if not is_there]
    say(f"{len(rows) - len(waiting)} of {len(rows)} rows are published in {shown(url)}.")
    if waiting:
        shared.write_index()  # also shows, before hours of work, that it can be written
        for row in waiting:
            shared.bring(row.name)
        _make_and_publish(shared, waiting, options)
    known = {record.name: record for record in shared.records()}
    return [known[row.name] for row in rows if row.name in known]


def _make_and_publish(
    shared: SharedLibrary, rows: Sequence[Row], options: BatchOptions | None
) -> None:
    """Make what is not made yet of these rows, and publish each as soon as it is there."""
    published: list[Record] = []
    refused: list[tuple[Record, UserError]] = []

    def publish_now(record: Record) -> None:
        try:
            shared.publish(record)
            published.append(record)
        except UserError as error:
            refused.append((record, error))
            say(f"{record.name} is not published yet: {error}")

    outdated = Library(shared.local).outdated(rows)
    for row in rows:
        record = None if row in outdated else read_record(shared.local / row.name)
        if record is not None:
            publish_now(record)
    try:
        if outdated:
            make_library(outdated, shared.local, options, publish_now)
        again = [record for record, _ in refused]
        refused.clear()
        for record in again:
            publish_now(record)
    finally:
        if published:
            shared.write_index(published)
    if refused:
        names = ", ".join(record.name for record, _ in refused)
        raise UserError(
            f"{len(refused)} of {len(rows)} rows are made but not published ({names}): "
            f"{refused[0][1]} The same command then publishes them."
        )


def _items(record: Record) -> list[str]:
    """What of a row is published, relative to the library."""
    name = record.name
    return [f"{name}/{name}.subject", f"{name}/{name}.evaluation", *map(_posix, record.files)]


def _posix(path: str) -> str:
    return path.replace("\\", "/")


def _harmless(record: Record) -> Record:
    """The record, if it names nothing outside its row's folder.

    Raises:
        ValueError: it does.
    """
    for item in _items(record):
        parts = item.split("/")
        if len(parts) != 2 or parts[0] != record.name or not all(map(safe_name, parts)):
            raise ValueError(f"{item!r} is not inside the row's folder")
    return record
