"""The only way a final file or folder appears on disk."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from avatar3d.errors import UserError

__all__ = ["atomic_folder", "atomic_path", "atomic_write", "sweep_temporaries"]

_MARK = ".partial-"


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it is fsynced and renamed over `target`.

    The temporary keeps the suffix of `target`, because many writers choose a format by it. If the
    body raises, `target` is untouched and the temporary is removed.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    target = Path(target)
    temporary = target.with_name(f"{_MARK}{secrets.token_hex(4)}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        # An unreadable *source* inside the body is not ours to explain.
        if error.filename and Path(error.filename) not in (temporary, target, target.parent):
            raise
        raise _unwritable(target, error) from error
    finally:
        with suppress(OSError):  # e.g. the parent is a file; the error above says more
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder; on success it replaces the folder `target` as a whole.

    Raises:
        UserError: it cannot be written or the disk is full.
    """
    target = Path(target)
    temporary = target.with_name(f"{_MARK}{secrets.token_hex(4)}-{target.name}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            old = target.with_name(f"{_MARK}{secrets.token_hex(4)}-old-{target.name}")
            os.rename(target, old)
            os.rename(temporary, target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        place = Path(error.filename) if error.filename else temporary
        if place.is_relative_to(temporary) or temporary.is_relative_to(place) or place == target:
            raise _unwritable(target, error) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def atomic_write(target: str | os.PathLike[str], data: bytes | memoryview | str) -> None:
    """Write `data` to `target` in one step: afterwards the old or the new is there, whole."""
    payload = data.encode() if isinstance(data, str) else data
    with atomic_path(target) as temporary, open(temporary, "wb") as handle:
        handle.write(payload)


def sweep_temporaries(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what a killed process left half-written directly inside `folder`; return the list."""
    folder = Path(folder)
    swept = sorted(folder.glob(f"{_MARK}*")) if folder.is_dir() else []
    for path in swept:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return swept


def _unwritable(target: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return UserError(f"Cannot write {target}: {reason}; check free space and permissions.")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder for fsync; rename is durable enough there.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
