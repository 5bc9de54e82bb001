"""The zip that the web renderer of LAM plays, npm's gaussian-splat-renderer-for-lam.

It holds a folder with
- `skin.glb`, a mesh with one vertex for each Gaussian, the ARKit targets, and the joints "hip" and
  "head". The renderer looks at no triangle; these only make it a mesh.
- `offset.ply`, the Gaussians, each placed relative to its vertex. `f_dc` is the colour itself.
- `animation.glb`, twelve clips: two for greeting, one for waiting, six for speaking and three for
  thinking; all are the same motion of the head here.
- `vertex_order.json`, which vertex each Gaussian belongs to; counting up.

What the format cannot say: the renderer moves everything with the head, the torso too, turns no
Gaussian, and knows no gaze but the targets of eyelids.
Source: the code of the package, versions 0.0.8 and 0.0.9; https://github.com/aigc3d/LAM,
tools/generateARKITGLBWithBlender.py.
"""

import io
import json
import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar3d.avatar.canonical import canonical_cloud, posed_clouds
from avatar3d.avatar.state import SplatState
from avatar3d.errors import UserError
from avatar3d.export.gltf import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, Document, quaternions
from avatar3d.head.arkit import ARKIT_52
from avatar3d.io.ply import SH_C0, GaussianCloud, encode_ply
from avatar3d.motion.motion import Motion
from avatar3d.provenance import declared_write, facts_of, slot

if TYPE_CHECKING:
    from avatar3d.avatar import SplatAvatar

__all__ = ["write_lam"]

_CLIPS = (
    "hello1", "hello2", "idle", "speak1", "speak2", "speak3", "speak4", "speak5", "speak6",
    "think1", "think2", "think3",
)  # fmt: skip
_MOST = 4096 * 2048 // (len(ARKIT_52) + 1)  # texels of the renderer's texture of targets
_VISIBLE = 2 / 255
_HIP, _HEAD = 1, 2  # nodes
_PLACE = [0.0, 1.7, 0.3]  # metres; before the renderer's camera, at (0, 1.8, 1), 10 degrees down


def write_lam(
    avatar: "SplatAvatar", path: str | os.PathLike[str], motion: Motion | None = None
) -> None:
    """Write a zip for the web renderer of LAM (Large Avatar Model).

    Args:
        avatar: any splat avatar of at most 158,000 Gaussians.
        path: the .zip file; the renderer takes no other suffix.
        motion: how the head moves meanwhile; default the avatar's own captured motion.

    Raises:
        UserError: another suffix, too many Gaussians, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".zip":
        raise UserError(f"LAM's renderer only takes files named NAME.zip, got {path.name}.")
    motion = motion if motion is not None else avatar.idle_motion
    neutral = canonical_cloud(avatar.state)
    shown = 1 / (1 + np.exp(-neutral.opacity)) >= _VISIBLE
    if shown.sum() > _MOST:
        raise UserError(
            f"LAM's renderer takes {_MOST} Gaussians and this avatar has {shown.sum()}; train one "
            "with fewer."
        )
    rest = _anchors(avatar.state, neutral)[shown]
    offset = _chosen(neutral, shown)
    offset = replace(offset, means=offset.means - rest, colors=0.5 + SH_C0 * offset.colors)
    rows = Motion(motion.fps, expression=np.eye(len(ARKIT_52), dtype=np.float32))
    targets = [cloud.means[shown] - neutral.means[shown] for cloud in posed_clouds(avatar, rows)]
    folder = re.sub(r"\W+", "_", path.stem)
    members = {
        "skin.glb": _skin(rest, targets),
        "animation.glb": _animation(motion),
        "offset.ply": encode_ply(offset, ["avatar3d: relative to the vertices of skin.glb"]),
        "vertex_order.json": json.dumps(list(range(len(rest)))).encode(),
    }
    facts = facts_of(avatar.info)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as archive:
        archive.mkdir(folder)  # by which the renderer knows its name
        for name, data in members.items():
            archive.writestr(f"{folder}/{name}", data)
        archive.comment = slot(facts).encode()
    declared_write(path, buffer.getvalue(), facts)


def _anchors(state: SplatState, neutral: GaussianCloud) -> np.ndarray:
    """(N, 3) the point of the head that each Gaussian is bound to; of the torso's, their own."""
    anchors = neutral.means.copy()
    bound = state.face >= 0
    corners = state.vertices[state.faces[state.face[bound]]]
    anchors[bound] = (corners * state.bary[bound][..., None]).sum(1)
    return anchors


def _chosen(cloud: GaussianCloud, which: np.ndarray) -> GaussianCloud:
    return GaussianCloud(
        cloud.means[which], cloud.quats[which], cloud.log_scales[which], cloud.opacity[which],
        cloud.colors[which],
    )  # fmt: skip


def _joints(first: int) -> list[dict[str, Any]]:
    """The nodes of both joints, of which the hip's is number `first`."""
    return [{"name": "hip", "children": [first + 1], "translation": _PLACE}, {"name": "head"}]


def _skin(vertices: np.ndarray, targets: list[np.ndarray]) -> bytes:
    document, count = Document(), len(vertices)
    joints = np.zeros((count, 4), np.uint8)
    joints[:, 0] = 1
    attributes = {
        "POSITION": document.add(vertices + _PLACE, ARRAY_BUFFER, bounds=True),
        "JOINTS_0": document.add(joints, ARRAY_BUFFER),
        "WEIGHTS_0": document.add(np.tile(np.eye(4)[0], (count, 1)), ARRAY_BUFFER),
    }
    triangles = np.arange(count // 3 * 3)
    primitive = {
        "attributes": attributes,
        "indices": document.add(triangles, ELEMENT_ARRAY_BUFFER),
        "targets": [{"POSITION": document.add(t, ARRAY_BUFFER, bounds=True)} for t in targets],
    }
    rest = np.tile(np.eye(4), (2, 1, 1))
    rest[:, :3, 3] = -np.array(_PLACE)
    binds = document.add(rest)
    return document.encoded(
        {
            "scene": 0,
            "scenes": [{"nodes": [0, _HIP]}],
            "nodes": [{"mesh": 0, "skin": 0, "name": "gaussians"}, *_joints(_HIP)],
            "skins": [{"joints": [_HIP, _HEAD], "skeleton": _HIP, "inverseBindMatrices": binds}],
            "meshes": [
                {
                    "name": "gaussians",
                    "primitives": [primitive],
                    "weights": [0.0] * len(targets),
                    "extras": {"targetNames": list(ARKIT_52)},
                }
            ],
        }
    )


def _animation(motion: Motion) -> bytes:
    """The clips; the renderer counts them."""
    document, count = Document(), max(len(motion), 2)
    pose = np.tile(np.eye(4), (count, 1, 1))
    if motion.head_pose is not None:
        pose[:] = motion.head_pose
    times = document.add(np.arange(count) / motion.fps, bounds=True)
    outputs = {
        "translation": document.add(pose[:, :3, 3]),
        "rotation": document.add(quaternions(pose[:, :3, :3])),
    }
    samplers = [{"input": times, "output": output} for output in outputs.values()]
    channels = [
        {"sampler": index, "target": {"node": 1, "path": name}}
        for index, name in enumerate(outputs)
    ]
    return document.encoded(
        {
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": _joints(0),
            "animations": [
                {"name": name, "samplers": samplers, "channels": channels} for name in _CLIPS
            ],
        }
    )
