"""Several arrays in one .npz file."""

import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from math import prod
from tokenize import TokenError

import numpy as np

from avatar3d.io.atomic import atomic_write

__all__ = ["read_arrays", "write_arrays"]

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def write_arrays(
    target: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], compressed: bool = True
) -> None:
    """Write a .npz file in one step, from memory: on a full disk numpy leaves an open archive
    behind, which complains again when it is collected.

    Raises:
        UserError: the file cannot be written.
    """
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    atomic_write(target, buffer.getbuffer())


def read_arrays(path: str | os.PathLike[str], most_bytes: int) -> dict[str, np.ndarray]:
    """Arrays of numbers and text of a .npz file that need not be trusted.

    The sizes that the archive and every array's header state are compared with each other and with
    the limit before memory is taken.

    Args:
        path: the file.
        most_bytes: limit of all arrays together, unpacked.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not such a file, too large, or holds objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            if sum(entry.file_size for entry in entries) > most_bytes:
                raise ValueError(f"more than {most_bytes >> 20} MB unpacked")
            return {e.filename.removesuffix(".npy"): _array(archive, e) for e in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error)) from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:
            raise ValueError(f"{entry.filename} is of an unknown version")
        try:
            shape, fortran, kind = _HEADERS[version](member)
        except (SyntaxError, TokenError, TypeError) as error:
            raise ValueError(f"the header of {entry.filename} is broken") from error
        if kind.kind not in "biufU":
            raise ValueError(f"{entry.filename} holds neither numbers nor text")
        size = prod(shape) * kind.itemsize
        if member.tell() + size != entry.file_size:
            raise ValueError(f"{entry.filename} states another size than it has")
        data = member.read(size)
    if len(data) != size:
        raise ValueError(f"{entry.filename} is cut short")
    flat = np.frombuffer(data, kind, prod(shape))
    return flat.reshape(shape, order="F" if fortran else "C").copy()
