"""The neutral head as a Gaussian PLY."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar3d.avatar.canonical import canonical_cloud
from avatar3d.errors import UserError
from avatar3d.io.ply import GaussianCloud, encode_ply
from avatar3d.provenance import declared_write, facts_of, slot

if TYPE_CHECKING:
    from avatar3d.avatar import SplatAvatar

__all__ = ["AXES", "encode_avatar_ply", "rotated", "write_neutral_ply"]

AXES = {
    "3dgs": (np.diag([1.0, -1.0, -1.0]), "x to the person's left, y down, z into the face"),
    "head": (np.eye(3), "x to the person's left, y up, z out of the face"),
}
"""Rotation from the head frame, and the remark in the file."""
_LINE = 200  # characters; some readers take no more than 1000


def write_neutral_ply(
    avatar: "SplatAvatar", path: str | os.PathLike[str], axes: str = "3dgs"
) -> None:
    """Write the neutral pose as PLY that splat editors and viewers open.

    Args:
        avatar: any splat avatar.
        path: file to write.
        axes: "3dgs" (default) has y down and z forward like the data of the reference
            implementation, which SuperSplat, Unity and Unreal importers and gsplat viewers show
            upright; "head" keeps the head frame, y up like glTF, for three.js and Blender.
    """
    facts = facts_of(avatar.info)
    declared_write(path, encode_avatar_ply(canonical_cloud(avatar.state), axes, facts), facts)


def encode_avatar_ply(cloud: GaussianCloud, axes: str, facts: Mapping[str, Any]) -> bytes:
    """`cloud`, given in the head frame, with remarks on its axes and on being synthetic."""
    if axes not in AXES:
        raise UserError(f"Unknown axes {axes!r} for a PLY; choose 3dgs or head.")
    rotation, remark = AXES[axes]
    remarks = [f"avatar3d: metres, {remark}", "synthetic likeness of a person"]
    remarks += [
        word[i : i + _LINE] for word in slot(facts).split() for i in range(0, len(word), _LINE)
    ]
    return encode_ply(rotated(cloud, rotation), remarks)


def rotated(cloud: GaussianCloud, rotation: np.ndarray) -> GaussianCloud:
    """`cloud` turned about the origin by `rotation` (3, 3)."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_matrix(rotation)
    turned = turn * Rotation.from_quat(cloud.quats[:, [1, 2, 3, 0]])
    return GaussianCloud(
        means=(cloud.means @ rotation.T).astype(np.float32),
        quats=turned.as_quat()[:, [3, 0, 1, 2]].astype(np.float32),
        log_scales=cloud.log_scales,
        opacity=cloud.opacity,
        colors=cloud.colors,
    )
