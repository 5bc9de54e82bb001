"""What a library knows of a row: `NAME/row.json`, written by the job that made it."""

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from avatar3d.batch.table import Row
from avatar3d.io.atomic import atomic_write

__all__ = ["STAGES", "VERSION", "Record", "StageRecord", "read_record", "row_key", "write_record"]

_MAX_BYTES = 4 << 20
STAGES = ("start", "capture", "train", "evaluate", "export")
"""The first is what a job spends outside the others: its process starts and loads libraries."""
VERSION = 1
"""Raised when a stage would make something else of the same input; capture has its own."""


class StageRecord(BaseModel):
    """A finished stage: the hash of what it depended on, and what it cost."""

    model_config = ConfigDict(extra="forbid")

    key: str
    seconds: float
    cpu_seconds: float
    peak_memory: int
    """Bytes that were resident at most."""
    bytes: int
    """What it left in the library."""


class Record(BaseModel):
    """State of a row. `key` is of everything it was made of, see `row_key`."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    name: str
    video: str
    consent: str | None = None
    overrides: list[str] = []
    key: str = ""
    status: Literal["waiting", "done", "failed"] = "waiting"
    stage: str = ""
    """Where it failed."""
    sentence: str = ""
    """Why it failed."""
    stages: dict[str, StageRecord] = {}
    scores: dict[str, float] = {}
    files: list[str] = []
    """What there is to hand over, relative to the library."""
    cores: int = 1

    @property
    def row(self) -> Row:
        return Row(self.name, self.video, self.consent, tuple(self.overrides))


def read_record(folder: Path) -> Record | None:
    """The record of a row's folder; None where there is none that can be read."""
    path = folder / "row.json"
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        return Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_record(folder: Path, record: Record) -> None:
    atomic_write(folder / "row.json", record.model_dump_json(indent=1) + "\n")


def row_key(row: Row) -> str:
    """Hash of what a row asks for: settings, and path, size and time of its files."""
    files = []
    for path in (row.video, row.consent):
        try:
            status = Path(path).stat() if path else None
        except (OSError, ValueError):  # a note, not a file
            status = None
        files.append([path, status and [status.st_size, status.st_mtime_ns]])
    material = json.dumps([VERSION, row.name, files, sorted(enumerate(row.overrides))])
    return hashlib.sha256(material.encode()).hexdigest()[:16]
