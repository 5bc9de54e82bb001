"""A folder of avatars: `library.json`, `.csv` and, with pyarrow, `.parquet`, and a gallery."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from avatar3d.batch.gallery import gallery_page
from avatar3d.batch.record import STAGES, Record, read_record, row_key
from avatar3d.batch.table import Row
from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_path, atomic_write

__all__ = ["Library"]


class Library:
    """What a batch made. Each row's own `NAME/row.json` is the truth; the index is made of them.

    Args:
        folder: of the library; need not exist.

    Raises:
        UserError: it is a file.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.is_file():
            raise UserError(f"{self.folder} is a file; give the name of a folder for the library.")

    def records(self) -> list[Record]:
        """All rows, by name."""
        found = (read_record(path.parent) for path in sorted(self.folder.glob("*/row.json")))
        return [record for record in found if record is not None]

    def outdated(self, rows: Sequence[Row]) -> list[Row]:
        """Those of `rows` that are new, failed, changed, or whose files are gone."""
        return [row for row in rows if not self._is_done(row)]

    def write_index(self, records: Iterable[Record] | None = None, linked: bool = True) -> None:
        """Write the index and the gallery anew; files that say the same already are left alone.

        `linked`: whether the gallery lies beside the rows' files and links to them.
        """
        records = self.records() if records is None else list(records)
        index = {"version": 1, "rows": [record.model_dump() for record in records]}
        text = json.dumps(index, indent=1) + "\n"
        path = self.folder / "library.json"
        if path.is_file() and path.read_text("utf-8") == text and self._page.is_file():
            return
        self._write_table([_flat(record) for record in records])
        atomic_write(self._page, gallery_page(self.folder, records, linked))
        atomic_write(path, text)

    @property
    def _page(self) -> Path:
        return self.folder / "index.html"

    def _is_done(self, row: Row) -> bool:
        record = read_record(self.folder / row.name)
        return (
            record is not None
            and (record.status, record.key) == ("done", row_key(row))
            and all((self.folder / file).exists() for file in record.files)
        )

    def _write_table(self, rows: list[dict[str, Any]]) -> None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        atomic_write(self.folder / "library.csv", text.getvalue())
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            return
        full = [{name: row.get(name) for name in columns} for row in rows]
        with atomic_path(self.folder / "library.parquet") as path:
            parquet.write_table(pyarrow.Table.from_pylist(full), path)


def _flat(record: Record) -> dict[str, Any]:
    return dict(_cells(record))


def _cells(record: Record) -> Iterator[tuple[str, Any]]:
    for name in ("name", "video", "consent", "status", "stage", "sentence", "cores", "key"):
        yield name, getattr(record, name)
    yield "overrides", " ".join(record.overrides)
    for name, score in sorted(record.scores.items()):
        yield name, score
    for stage in STAGES:
        cost = record.stages.get(stage)
        for name in ("seconds", "cpu_seconds", "peak_memory", "bytes"):
            yield f"{stage}_{name}", getattr(cost, name) if cost else None
