"""The files of ICT-FaceKit's folder `FaceXModel` as the arrays that `ict` is built from."""

import json
from pathlib import Path

import numpy as np

from avatar3d.progress import track

__all__ = ["COUNT", "NEUTRAL", "PARTS", "read_folder"]

NEUTRAL = "generic_neutral_mesh.obj"
COUNT = 26719
_IDENTITIES = 100
PARTS = {
    "face": [0, 9408], "narrow_face": [0, 6705], "head_neck": [9409, 11247],
    "mouth_socket": [11248, 13293], "eye_socket_left": [13294, 13677],
    "eye_socket_right": [13678, 14061], "gums_tongue": [14062, 17038], "teeth": [17039, 21450],
    "teeth_upper": [17039, 19246], "teeth_lower": [19247, 21450], "eyeball_left": [21451, 23020],
    "eyeball_right": [23021, 24590], "sclera_left": [21451, 22220], "iris_left": [22221, 23020],
    "sclera_right": [23021, 23790], "iris_right": [23791, 24590], "lacrimal_left": [24591, 24794],
    "lacrimal_right": [24795, 24998], "eye_blend_left": [24999, 25022],
    "eye_blend_right": [25023, 25046], "eye_occlusion_left": [25047, 25198],
    "eye_occlusion_right": [25199, 25350], "eyelashes_left": [25351, 26034],
    "eyelashes_right": [26035, 26718],
}  # fmt: skip
"""First and last vertex of each part of the published mesh."""


def read_folder(folder: Path) -> dict[str, np.ndarray]:
    """Arrays by the names that `ict.from_npz` documents; centimetres.

    Raises:
        ValueError, OSError, KeyError: a file is missing or is not what it should be.
    """
    neutral = _vertices(folder / NEUTRAL)
    names = json.loads((folder / "vertex_indices.json").read_text("utf-8"))["expressions"]
    if not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise ValueError("vertex_indices.json names expressions that are no file names")
    count = 0
    while count < _IDENTITIES and (folder / f"identity{count:03d}.obj").is_file():
        count += 1
    if not count:
        raise ValueError("there is no identity000.obj")
    files = [*names, *(f"identity{i:03d}" for i in range(count))]
    offsets = [
        (_vertices(folder / f"{name}.obj") - neutral).astype(np.float32)
        for name in track(files, "Reading ICT-FaceKit")
    ]
    return {
        **_surface(folder / NEUTRAL),
        "vertices": neutral,
        "expression": np.stack(offsets[: len(names)]),
        "expression_names": np.array(names),
        "identity": np.stack(offsets[len(names) :]),
        "parts": np.array(json.dumps(PARTS)),
    }


def _vertices(path: Path) -> np.ndarray:
    """(26719, 3): the `v` lines of an .obj file, which stand together."""
    data = path.read_bytes()
    start = 0 if data.startswith(b"v ") else data.index(b"\nv ") + 1
    end = data.find(b"\nvt", start)
    block = data[start : end if end > 0 else len(data)].replace(b"v", b" ")
    values = np.fromstring(block.decode("ascii"), sep=" ")
    if values.size != 3 * COUNT or not np.isfinite(values).all():
        raise ValueError(f"{path.name} has {values.size / 3:g} vertices, expected {COUNT}")
    return values.reshape(-1, 3)


def _surface(path: Path) -> dict[str, np.ndarray]:
    """Triangles, texture coordinates and materials of the neutral mesh."""
    uv, faces, uv_faces, material = [], [], [], []
    names: list[str] = []
    current = 0
    for line in path.read_text("ascii").splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "vt":
            uv.append([float(value) for value in rest.split()[:2]])
        elif kind == "usemtl":
            if rest.strip() not in names:
                names.append(rest.strip())
            current = names.index(rest.strip())
        elif kind == "f":
            corners = [corner.split("/") for corner in rest.split()]
            for second in range(1, len(corners) - 1):
                triangle = (corners[0], corners[second], corners[second + 1])
                faces.append([int(corner[0]) - 1 for corner in triangle])
                uv_faces.append([int(corner[1]) - 1 for corner in triangle])
                material.append(current)
    arrays = {
        "faces": np.array(faces, np.int32), "uv": np.array(uv, np.float32),
        "uv_faces": np.array(uv_faces, np.int32), "face_material": np.array(material),
        "material_names": np.array(names),
    }  # fmt: skip
    for name, limit in (("faces", COUNT), ("uv_faces", len(uv))):
        if not len(faces) or arrays[name].min() < 0 or arrays[name].max() >= limit:
            raise ValueError(f"{path.name} has faces of vertices that it does not have")
    return arrays
