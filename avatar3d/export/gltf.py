"""A binary glTF file in the making.

Source: glTF 2.0, https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html.
"""

import json
import struct
from typing import Any

import numpy as np

__all__ = ["ARRAY_BUFFER", "ELEMENT_ARRAY_BUFFER", "GENERATOR", "Document", "quaternions"]

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
GENERATOR = "avatar3d (synthetic likeness)"
_COMPONENTS = {"<f4": 5126, "<u4": 5125, "|u1": 5121}
_TYPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}


class Document:
    """Accessors and their bytes; one buffer view for each accessor."""

    def __init__(self) -> None:
        self.accessors: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self._blocks: list[bytes] = []
        self._size = 0

    def add(
        self,
        array: np.ndarray,
        target: int | None = None,
        bounds: bool = False,
        normalized: bool = False,
    ) -> int:
        """Index of a new accessor.

        Args:
            array: (N,), (N, 2), (N, 3), (N, 4) or (N, 4, 4); floats are stored in single precision,
                uint8 as it is, other integers as uint32. Matrices are given row by row.
            target: `ARRAY_BUFFER`, `ELEMENT_ARRAY_BUFFER` or nothing.
            normalized: integers stand for fractions of their largest value.
            bounds: store the smallest and largest values, as positions and key times need.
        """
        kind = "<f4" if array.dtype.kind == "f" else "|u1" if array.dtype == np.uint8 else "<u4"
        array = np.ascontiguousarray(array, kind)
        stored = array.transpose(0, 2, 1) if array.ndim == 3 else array  # glTF goes by columns
        accessor: dict[str, Any] = {
            "bufferView": self.add_bytes(stored.tobytes(), target),
            "componentType": _COMPONENTS[kind],
            "count": len(array),
            "type": _TYPES[array.shape[1:]],
        }
        if normalized:
            accessor["normalized"] = True
        if bounds:
            accessor |= {
                "min": np.atleast_1d(array.min(0)).tolist(),
                "max": np.atleast_1d(array.max(0)).tolist(),
            }
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def add_bytes(self, data: bytes, target: int | None = None) -> int:
        """Index of a new buffer view of any bytes, such as a picture's."""
        view = {"buffer": 0, "byteOffset": self._size, "byteLength": len(data)}
        self.views.append(view if target is None else {**view, "target": target})
        self._blocks.append(data + bytes(-len(data) % 4))
        self._size += len(self._blocks[-1])
        return len(self.views) - 1

    def encoded(self, document: dict[str, Any], statement: str = "") -> bytes:
        """The GLB file: header, JSON chunk with `statement` as `asset.extras.xmp`, binary chunk."""
        extras = {"extras": {"xmp": statement}} if statement else {}
        document = {
            "asset": {"version": "2.0", "generator": GENERATOR, **extras},
            **document,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": self._size}],
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", self._size, b"BIN\0") + b"".join(self._blocks)
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """(T, 4) x y z w, never jumping to the opposite sign."""
    import torch

    from avatar3d.geometry import matrix_to_quaternion

    wxyz = matrix_to_quaternion(torch.as_tensor(rotations, dtype=torch.float64)).numpy()
    turned = (wxyz[1:] * wxyz[:-1]).sum(1) < 0
    sign = np.where(np.cumsum(np.r_[False, turned]) % 2, -1.0, 1.0)
    return wxyz[:, [1, 2, 3, 0]] * sign[:, None]
