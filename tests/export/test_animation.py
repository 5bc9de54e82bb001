"""The moving head, evaluated from the file by the rules of glTF 2.0, against our own formulas."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from avatar3d.errors import UserError
from avatar3d.export import export, export_motion, export_tracking
from avatar3d.export.glb import HeadMesh, write_animation
from avatar3d.geometry import Camera
from avatar3d.head import ARKIT_52, HeadModel
from avatar3d.motion import Motion
from avatar3d.motion.paths import head_rotations

pygltflib = pytest.importorskip("pygltflib")


class Player:
    """The part of a glTF player that a skinned, morphing mesh needs; key frames only."""

    def __init__(self, path: Path) -> None:
        self.file = pygltflib.GLTF2().load(str(path))
        self.data = self.file.binary_blob()

    def read(self, index: int) -> np.ndarray:
        accessor = self.file.accessors[index]
        view = self.file.bufferViews[accessor.bufferView]
        kind = {5126: "<f4", 5125: "<u4", 5121: "u1"}[accessor.componentType]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor.type]
        count = accessor.count * width
        array = np.frombuffer(self.data, kind, count, view.byteOffset).reshape(-1, width)
        return array.reshape(-1, 4, 4).transpose(0, 2, 1) if width == 16 else array

    def vertices(self, frame: int) -> np.ndarray:
        document = self.file
        locals_, weights = {}, None
        for index, node in enumerate(document.nodes):
            locals_[index] = (np.array(node.translation or [0, 0, 0.0]), np.array([0, 0, 0, 1.0]))
        for channel in document.animations[0].channels:
            values = self.read(document.animations[0].samplers[channel.sampler].output)
            node, (shift, turn) = channel.target.node, locals_[channel.target.node]
            if channel.target.path == "weights":
                weights = values.reshape(self.frames, -1)[frame]
            elif channel.target.path == "translation":
                locals_[node] = (values[frame], turn)
            else:
                locals_[node] = (shift, values[frame])
        parents = {c: p for p, node in enumerate(document.nodes) for c in node.children or []}

        def world(index: int) -> np.ndarray:
            matrix = np.eye(4)
            matrix[:3, :3] = Rotation.from_quat(locals_[index][1]).as_matrix()
            matrix[:3, 3] = locals_[index][0]
            return world(parents[index]) @ matrix if index in parents else matrix

        primitive = document.meshes[0].primitives[0]
        points = self.read(primitive.attributes.POSITION).astype(float)
        for weight, target in zip(weights, primitive.targets, strict=True):
            points = points + weight * self.read(target["POSITION"])
        skin = document.skins[0]
        binds = self.read(skin.inverseBindMatrices)
        joints = np.stack([world(j) @ b for j, b in zip(skin.joints, binds, strict=True)])
        blend = (
            joints[self.read(primitive.attributes.JOINTS_0)]
            * self.read(primitive.attributes.WEIGHTS_0)[..., None, None]
        ).sum(1)
        return np.einsum("vij,vj->vi", blend[:, :3, :3], points) + blend[:, :3, 3]

    @property
    def frames(self) -> int:
        return self.file.accessors[self.file.animations[0].samplers[0].input].count


def performance(frames: int, rows: int) -> Motion:
    rng = np.random.default_rng(2)
    head = head_rotations(*rng.uniform(-0.5, 0.5, (3, frames)))
    torso = head_rotations(*rng.uniform(-0.1, 0.1, (3, frames)))
    return Motion(
        fps=30, expression=rng.random((frames, 52)), residual=rng.random((frames, rows - 52)),
        head_pose=head, torso_pose=torso, gaze=rng.uniform(-0.4, 0.4, (frames, 2, 2)),
    )  # fmt: skip


def test_every_frame_has_the_vertices_of_the_head_model(small_head: HeadModel, tmp_path: Path):
    shaped = small_head.shaped(np.array([0.5, -1.0]))
    motion = performance(4, len(small_head.expression))
    write_animation(HeadMesh.of_head(shaped), motion, tmp_path / "head.glb")
    player = Player(tmp_path / "head.glb")
    assert player.frames == 4
    weight = small_head.torso_weight[:, None]
    for frame in range(4):
        row = np.r_[motion.expression[frame], motion.residual[frame]]
        rest = shaped.posed(row, motion.gaze[frame])
        by_head, by_torso = (
            rest @ pose[frame, :3, :3].T + pose[frame, :3, 3]
            for pose in (motion.head_pose, motion.torso_pose)
        )
        # An eyeball touched by the torso would need both its joints; the made-up head has such.
        sound = (weight[:, 0] == 0) | ~np.isin(small_head.part, [12, 13])
        expected = (1 - weight) * by_head + weight * by_torso
        found = player.vertices(frame)
        np.testing.assert_allclose(found[sound], expected[sound], atol=2e-6)
    names = player.file.meshes[0].extras["targetNames"]
    assert names == list(small_head.expression_names)


def test_other_readers_open_it(small_head: HeadModel, tmp_path: Path):
    shaped = small_head.shaped(np.zeros(0))
    rest = np.diag([1.0, -1, -1, 1])
    rest[2, 3] = 0.8
    camera = Camera.from_focal(700.0, 512, 400)
    motion = performance(3, len(small_head.expression)).without("residual", "torso_pose")
    write_animation(HeadMesh.of_head(shaped), motion, tmp_path / "head.glb", camera, rest)
    scene = trimesh.load(tmp_path / "head.glb", process=False)
    mesh = scene.geometry["head"]
    np.testing.assert_allclose(mesh.vertices, shaped.vertices, atol=1e-7)
    document = pygltflib.GLTF2().load(str(tmp_path / "head.glb"))
    assert document.meshes[0].extras["targetNames"] == list(ARKIT_52)
    times = Player(tmp_path / "head.glb").read(document.animations[0].samplers[0].input)
    np.testing.assert_allclose(times[:, 0], np.arange(3) / 30, atol=1e-7)
    # A glTF camera looks along -z from its node: 0.8 m in front of the face, towards it.
    node = next(node for node in document.nodes if node.camera is not None)
    place = np.array(node.matrix).reshape(4, 4).T
    np.testing.assert_allclose(place @ [0, 0, 0, 1], [0, 0, 0.8, 1], atol=1e-9)
    np.testing.assert_allclose(place @ [0, 0, -1, 0], [0, 0, -1, 0], atol=1e-9)
    field = document.cameras[0].perspective
    assert np.tan(field.yfov / 2) == pytest.approx(200 / 700)


def test_an_avatar_can_be_given_a_motion(avatar, tmp_path: Path):
    path = export(avatar, tmp_path / "moving.glb", motion=avatar.idle_motion)
    player = Player(path)
    assert player.frames == len(avatar.idle_motion)
    state, motion = avatar.state, avatar.idle_motion
    frame = 11
    face = (state.torso_weight == 0) & (state.eye == 0)
    rest = state.vertices + np.tensordot(motion.expression[frame], state.expression[:52], 1)
    pose = motion.head_pose[frame]
    expected = rest @ pose[:3, :3].T + pose[:3, 3]
    np.testing.assert_allclose(player.vertices(frame)[face], expected[face], atol=2e-6)
    with pytest.raises(UserError, match="keeps still"):
        export(avatar, tmp_path / "x.ply", motion=motion)


def test_a_captured_performance(small_head: HeadModel, tmp_path: Path):
    from avatar3d.subject import Tracking

    frames, rows = 5, len(small_head.expression)
    motion = performance(frames, rows)
    rest = np.diag([1.0, -1, -1, 1])
    rest[2, 3] = 0.7
    small_head.save(tmp_path / "head.npz")
    head = HeadModel.load(tmp_path / "head.npz")
    tracking = Tracking(
        head_model=str(tmp_path / "head.npz"), head_model_fingerprint=head.fingerprint,
        K=np.array([[500.0, 0, 128], [0, 500, 128], [0, 0, 1]]), size=np.array([256, 256]),
        identity=np.array([0.5, 0, 0, 0]), landmark_offsets=np.zeros((478, 3)),
        T_camera_rest=rest, T_camera_head=rest @ motion.head_pose,
        T_camera_torso=rest @ motion.torso_pose, expression=motion.expression,
        residual=motion.residual, gaze=motion.gaze, landmarks=np.zeros((frames, 478, 2)),
        landmarks_fit=np.zeros((frames, 478, 2)), confidence=np.ones(frames),
        valid=np.ones(frames, bool),
    )  # fmt: skip

    class Captured:
        folder = tmp_path
        fps = 25.0

    subject = Captured()
    subject.tracking = tracking
    player = Player(export_tracking(subject, tmp_path / "take.glb"))
    assert player.frames == frames
    assert len(player.file.cameras) == 1
    back = Motion.load(export_tracking(subject, tmp_path / "take.csv"))
    np.testing.assert_allclose(back.expression, motion.expression, atol=1e-6)
    np.testing.assert_allclose(back.head_pose[:, :3, :3], motion.head_pose[:, :3, :3], atol=1e-5)
    with pytest.raises(UserError, match="choose csv, json or npz"):
        export_motion(motion, tmp_path / "take.obj")
