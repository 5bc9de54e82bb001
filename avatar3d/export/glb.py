"""The head's mesh with the ARKit expressions as morph targets, for game engines and Blender.

Source: glTF 2.0, https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html. The head frame is that
of glTF: metres, y up, front towards +z. Names of the targets go where Blender, three.js and Unity
look for them, `mesh.extras.targetNames`.
"""

import json
import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar3d.avatar.state import SplatState
from avatar3d.head.arkit import ARKIT_52
from avatar3d.io.atomic import atomic_write

if TYPE_CHECKING:
    from avatar3d.avatar import SplatAvatar

__all__ = ["vertex_colors", "write_glb"]

FLOAT, UNSIGNED_INT = 5126, 5125
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
_SMOOTHING_ROUNDS = 100


def write_glb(avatar: "SplatAvatar", path: str | os.PathLike[str]) -> None:
    """Write the neutral head as a binary glTF with 52 morph targets and a colour per vertex.

    The Gaussians themselves are not in it: hair and shoulders are as good as the mesh is.
    """
    state = avatar.state
    vertices = state.vertices.astype("<f4")
    document = _Document()
    attributes = {
        "POSITION": document.add(vertices, FLOAT, ARRAY_BUFFER, bounds=True),
        "NORMAL": document.add(_normals(vertices, state.faces), FLOAT, ARRAY_BUFFER),
        "COLOR_0": document.add(_linear(vertex_colors(state)), FLOAT, ARRAY_BUFFER),
    }
    targets = [
        {"POSITION": document.add(row.astype("<f4"), FLOAT, ARRAY_BUFFER, bounds=True)}
        for row in state.expression[: len(ARKIT_52)]
    ]
    faces = document.add(state.faces.astype("<u4").reshape(-1), UNSIGNED_INT, ELEMENT_ARRAY_BUFFER)
    primitive = {"attributes": attributes, "indices": faces, "material": 0, "targets": targets}
    atomic_write(
        path,
        document.encoded(
            {
                "asset": {"version": "2.0", "generator": "avatar3d (synthetic likeness)"},
                "scene": 0,
                "scenes": [{"nodes": [0]}],
                "nodes": [{"mesh": 0, "name": "head"}],
                "meshes": [
                    {
                        "name": "head",
                        "primitives": [primitive],
                        "weights": [0.0] * len(ARKIT_52),
                        "extras": {"targetNames": list(ARKIT_52)},
                    }
                ],
                "materials": [
                    {
                        "name": "skin",
                        "doubleSided": True,  # the mouth and the lids are seen from both sides
                        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.7},
                    }
                ],
            }
        ),
    )


def vertex_colors(state: SplatState) -> np.ndarray:
    """(V, 3) sRGB: colours of the Gaussians around each vertex, spread to where there are none."""
    bound = state.face >= 0
    corners = state.faces[state.face[bound]]
    opacity = 1 / (1 + np.exp(-state.opacity[bound].astype(np.float64)))
    weight = state.bary[bound] * opacity[:, None]
    total = np.full(len(state.vertices), 1e-12)
    colors = np.zeros((len(state.vertices), 3))
    for corner in range(3):
        np.add.at(total, corners[:, corner], weight[:, corner])
        np.add.at(
            colors, corners[:, corner], weight[:, corner, None] * state.color[bound].clip(0, 1)
        )
    colors /= total[:, None]
    known = total > 1e-3
    colors[~known] = colors[known].mean(0) if known.any() else 0.5
    first, second = np.concatenate([state.faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))]).T
    degree = np.maximum(np.bincount(first, minlength=len(total)), 1)[:, None]
    for _ in range(_SMOOTHING_ROUNDS):
        around = np.stack(
            [np.bincount(first, colors[second, c], len(total)) for c in range(3)], axis=1
        )
        colors[~known] = (around / degree)[~known]
    return colors


class _Document:
    """Accessors and their bytes; one buffer view for each accessor."""

    def __init__(self) -> None:
        self.accessors: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self._blocks: list[bytes] = []
        self._size = 0

    def add(self, array: np.ndarray, component: int, target: int, bounds: bool = False) -> int:
        """Index of a new accessor over (N, 3) floats or (N,) integers."""
        array = np.ascontiguousarray(array, "<f4" if component == FLOAT else "<u4")
        view = {"buffer": 0, "byteOffset": self._size, "byteLength": array.nbytes, "target": target}
        accessor: dict[str, Any] = {
            "bufferView": len(self.views),
            "componentType": component,
            "count": len(array),
            "type": "VEC3" if array.ndim == 2 else "SCALAR",
        }
        if bounds:  # required for positions
            accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        self.views.append(view)
        self.accessors.append(accessor)
        self._blocks.append(array.tobytes())
        self._size += array.nbytes
        return len(self.accessors) - 1

    def encoded(self, document: dict[str, Any]) -> bytes:
        """The GLB file: header, JSON chunk, binary chunk."""
        document = {
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


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, averaged over the triangles by area."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    across = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], across)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0, normals / np.maximum(length, 1e-20), (0.0, 0.0, 1.0))


def _linear(srgb: np.ndarray) -> np.ndarray:
    """glTF wants vertex colours linear (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
