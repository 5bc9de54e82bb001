"""ICT-FaceKit (MIT licence, https://github.com/ICT-VGL/ICT-FaceKit) as a `HeadModel`."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.anny.landmarks import Embedding
from avatar3d.head.arkit import ARKIT_52
from avatar3d.head.landmarks import LANDMARK_COUNT
from avatar3d.head.model import PARTS, HeadModel

__all__ = ["from_folder", "from_npz"]

_CM = 0.01
# Transparent helper surfaces, which an opaque renderer would paint over the eye, and the iris
# shells, which lie inside the closed sclera.
_HIDDEN = ("M_EyeBlend", "M_EyeOcclusion", "M_LacrimalFluid", "M_IrisLeft", "M_IrisRight")
_SKIN_END = 11247  # last vertex of face, neck and shoulders
_NARROW_FACE_END = 6705
_UV_TILES = 7  # the materials lie side by side in u

_OUTER_LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)  # fmt: skip


def from_npz(path: str | Path, landmarks_npz: str | Path | None = None) -> HeadModel:
    """Build the head from arrays of ICT-FaceKit.

    ICT has no tongueOut: that row is zero. Its eyeballs do not turn; `ShapedHead.posed` rotates
    them, and the eyeLook rows keep the motion of the lids only.

    Args:
        path: npz with `vertices` (cm, y up, +z out of the face, +x to the subject's left), `faces`,
            `uv`, `uv_faces`, `face_material`, `material_names`, `identity`, `expression`,
            `expression_names` and `parts` (JSON, name to first and last vertex).
        landmarks_npz: npz with `face`, `bary`, `spread_cm` of the 478 landmarks; default
            `ict_mediapipe478.npz` beside `path`.

    Raises:
        UserError: a file is missing or is not what the arguments describe.
    """
    path = Path(path)
    landmarks_npz = Path(landmarks_npz) if landmarks_npz else path.with_name("ict_mediapipe478.npz")
    data, marks = _read(path), _read(landmarks_npz)
    try:
        return _build(data, marks)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{path} or {landmarks_npz} is not an ICT-FaceKit head as arrays ({error}); "
            "convert the published model again."
        ) from error


def from_folder(folder: str | Path, embed: Callable[[HeadModel], Embedding]) -> HeadModel:
    """Build the head from the published folder `FaceXModel`, as `from_npz` does from arrays.

    Args:
        folder: with `generic_neutral_mesh.obj`, `vertex_indices.json`, one .obj for each expression
            and `identity000.obj` and on, all of the same 26,719 vertices.
        embed: finds the landmarks, which the folder does not have.

    Raises:
        UserError: a file is missing or is not what it should be.
    """
    from avatar3d.head.sources.ict_files import read_folder

    folder = Path(folder)
    try:
        data = read_folder(folder)
        nowhere = {
            "face": np.zeros(LANDMARK_COUNT, int),
            "bary": np.full((LANDMARK_COUNT, 3), 1 / 3, np.float32),
            "spread_cm": np.ones(LANDMARK_COUNT, np.float32),
        }
        blank = _build(data, nowhere)
        marks = embed(blank)
        found = replace(
            blank,
            landmark_faces=marks.faces.astype(np.int32),
            landmark_bary=marks.bary.astype(np.float32),
            landmark_sigma=marks.sigma.astype(np.float32),
        )
        outline = found.landmarks_of(found.template)[list(_OUTER_LIPS), :2]
        face = found.part == PARTS.index("face")
        part = found.part.copy()
        inside = np.flatnonzero(face)
        front = inside[found.template[inside, 2] > found.eye_centers[0, 2] - 0.02]
        part[front[_inside(found.template[front, :2], outline)]] = PARTS.index("lips")
        return replace(found, part=part)
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{folder} is not the FaceXModel folder of ICT-FaceKit ({error}); give the folder with "
            "generic_neutral_mesh.obj."
        ) from error


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} ({error}); give the path of a head as npz.") from error


def _build(data: dict[str, np.ndarray], marks: dict[str, np.ndarray]) -> HeadModel:
    vertices = data["vertices"].astype(np.float64) * _CM
    ranges = {name: slice(a, b + 1) for name, (a, b) in json.loads(str(data["parts"])).items()}
    spheres = [_sphere(vertices[ranges[f"sclera_{side}"]]) for side in ("left", "right")]
    origin = _between_ears(vertices)

    identity = data["identity"].astype(np.float32) * _CM
    expression = _arkit_rows(data, ranges)
    eyes_identity = np.stack(
        [identity[:, ranges[f"sclera_{side}"]].mean(1) for side in ("left", "right")], 1
    )
    marks_on = data["faces"][marks["face"]]
    points = (vertices[marks_on] * marks["bary"][:, :, None]).sum(1)
    part = _label(vertices, ranges, points)

    shown = ~np.isin(data["material_names"][data["face_material"]], _HIDDEN)
    used = np.unique(data["faces"][shown])
    vertex_map = np.full(len(vertices), -1)
    vertex_map[used] = np.arange(len(used))
    face_map = np.cumsum(shown) - 1
    uv = data["uv"].astype(np.float32) / [_UV_TILES, 1]
    return HeadModel(
        name="ict",
        template=(vertices - origin)[used].astype(np.float32),
        faces=vertex_map[data["faces"][shown]].astype(np.int32),
        identity=np.ascontiguousarray(identity[:, used]),
        expression=np.ascontiguousarray(expression[:, used]),
        expression_names=ARKIT_52,
        part=part[used],
        torso_weight=_torso_weight(vertices)[used],
        eye_centers=(np.stack(spheres) - origin).astype(np.float32),
        eye_centers_identity=eyes_identity,
        uv=uv.astype(np.float32),
        uv_faces=data["uv_faces"][shown].astype(np.int32),
        landmark_faces=face_map[marks["face"]].astype(np.int32),
        landmark_bary=marks["bary"].astype(np.float32),
        landmark_sigma=np.maximum(marks["spread_cm"] * _CM, 5e-4).astype(np.float32),
    )


def _arkit_rows(data: dict[str, np.ndarray], ranges: dict[str, slice]) -> np.ndarray:
    """(52, V, 3) metres. ICT splits browInnerUp and cheekPuff into sides: their sum is ARKit's."""
    names = [str(name) for name in data["expression_names"]]
    rows = np.zeros((len(ARKIT_52), len(data["vertices"]), 3), np.float32)
    for index, name in enumerate(ARKIT_52):
        if name == "tongueOut":
            continue
        sided = name.removesuffix("Left") + "_L", name.removesuffix("Right") + "_R"
        candidates = [name, *sided, f"{name}_L", f"{name}_R"]
        found = [names.index(c) for c in dict.fromkeys(candidates) if c in names]
        if not found:
            raise ValueError(f"no expression for {name}")
        rows[index] = data["expression"][found].astype(np.float32).sum(0) * _CM
    for side in ("left", "right"):
        rows[:, ranges[f"eyeball_{side}"]] = 0
    return rows


def _sphere(points: np.ndarray) -> np.ndarray:
    """Centre of the sphere through the back half of an eyeball; the front bulges at the cornea."""
    back = points[points[:, 2] < points[:, 2].mean()]
    system = np.c_[2 * back, np.ones(len(back))]
    return np.linalg.lstsq(system, (back**2).sum(1), rcond=None)[0][:3]


def _between_ears(vertices: np.ndarray) -> np.ndarray:
    skin = vertices[: _SKIN_END + 1]
    pinna = skin[(np.abs(skin[:, 0]) > 0.071) & (skin[:, 1] > -0.03) & (skin[:, 2] < 0.035)]
    low, high = pinna.min(0), pinna.max(0)
    return np.array([0.0, (low[1] + high[1]) / 2 - 0.015, high[2] - 0.015])


def _label(vertices: np.ndarray, ranges: dict[str, slice], points: np.ndarray) -> np.ndarray:
    part = np.zeros(len(vertices), np.uint8)

    def mark(name: str, where: slice | np.ndarray) -> None:
        part[where] = PARTS.index(name)

    x, y, z = vertices.T
    skin = np.arange(len(vertices)) <= _SKIN_END
    narrow = np.arange(len(vertices)) <= _NARROW_FACE_END
    mark("scalp", skin & ~narrow)
    mark("ears", skin & ~narrow & (np.abs(x) > 0.071) & (y > -0.02) & (y < 0.065) & (z < 0.045))
    mark("neck", skin & ~narrow & (y < -0.03 - 0.5 * np.maximum(z, 0)))
    mark("shoulders", skin & ~narrow & (y < -0.135))
    mark("lips", narrow & _inside(vertices[:, :2], points[list(_OUTER_LIPS), :2]))
    mark("mouth_cavity", ranges["mouth_socket"])
    mark("eye_socket", ranges["eye_socket_left"])
    mark("eye_socket", ranges["eye_socket_right"])
    mark("tongue", ranges["gums_tongue"])
    gums = ranges["gums_tongue"]
    teeth = vertices[ranges["teeth"]]
    # Gums lie above and below the rows of teeth; the tongue inside the arch.
    inside = np.hypot(x[gums] / 0.02, (z[gums] - 0.065) / 0.035) < 1
    middle = teeth[:, 1].mean()
    part[gums][~inside | (y[gums] > middle + 0.005)] = PARTS.index("gums")
    mark("teeth_upper", ranges["teeth_upper"])
    mark("teeth_lower", ranges["teeth_lower"])
    for side in ("left", "right"):
        mark(f"eye_{side}", ranges[f"eyeball_{side}"])
        mark("lashes", ranges[f"eyelashes_{side}"])
    return part


def _inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Even-odd test of points (N, 2) against a closed polygon (M, 2)."""
    a, b = polygon, np.roll(polygon, -1, 0)
    x, y = points[:, None].transpose(2, 0, 1)
    crosses = (a[:, 1] > y) != (b[:, 1] > y)
    rise = np.where(b[:, 1] == a[:, 1], 1e-12, b[:, 1] - a[:, 1])
    at = a[:, 0] + (y - a[:, 1]) / rise * (b[:, 0] - a[:, 0])
    return (crosses & (x < at)).sum(1) % 2 == 1


def _torso_weight(vertices: np.ndarray) -> np.ndarray:
    """0 on the head, smoothly 1 from the root of the neck down. ICT has no skinning weights."""
    height = vertices[:, 1] + 0.25 * np.maximum(vertices[:, 2], 0)
    t = np.clip((-0.06 - height) / 0.09, 0, 1)
    weight = t * t * (3 - 2 * t)
    weight[: _NARROW_FACE_END + 1] = 0
    weight[_SKIN_END + 1 :] = 0
    return weight.astype(np.float32)
