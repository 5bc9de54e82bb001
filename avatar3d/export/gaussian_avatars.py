"""The folder that GaussianAvatars opens: Gaussians bound to FLAME, and its parameters.

- `point_cloud.ply`: places, sizes and rotations relative to the triangle `binding_0` of FLAME.
- `flame_param.npz`: neutral pose and no coefficients; the person's shape is `static_offset`, and
  what a motion does to each vertex `dynamic_offset`, so that frames are those of this avatar.

Blendshapes of the Gaussians themselves have no place in it. What is not bound to FLAME here, the
inside of the mouth and the torso, is bound to the nearest triangle.
Source: https://github.com/ShenhanQian/GaussianAvatars, scene/flame_gaussian_model.py,
scene/gaussian_model.py and utils/graphics_utils.py (`compute_face_orientation`).
"""

import os
from typing import TYPE_CHECKING

import numpy as np

from avatar3d.avatar.canonical import canonical_cloud
from avatar3d.errors import UserError
from avatar3d.export.whole import WholeHead, whole_head
from avatar3d.io.arrays import write_arrays
from avatar3d.io.atomic import atomic_folder
from avatar3d.io.ply import SH_C0
from avatar3d.motion.motion import Motion
from avatar3d.provenance import declare, facts_of, slot

if TYPE_CHECKING:
    from avatar3d.avatar import SplatAvatar

__all__ = ["write_gaussian_avatars"]

_VERTICES, _FACES = 5023, 9976  # of FLAME
_TEETH = 120  # vertices that the reader adds; no Gaussian is bound to them
_REST = 45  # spherical harmonics beyond the first, which its viewer expects
_LINE = 200


def write_gaussian_avatars(
    avatar: "SplatAvatar", path: str | os.PathLike[str], motion: Motion | None = None
) -> None:
    """Write a folder for GaussianAvatars.

    Args:
        avatar: a splat avatar on FLAME.
        path: folder to write.
        motion: default the avatar's own captured motion; 62 kB a frame.

    Raises:
        UserError: the avatar is on another head model, or the folder cannot be written.
    """
    name = str(avatar.info.get("head_model"))
    if not name.startswith("flame-"):
        raise UserError(
            f"GaussianAvatars binds to FLAME, and the head model of this avatar is {name!r}; "
            "capture the clip again with `head_model=generic_model.pkl`, your own copy of FLAME."
        )
    whole = whole_head(avatar)
    motion = motion if motion is not None else avatar.idle_motion
    facts = facts_of(avatar.info)
    cloud = _bound_ply(avatar, whole, slot(facts))
    with atomic_folder(path) as folder:
        (folder / "point_cloud.ply").write_bytes(cloud)
        declare(folder / "point_cloud.ply", facts, path)
        write_arrays(folder / "flame_param.npz", _parameters(avatar, whole, motion), False)


def _bound_ply(avatar: "SplatAvatar", whole: WholeHead, statement: str) -> bytes:
    from scipy.spatial import cKDTree
    from scipy.spatial.transform import Rotation

    state, cloud = avatar.state, canonical_cloud(avatar.state)
    corners = whole.head.vertices[whole.head.model.faces[:_FACES]].astype(np.float64)
    face = np.where(state.face >= 0, whole.face[state.face], -1)
    loose = (face < 0) | (face >= _FACES)
    face[loose] = cKDTree(corners.mean(1)).query(cloud.means[loose])[1]
    frame, size = _frames(corners)
    frame, size = frame[face], size[face]
    place = np.einsum("nij,ni->nj", frame, cloud.means - corners.mean(1)[face]) / size[:, None]
    # The reader multiplies from the left: own rotation, then that of the triangle.
    own = Rotation.from_quat(cloud.quats[:, [1, 2, 3, 0]]) * Rotation.from_matrix(frame).inv()
    columns = {
        "x y z": place, "nx ny nz": 0 * place,
        "f_dc_0 f_dc_1 f_dc_2": (cloud.colors - 0.5) / SH_C0,
        " ".join(f"f_rest_{i}" for i in range(_REST)): np.zeros((len(cloud), _REST)),
        "opacity": cloud.opacity[:, None],
        "scale_0 scale_1 scale_2": cloud.log_scales - np.log(size)[:, None],
        "rot_0 rot_1 rot_2 rot_3": own.as_quat()[:, [3, 0, 1, 2]],
        "binding_0": face[:, None],
    }  # fmt: skip
    remarks = [
        word[i : i + _LINE] for word in statement.split() for i in range(0, len(word), _LINE)
    ]
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {r}" for r in remarks)]
    lines += [f"element vertex {len(cloud)}"]
    lines += [f"property float {name}" for names in columns for name in names.split()]
    table = np.concatenate(list(columns.values()), axis=1).astype("<f4")
    return "\n".join([*lines, "end_header", ""]).encode("ascii") + table.tobytes()


def _frames(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Axes in columns (F, 3, 3) and sizes (F,) of triangles (F, 3, 3), as the reader has them."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]

    def unit(v: np.ndarray) -> np.ndarray:
        return v / np.linalg.norm(v, axis=1, keepdims=True).clip(1e-10)

    along = unit(first)
    normal = unit(np.cross(along, second))
    across = -unit(np.cross(normal, along))
    size = (np.linalg.norm(first, axis=1) + np.abs((across * second).sum(1))) / 2
    return np.stack([along, normal, across], -1), size


def _parameters(avatar: "SplatAvatar", whole: WholeHead, motion: Motion) -> dict[str, np.ndarray]:
    head, state, count = whole.head, avatar.state, len(motion)
    neutral = head.vertices[:_VERTICES]
    offset = np.zeros((1, _VERTICES + _TEETH, 3), np.float32)
    offset[0, :_VERTICES] = neutral - head.model.template[:_VERTICES]
    moved = np.zeros((count, _VERTICES + _TEETH, 3), np.float32)
    back = np.linalg.inv(state.T_camera_rest.astype(np.float64))
    weight = head.model.torso_weight[:_VERTICES, None]
    for frame, face in enumerate(avatar.faces(motion)):
        posed = head.posed(face.weights.cpu().numpy(), face.gaze.cpu().numpy())[:_VERTICES]
        by_head, by_torso = (
            posed @ T[:3, :3].T + T[:3, 3]
            for T in (back @ T.cpu().numpy() for T in (face.T_camera_head, face.T_camera_torso))
        )
        moved[frame, :_VERTICES] = (1 - weight) * by_head + weight * by_torso - neutral
    sizes = {
        "expr": 100, "rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3,
    }  # fmt: skip
    return {
        "shape": np.zeros(300, np.float32),
        **{name: np.zeros((count, size), np.float32) for name, size in sizes.items()},
        "static_offset": offset,
        "dynamic_offset": moved,
    }
