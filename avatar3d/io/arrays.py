"""Several arrays in one .npz file."""

import io
import os
from collections.abc import Mapping

import numpy as np

from avatar3d.io.atomic import atomic_write

__all__ = ["write_arrays"]


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
