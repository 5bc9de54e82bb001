"""Gaussians as PLY in the layout of the reference 3D Gaussian Splatting code.

Source: https://github.com/graphdeco-inria/gaussian-splatting (`GaussianModel.save_ply`): binary
little endian, one float32 each of x y z nx ny nz f_dc_0..2 opacity scale_0..2 rot_0..3, where
opacity is a logit, scale a logarithm, rot a quaternion wxyz and f_dc = (rgb - 0.5) / SH_C0.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_write

__all__ = ["GaussianCloud", "decode_ply", "encode_ply", "read_ply", "write_ply"]

SH_C0 = 0.28209479177387814
MAX_GAUSSIANS = 10_000_000
MAX_BYTES = 4 << 30
_MAX_HEADER = 64 * 1024
_MAX_PROPERTIES = 256
_COLUMNS = {
    "means": ("x", "y", "z"),
    "normals": ("nx", "ny", "nz"),
    "colors": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacity": ("opacity",),
    "log_scales": ("scale_0", "scale_1", "scale_2"),
    "quats": ("rot_0", "rot_1", "rot_2", "rot_3"),
}
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2",
    "ushort": "<u2", "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4",
    "uint32": "<u4", "float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8",
}  # fmt: skip


@dataclass(frozen=True)
class GaussianCloud:
    """N Gaussians at rest, float32.

    Attributes:
        means: (N, 3) metres.
        quats: (N, 4) wxyz, unit length.
        log_scales: (N, 3) logarithm of metres.
        opacity: (N,) logit.
        colors: (N, 3) sRGB, view independent.
    """

    means: np.ndarray
    quats: np.ndarray
    log_scales: np.ndarray
    opacity: np.ndarray
    colors: np.ndarray

    def __len__(self) -> int:
        return len(self.means)


def write_ply(
    path: str | os.PathLike[str], cloud: GaussianCloud, comments: Sequence[str] = ()
) -> None:
    """Write `cloud` in one step; see `encode_ply`."""
    atomic_write(path, encode_ply(cloud, comments))


def read_ply(path: str | os.PathLike[str]) -> GaussianCloud:
    """Read a Gaussian PLY written by us or by any tool that follows the reference layout.

    Raises:
        UserError: missing, damaged, too large or another kind of PLY.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} is too large for a Gaussian PLY; reduce it in a splat editor.")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"Cannot read {path}: {error.strerror or error}; check the path and its permissions."
        ) from error
    return decode_ply(data, str(path))


def encode_ply(cloud: GaussianCloud, comments: Sequence[str] = ()) -> bytes:
    """`cloud` as the bytes of a PLY file.

    Args:
        cloud: N Gaussians.
        comments: one-line remarks for the header, e.g. which way is up.
    """
    names = [name for group in _COLUMNS.values() for name in group]
    table = np.zeros((len(cloud), len(names)), "<f4")
    columns = {
        "means": cloud.means,
        "colors": (cloud.colors - 0.5) / SH_C0,
        "opacity": cloud.opacity[:, None],
        "log_scales": cloud.log_scales,
        "quats": cloud.quats / np.linalg.norm(cloud.quats, axis=1, keepdims=True).clip(1e-12),
    }
    for group, values in columns.items():
        start = names.index(_COLUMNS[group][0])
        table[:, start : start + values.shape[1]] = values
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {' '.join(text.split())}" for text in comments]
    lines += [f"element vertex {len(cloud)}", *(f"property float {name}" for name in names)]
    header = "\n".join([*lines, "end_header", ""])
    return header.encode("ascii", "replace") + table.tobytes()


def decode_ply(data: bytes, name: str = "PLY data") -> GaussianCloud:
    """Inverse of `encode_ply`; properties may come in any order and unknown ones are skipped.

    Args:
        data: the whole file.
        name: what to call it in an error.

    Raises:
        UserError: damaged, or not a binary little-endian Gaussian PLY.
    """
    count, row, start = _parse_header(data, name)
    missing = [
        column
        for group, columns in _COLUMNS.items()
        for column in columns
        if group != "normals" and column not in (row.names or ())
    ]
    if missing:
        raise UserError(
            f"{name} is not a Gaussian PLY: it lacks the property {missing[0]}; export it as "
            "uncompressed 3DGS PLY."
        )
    if len(data) - start < count * row.itemsize:
        raise UserError(
            f"{name} is cut short: {count} Gaussians promised, room for "
            f"{(len(data) - start) // row.itemsize}; copy the file again."
        )
    table = np.frombuffer(data, row, count, start)

    def group(key: str) -> np.ndarray:
        return np.stack([table[column].astype(np.float32) for column in _COLUMNS[key]], axis=1)

    quats = group("quats")
    cloud = GaussianCloud(
        means=group("means"),
        quats=quats / np.linalg.norm(quats, axis=1, keepdims=True).clip(1e-12),
        log_scales=group("log_scales"),
        opacity=group("opacity")[:, 0],
        colors=group("colors") * np.float32(SH_C0) + np.float32(0.5),
    )
    for field in fields(cloud):
        if not np.isfinite(getattr(cloud, field.name)).all():
            raise UserError(
                f"{name} is damaged: {field.name} has non-finite values; export it again."
            )
    return cloud


def _parse_header(data: bytes, name: str) -> tuple[int, np.dtype, int]:
    """Number of vertices, dtype of one of them and the offset of the first."""
    head = data[:_MAX_HEADER]
    end = head.find(b"end_header")
    newline = head.find(b"\n", end)
    if not head.startswith(b"ply") or end < 0 or newline < 0:
        raise UserError(f"{name} is not a PLY file; choose a 3DGS .ply.")
    lines = [line.split() for line in head[:end].decode("ascii", "replace").splitlines()]
    statements = [line for line in lines[1:] if line and line[0] not in ("comment", "obj_info")]
    if not statements or statements[0][:2] != ["format", "binary_little_endian"]:
        raise UserError(f"{name} is not a binary little-endian PLY; convert it to one.")
    try:
        element, *properties = statements[1:]
        keyword, kind, number = element
        if keyword != "element" or kind != "vertex":
            raise ValueError
        columns = []
        for statement in properties:
            if statement[0] == "element":
                break  # what follows the vertices does not concern us
            keyword, scalar, column = statement
            if keyword != "property":
                raise ValueError
            columns.append((column, _TYPES[scalar]))
        row = np.dtype(columns)
        count = int(number)
    except (KeyError, ValueError) as error:
        raise UserError(f"{name} has a damaged PLY header; export it again.") from error
    if not 0 <= count <= MAX_GAUSSIANS or not 0 < len(columns) <= _MAX_PROPERTIES:
        raise UserError(f"{name} declares {count} Gaussians; at most {MAX_GAUSSIANS} are read.")
    return count, row, newline + 1
