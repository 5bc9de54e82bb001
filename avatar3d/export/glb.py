"""The head's mesh with its expressions as morph targets, still or moving, for Blender and engines.

The head frame is that of glTF: metres, y up, front towards +z. Names of the targets go where
Blender, three.js and Unity look for them, `mesh.extras.targetNames`. In a moving file the mesh is
skinned to four joints: torso, head and the two eyes in it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar3d.avatar.state import SplatState
from avatar3d.errors import UserError
from avatar3d.export.gltf import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, Document, quaternions
from avatar3d.export.texture import bake
from avatar3d.export.whole import whole_head
from avatar3d.geometry import Camera
from avatar3d.head.arkit import ARKIT_52
from avatar3d.head.gallery import part_colors, vertex_normals
from avatar3d.head.model import PARTS, ShapedHead, eye_rotation
from avatar3d.motion.motion import Motion
from avatar3d.progress import say
from avatar3d.provenance import declared_write, facts_of, slot

if TYPE_CHECKING:
    from avatar3d.avatar import SplatAvatar

__all__ = ["HeadMesh", "vertex_colors", "write_animation", "write_glb"]

_SMOOTHING_ROUNDS = 100
_HEAD, _TORSO, _EYES = 0, 1, (2, 3)  # joints


@dataclass(frozen=True)
class HeadMesh:
    """What is drawn: one person's neutral head, V vertices, E expression rows; metres, head frame.

    Attributes:
        vertices: (V, 3); faces: (F, 3); expression: (E, V, 3); names: E names.
        colors: (V, 3) sRGB in [0, 1].
        torso_weight: (V,) skinning weight to the shoulders.
        eye: (V,) 1 left eyeball, 2 right eyeball, 0 neither; eye_centers: (2, 3).
        texture: picture that the colours are multiplied with, of which `uv` (V, 2) says the places.
    """

    vertices: np.ndarray
    faces: np.ndarray
    expression: np.ndarray
    names: tuple[str, ...]
    colors: np.ndarray
    torso_weight: np.ndarray
    eye: np.ndarray
    eye_centers: np.ndarray
    uv: np.ndarray | None = None
    texture: bytes | None = None

    @classmethod
    def of_avatar(cls, avatar: "SplatAvatar") -> "HeadMesh":
        """The whole head with a texture, or, without its head model, what carries Gaussians."""
        try:
            whole = whole_head(avatar)
        except UserError as error:
            say(f"The mesh has holes and no texture: {error}")
            return cls._of_state(avatar.state)
        state, head = avatar.state, cls.of_head(whole.head)
        baked = bake(whole, avatar)
        known = whole.vertex >= 0
        expression = head.expression.copy()
        expression[:, whole.vertex[known]] = state.expression[:, known]
        from scipy.spatial import cKDTree

        plain = head.vertices[baked.source[~baked.textured]]
        colors = np.ones((len(baked.source), 3))
        colors[~baked.textured] = vertex_colors(state)[cKDTree(state.vertices).query(plain)[1]]
        return cls(
            head.vertices[baked.source], baked.faces, expression[:, baked.source], head.names,
            colors, head.torso_weight[baked.source], head.eye[baked.source], head.eye_centers,
            baked.uv, baked.jpeg(),
        )  # fmt: skip

    @classmethod
    def _of_state(cls, state: SplatState) -> "HeadMesh":
        rows = len(state.expression)
        names = ARKIT_52 + tuple(f"residual{i}" for i in range(rows - len(ARKIT_52)))
        return cls(
            state.vertices, state.faces, state.expression, names, vertex_colors(state),
            state.torso_weight, state.eye, state.eye_centers,
        )  # fmt: skip

    @classmethod
    def of_head(cls, shaped: ShapedHead) -> "HeadMesh":
        model = shaped.model
        eye = np.zeros(len(model.part), np.uint8)
        for index, name in enumerate(("eye_left", "eye_right")):
            eye[model.part == PARTS.index(name)] = index + 1
        return cls(
            shaped.vertices, model.faces, shaped.expression, model.expression_names,
            part_colors(model), model.torso_weight, eye, shaped.eye_centers,
        )  # fmt: skip


def write_glb(
    avatar: "SplatAvatar", path: str | os.PathLike[str], motion: Motion | None = None
) -> None:
    """Write the head as a binary glTF with morph targets and a texture baked from the Gaussians.

    The Gaussians themselves are not in it: hair and shoulders are as good as the mesh is. Without
    the head model that the avatar was made with, the file has only the triangles that carry
    Gaussians, with a colour per vertex; the user is told.

    Args:
        avatar: what to hand over.
        path: the file to write.
        motion: animate the mesh with this; without it the file holds the neutral head and the 52
            ARKit targets.
    """
    mesh = HeadMesh.of_avatar(avatar)
    if motion is not None:
        if motion.torso_pose is None and motion.head_pose is not None:
            from dataclasses import replace

            from avatar3d.avatar.torso import predict_torso

            state = avatar.state
            torso = predict_torso(motion.head_pose, state.torso_map, state.torso_limit, motion.fps)
            motion = replace(motion, torso_pose=torso)
        place = avatar.camera, avatar.state.T_camera_rest
        write_animation(mesh, motion, path, *place, facts=facts_of(avatar.info))
        return
    document = Document()
    still = _mesh(document, mesh, len(ARKIT_52))
    content = {"scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0, "name": "head"}]}
    facts = facts_of(avatar.info)
    declared_write(path, document.encoded(content | still, slot(facts)), facts)


def write_animation(
    mesh: HeadMesh,
    motion: Motion,
    path: str | os.PathLike[str],
    camera: Camera | None = None,
    T_camera_rest: np.ndarray | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a moving head as a binary glTF: weights of the targets, and head, torso and eye joints.

    Args:
        mesh: the head. Rows beyond the 52 become targets where the motion has weights for them.
        motion: what it does; a missing track keeps still.
        path: the file to write.
        camera, T_camera_rest: add the camera that filmed it, (4, 4) rest head to camera frame.
        facts: what the file says about itself, see `provenance.facts_of`.
    """
    residual = len(mesh.expression) - len(ARKIT_52)
    known = motion.residual is not None and motion.residual.shape[1] == residual
    rows = len(mesh.expression) if known else len(ARKIT_52)
    document = Document()
    content = _mesh(document, mesh, rows, skinned=True)
    nodes: list[dict[str, Any]] = [
        {"mesh": 0, "skin": 0, "name": "face"},
        {"name": "head", "children": [3, 4]},
        {"name": "torso"},
        {"name": "eye_left", "translation": mesh.eye_centers[0].astype(float).tolist()},
        {"name": "eye_right", "translation": mesh.eye_centers[1].astype(float).tolist()},
    ]
    roots = [0, 1, 2]
    if camera is not None and T_camera_rest is not None:
        content["cameras"] = [_camera(camera)]
        place = np.linalg.inv(T_camera_rest) @ np.diag([1.0, -1, -1, 1])
        nodes.append({"name": "camera", "camera": 0, "matrix": place.T.ravel().tolist()})
        roots.append(5)
    rest = np.tile(np.eye(4), (4, 1, 1))
    for side, joint in enumerate(_EYES):
        rest[joint, :3, 3] = -mesh.eye_centers[side]
    content["skins"] = [
        {"joints": [1, 2, 3, 4], "inverseBindMatrices": document.add(rest), "name": "head"}
    ]
    content |= {"scene": 0, "scenes": [{"nodes": roots}], "nodes": nodes}
    content["animations"] = [_animation(document, motion, rows)]
    declared_write(path, document.encoded(content, slot(facts)), facts)


def _mesh(document: Document, mesh: HeadMesh, rows: int, skinned: bool = False) -> dict[str, Any]:
    """Meshes and materials of the file."""
    vertices = mesh.vertices
    attributes = {
        "POSITION": document.add(vertices, ARRAY_BUFFER, bounds=True),
        "NORMAL": document.add(_unit_normals(vertices, mesh.faces), ARRAY_BUFFER),
        "COLOR_0": document.add(_linear(mesh.colors), ARRAY_BUFFER),
    }
    if mesh.uv is not None:
        attributes["TEXCOORD_0"] = document.add(mesh.uv, ARRAY_BUFFER)
    if skinned:
        joints = np.zeros((len(vertices), 4), np.uint8)
        weights = np.zeros((len(vertices), 4), np.float32)
        eyes = mesh.eye > 0
        joints[eyes, 0] = np.array(_EYES)[mesh.eye[eyes] - 1]
        joints[:, 1] = np.where(mesh.torso_weight > 0, _TORSO, 0)
        weights[:, 0], weights[:, 1] = 1 - mesh.torso_weight, mesh.torso_weight
        attributes["JOINTS_0"] = document.add(joints, ARRAY_BUFFER)
        attributes["WEIGHTS_0"] = document.add(weights, ARRAY_BUFFER)
    targets = [
        {"POSITION": document.add(row.astype("<f4"), ARRAY_BUFFER, bounds=True)}
        for row in mesh.expression[:rows]
    ]
    faces = document.add(mesh.faces.reshape(-1), ELEMENT_ARRAY_BUFFER)
    primitive = {"attributes": attributes, "indices": faces, "material": 0, "targets": targets}
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 0.7}
    content: dict[str, Any] = {}
    if mesh.texture is not None:
        picture = {"bufferView": document.add_bytes(mesh.texture), "mimeType": "image/jpeg"}
        content = {"images": [picture], "samplers": [{}], "textures": [{"source": 0, "sampler": 0}]}
        surface["baseColorTexture"] = {"index": 0}
    return content | {
        "meshes": [
            {
                "name": "head",
                "primitives": [primitive],
                "weights": [0.0] * rows,
                "extras": {"targetNames": list(mesh.names[:rows])},
            }
        ],
        "materials": [
            {
                "name": "skin",
                "doubleSided": True,  # the mouth and the lids are seen from both sides
                "pbrMetallicRoughness": surface,
            }
        ],
    }


def _animation(document: Document, motion: Motion, rows: int) -> dict[str, Any]:
    """Channels of weights, head, torso and eyes."""
    count = len(motion)
    times = document.add(np.arange(count) / motion.fps, bounds=True)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []

    def animate(node: int, path: str, values: np.ndarray) -> None:
        channels.append({"sampler": len(samplers), "target": {"node": node, "path": path}})
        samplers.append({"input": times, "output": document.add(values), "interpolation": "LINEAR"})

    weights = np.zeros((count, rows), np.float32)
    if motion.expression is not None:
        weights[:, : len(ARKIT_52)] = motion.expression
    if motion.residual is not None and rows > len(ARKIT_52):
        weights[:, len(ARKIT_52) :] = motion.residual
    animate(0, "weights", weights.reshape(-1))
    for node, pose in ((1, motion.head_pose), (2, motion.torso_pose)):
        if pose is not None:
            animate(node, "translation", pose[:, :3, 3])
            animate(node, "rotation", quaternions(pose[:, :3, :3]))
    if motion.gaze is not None:
        for side in range(2):
            turns = np.stack([eye_rotation(*angles) for angles in motion.gaze[:, side]])
            animate(3 + side, "rotation", quaternions(turns))
    return {"name": motion.source or "motion", "samplers": samplers, "channels": channels}


def _camera(camera: Camera) -> dict[str, Any]:
    height = float(2 * np.arctan(camera.height / 2 / camera.K[1, 1]))
    return {
        "type": "perspective",
        "perspective": {
            "yfov": height, "aspectRatio": camera.width / camera.height, "znear": 0.01,
        },
    }  # fmt: skip


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


def _unit_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3); a vertex without a face, which has no normal, looks ahead."""
    normals = vertex_normals(vertices, faces)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0.5, normals / np.maximum(length, 1e-20), (0.0, 0.0, 1.0))


def _linear(srgb: np.ndarray) -> np.ndarray:
    """glTF wants vertex colours linear (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
