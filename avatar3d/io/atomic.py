"""The only way a final file or folder appears on disk."""

import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from zlib import crc32

from avatar3d.errors import UserError

__all__ = [
    "atomic_folder", "atomic_path", "atomic_write", "partial_beside", "sweep_temporaries",
]  # fmt: skip

_MARK = ".partial-"
_NAME = re.compile(
    rf"{re.escape(_MARK)}([0-9a-f]{{8}})-([0-9]+)-(old)?[0-9a-f]{{8}}-(.+)", re.DOTALL
)
_swept: set[Path] = set()


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it is fsynced and renamed over `target`.

    The temporary keeps the suffix of `target`, because many writers choose a format by it. If the
    body raises, `target` is untouched and the temporary is removed.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    target = Path(target)
    temporary = partial_beside(target)
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
    temporary = partial_beside(target)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            old = partial_beside(target, replaced=True)
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


def partial_beside(target: Path, replaced: bool = False) -> Path:
    """A new name beside `target` for what is not complete yet, or is just being `replaced`.

    It says which process is writing: what killed processes of this machine left in the folder is
    removed, when a process first asks for a name there. What was to be replaced and was not gets
    its name back.
    """
    folder = target.parent.absolute()
    if folder not in _swept:
        _swept.add(folder)
        _sweep_dead(folder)
    number = ("old" if replaced else "") + secrets.token_hex(4)
    return target.with_name(f"{_MARK}{_machine():08x}-{os.getpid()}-{number}-{target.name}")


def _sweep_dead(folder: Path) -> None:
    if os.name == "nt":  # there is no asking after a process without touching it
        return
    with suppress(OSError):  # no such folder yet, or not ours to read: then nothing to sweep
        for name in os.listdir(folder):
            made = _NAME.match(name)
            if not made or int(made[1], 16) != _machine() or _lives(int(made[2])):
                continue
            if made[3] and not (folder / made[4]).exists():
                os.rename(folder / name, folder / made[4])
            else:
                _remove(folder / name)


@cache
def _machine() -> int:
    """Tells where a process number means the same process: the host, its start, the container."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return crc32("\n".join(parts).encode())


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's; no such number, so not of ours
        return True
    return True


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


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
