"""Remove a person from this machine: the subject, what capture kept, and on demand the avatars."""

import json
import shutil
import zipfile
from pathlib import Path

from avatar3d.errors import UserError
from avatar3d.subject.subject import Subject

__all__ = ["forget", "made_from", "traces"]

_MAX_MANIFEST = 1 << 24


def traces(folder: str | Path) -> list[Path]:
    """The subject's folder and what capture left beside it.

    Raises:
        UserError: `folder` is no subject, or a link.
    """
    folder = Path(folder).absolute()
    if folder.is_symlink():
        raise UserError(f"{folder} is a link; name the folder that it leads to.")
    if not (folder / "subject.json").is_file():
        raise UserError(f"{folder} is not a subject folder (no subject.json); name one.")
    stem = folder.name.removesuffix(".subject")
    beside = [folder.with_name(f".{folder.name}.capture"), folder.with_name(f"{stem}.preview.mp4")]
    partial = folder.parent.glob(f".partial-*-{folder.name}")
    return [folder, *(path for path in (*beside, *sorted(partial)) if path.exists())]


def made_from(folder: str | Path) -> list[Path]:
    """Avatar files beside the subject that were trained on it, with their runs and reports."""
    folder = Path(folder).absolute()
    source = Subject(folder).info.source_sha256
    found: list[Path] = []
    for path in sorted(folder.parent.glob("*.a3d")):
        if source in _sources(path):
            found.append(path)
            found += sorted(folder.parent.glob(f"{path.stem}.run*"))
            found += sorted(folder.parent.glob(f"{path.stem}.evaluation"))
    return found


def forget(paths: list[Path]) -> None:
    """Remove files and whole folders; links in them are removed, not followed.

    Raises:
        UserError: something cannot be removed; says what.
    """
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"Cannot remove {error.filename or path}: {error.strerror}; remove it by hand."
            ) from error


def _sources(path: Path) -> set[str]:
    """Hashes of the clips that an avatar file names; none of a file that cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("manifest.json") as member:
            info = json.loads(member.read(_MAX_MANIFEST))["info"]
        return {str(it.get("source_sha256")) for it in (info, *info.get("earlier", []))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
            RuntimeError, zipfile.BadZipFile):  # fmt: skip
        return set()
