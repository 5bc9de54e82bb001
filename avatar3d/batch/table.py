"""Who is to become an avatar: rows of a table, or just videos."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avatar3d.errors import UserError

__all__ = ["Row", "read_rows"]

_NAME = re.compile(r"[^\W_][\w.-]{0,99}")
_MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class Row:
    """One person of a library.

    Attributes:
        name: of the row, its folder and its files; unique in the library.
        video: path of the clip, absolute.
        consent: path of a statement of consent, absolute, or a note, or None.
        overrides: settings as key=value; see `batch.settings`.
    """

    name: str
    video: str
    consent: str | None = None
    overrides: tuple[str, ...] = ()


def read_rows(sources: Sequence[str | Path], overrides: Sequence[str] = ()) -> list[Row]:
    """Rows from videos, and from tables (.csv) of them.

    A table has the columns video and, if wanted, name (default the video's), consent and any
    setting as in `training.iterations`, which go before `overrides`. Paths are relative to it.

    Raises:
        UserError: no rows, no column video, a name twice, or a video that is not there.
    """
    rows: list[Row] = []
    for source in map(Path, sources):
        if source.suffix.lower() == ".csv":
            rows += _table(source, tuple(overrides))
        else:
            rows.append(Row(source.stem, str(source.absolute()), None, tuple(overrides)))
    if not rows:
        raise UserError("Name the videos, or a table (.csv) of them, that are to become avatars.")
    seen: dict[str, Row] = {}
    for row in rows:
        if not _NAME.fullmatch(row.name):
            raise UserError(
                f"{row.name!r} ({row.video}) cannot be the name of an avatar; use letters, digits, "
                "dots and dashes, a letter or digit first, in a table's column `name`."
            )
        if (other := seen.setdefault(row.name.casefold(), row)) is not row:
            raise UserError(
                f"Two rows are named {row.name!r} ({other.video} and {row.video}); give them "
                "different names in a table with the columns video and name."
            )
        if not Path(row.video).is_file():
            raise UserError(f"There is no video {row.video} (row {row.name!r}); correct its path.")
    return rows


def _table(path: Path, overrides: tuple[str, ...]) -> list[Row]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"The table {path} is too large; split it.")
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"Cannot read the table {path} ({error}); write it as CSV in UTF-8."
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [line for line in reader if any(cell.strip() for cell in line)]
    except csv.Error as error:
        raise UserError(f"Line {reader.line_num} of {path} is not CSV: {error}.") from error
    columns = [name.strip() for name in lines[0]] if lines else []
    if "video" not in columns:
        raise UserError(
            f"The table {path} has no column `video` (it has {', '.join(columns) or 'none'}); name "
            "its columns in the first line: video, name, consent, and any settings."
        )
    if len(set(columns)) < len(columns) or "" in columns:
        raise UserError(f"The table {path} has a column twice or without a name; name each once.")
    return [_row(path, columns, line, overrides) for line in lines[1:]]


def _row(path: Path, columns: list[str], line: list[str], overrides: tuple[str, ...]) -> Row:
    if len(line) > len(columns):
        raise UserError(
            f"The row {','.join(line)!r} of {path} has more cells than the table has columns; "
            "put text with commas in quotes."
        )
    cells = {name: cell.strip() for name, cell in zip(columns, line, strict=False) if cell.strip()}
    video = cells.pop("video", "")
    if not video:
        raise UserError(f"The row {','.join(line)!r} of {path} names no video; fill its column.")
    folder = path.absolute().parent
    name = cells.pop("name", None) or Path(video).stem
    consent = cells.pop("consent", None)
    if consent is not None and (folder / consent).is_file():
        consent = str(folder / consent)
    own = tuple(f"{key}={value}" for key, value in cells.items())
    return Row(name, str(folder / video), consent, own + overrides)
