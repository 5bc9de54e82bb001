"""Gaussians as SPZ, the compact format of Niantic's scanner, version 3.

Source: https://github.com/nianticlabs/spz (`load-spz.cc`): a gzip stream of a 16-byte header, then
for all Gaussians in turn positions (24-bit fixed point), opacities, colours, logarithms of scales
(8 bits each) and rotations (32 bits: the three smallest of four). Axes are right, up, back.
"""

import gzip
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_write
from avatar3d.io.ply import MAX_GAUSSIANS, SH_C0, GaussianCloud

__all__ = ["decode_spz", "encode_spz", "read_spz", "write_spz"]

_MAGIC, _VERSION = 0x5053474E, 3
_HEADER = struct.Struct("<IIIBBBB")
_FRACTION = 16  # bits; 24-bit positions then reach 128 m in steps of 15 micrometres
_COLOR_SCALE = 0.15
_LARGEST_ROOT = np.sqrt(0.5)  # the second largest of four is never larger
_SH_COUNT = (0, 3, 8, 15)
_BYTES = 20  # of a Gaussian, without spherical harmonics


def write_spz(path: str | os.PathLike[str], cloud: GaussianCloud) -> None:
    """Write `cloud`, whose axes are right, up and back, in one step."""
    atomic_write(path, encode_spz(cloud))


def read_spz(path: str | os.PathLike[str]) -> GaussianCloud:
    """Read an SPZ file of version 2 or 3; spherical harmonics beyond the colour are dropped.

    Raises:
        UserError: missing, damaged, too large or of another version.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"Cannot read {path}: {error.strerror or error}; check the path and its permissions."
        ) from error
    return decode_spz(data, str(path))


def encode_spz(cloud: GaussianCloud, comment: str = "") -> bytes:
    """`cloud` as the bytes of an SPZ file.

    Args:
        cloud: Gaussians within 128 m of the origin.
        comment: one line of ASCII for the header of the gzip stream, which readers skip.
    """
    fixed = np.rint(cloud.means.astype(np.float64) * (1 << _FRACTION))
    fixed = fixed.clip(-(1 << 23), (1 << 23) - 1).astype("<i4")
    positions = fixed.reshape(-1, 1).view(np.uint8)[:, :3]
    colors = (cloud.colors - 0.5) / SH_C0 * _COLOR_SCALE + 0.5
    blocks = [
        positions,
        _bytes_of(255 / (1 + np.exp(-cloud.opacity.astype(np.float64)))),
        _bytes_of(colors * 255),
        _bytes_of((cloud.log_scales + 10) * 16),
        _packed_rotations(cloud.quats),
    ]
    header = _HEADER.pack(_MAGIC, _VERSION, len(cloud), 0, _FRACTION, 0, 0)
    body = header + b"".join(np.ascontiguousarray(block).tobytes() for block in blocks)
    packed = gzip.compress(body, 9, mtime=0)
    if not comment:
        return packed
    flag = 16  # RFC 1952: a comment, ended by a zero byte, follows the ten bytes of the header
    return (
        packed[:3]
        + bytes([packed[3] | flag])
        + packed[4:10]
        + comment.encode("ascii")
        + (b"\0" + packed[10:])
    )


def decode_spz(data: bytes, name: str = "SPZ data") -> GaussianCloud:
    """Inverse of `encode_spz` up to quantisation.

    Raises:
        UserError: damaged, too large or of another version.
    """
    unpacker = zlib.decompressobj(31)
    try:
        head = unpacker.decompress(data, _HEADER.size)
        magic, version, count, degree, fraction, _, _ = _HEADER.unpack(head)
    except (zlib.error, struct.error) as error:
        raise UserError(f"{name} is not an SPZ file; choose an .spz of version 2 or 3.") from error
    if magic != _MAGIC or version not in (2, 3) or degree >= len(_SH_COUNT) or fraction > 24:
        raise UserError(f"{name} is not an SPZ file of version 2 or 3; convert it to one.")
    if count > MAX_GAUSSIANS:
        raise UserError(f"{name} declares {count} Gaussians; at most {MAX_GAUSSIANS} are read.")
    rotation = 4 if version == 3 else 3
    size = count * (_BYTES - 4 + rotation)
    try:
        body = unpacker.decompress(unpacker.unconsumed_tail, size) if size else b""
    except zlib.error as error:
        raise UserError(f"{name} is damaged; copy the file again.") from error
    if len(body) < size:
        raise UserError(f"{name} is cut short: {count} Gaussians promised; copy the file again.")
    rows = np.frombuffer(body, np.uint8)
    ends = np.cumsum(np.array([9, 1, 3, 3, rotation]) * count)
    positions, opacity, colors, scales, quats = np.split(rows, ends[:-1])
    fixed = np.zeros((3 * count, 4), np.uint8)
    fixed[:, 1:] = positions.reshape(-1, 3)  # in the upper bytes, to keep the sign
    means = fixed.view("<i4")[:, 0].astype(np.float64) / (1 << (8 + fraction))
    alpha = (opacity.astype(np.float64) / 255).clip(0.5 / 255, 1 - 0.5 / 255)
    unpack = _unpacked_rotations if version == 3 else _old_rotations
    return GaussianCloud(
        means=means.reshape(-1, 3).astype(np.float32),
        quats=unpack(quats.reshape(count, rotation)).astype(np.float32),
        log_scales=(scales.reshape(-1, 3) / 16 - 10).astype(np.float32),
        opacity=np.log(alpha / (1 - alpha)).astype(np.float32),
        colors=((colors.reshape(-1, 3) / 255 - 0.5) / _COLOR_SCALE * SH_C0 + 0.5).astype(
            np.float32
        ),
    )


def _bytes_of(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _packed_rotations(wxyz: np.ndarray) -> np.ndarray:
    """(N,) uint32: index of the largest of x y z w, then sign and nine bits of each other one."""
    quats = wxyz[:, [1, 2, 3, 0]].astype(np.float64)
    quats /= np.linalg.norm(quats, axis=1, keepdims=True).clip(1e-12)
    largest = np.abs(quats).argmax(1)
    quats *= np.where(np.take_along_axis(quats, largest[:, None], 1) < 0, -1, 1)
    packed = largest.astype("<u4")
    for column in range(4):
        size = np.rint(511 * np.abs(quats[:, column]) / _LARGEST_ROOT).clip(0, 511)
        word = size.astype("<u4") | ((quats[:, column] < 0).astype("<u4") << 9)
        packed = np.where(largest == column, packed, (packed << 10) | word).astype("<u4")
    return packed


def _unpacked_rotations(rows: np.ndarray) -> np.ndarray:
    """(N, 4) wxyz from (N, 4) bytes."""
    packed = np.ascontiguousarray(rows).view("<u4")[:, 0].copy()
    largest = packed >> 30
    quats = np.zeros((len(packed), 4))
    for column in (3, 2, 1, 0):
        other = largest != column
        value = (packed & 511) / 511 * _LARGEST_ROOT * np.where(packed & 512, -1, 1)
        quats[:, column] = np.where(other, value, 0)
        packed = np.where(other, packed >> 10, packed)
    rest = np.sqrt(np.maximum(0, 1 - (quats**2).sum(1)))
    quats[np.arange(len(quats)), largest] = rest
    return quats[:, [3, 0, 1, 2]]


def _old_rotations(rows: np.ndarray) -> np.ndarray:
    """(N, 4) wxyz from x, y, z in a byte each, of version 2."""
    xyz = rows / 127.5 - 1
    w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(1)))
    return np.concatenate([w[:, None], xyz], axis=1)
