"""The folder for GaussianAvatars, put together again by the formulas of its reader."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from avatar3d.avatar import SplatAvatar
from avatar3d.avatar.canonical import canonical_cloud, posed_clouds
from avatar3d.errors import UserError
from avatar3d.export import export, gaussian_avatars, whole
from avatar3d.head import HeadModel

plyfile = pytest.importorskip("plyfile")


def test_the_reader_finds_our_gaussians(
    headed: SplatAvatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A ball stands for FLAME. Places while the head turns, and all the rest when it does not."""
    model = HeadModel.load(headed.info["head_model"])
    monkeypatch.setattr(whole, "load_head", lambda name: model)
    monkeypatch.setattr(gaussian_avatars, "_VERTICES", len(model.template))
    monkeypatch.setattr(gaussian_avatars, "_FACES", len(model.faces))
    avatar = replace(headed, info={**headed.info, "head_model": "flame-0123456789ab"})
    motion = headed.idle_motion.slice(0, 12).without("expression", "gaze")
    folder = export(avatar, tmp_path / "face", format="gaussian-avatars", motion=motion)
    flame = np.load(folder / "flame_param.npz", allow_pickle=False)
    assert {k: v.shape for k, v in flame.items() if k != "static_offset"} == {
        "shape": (300,), "expr": (12, 100), "rotation": (12, 3), "neck_pose": (12, 3),
        "jaw_pose": (12, 3), "eyes_pose": (12, 6), "translation": (12, 3),
        "dynamic_offset": (12, len(model.template) + 120, 3),
    }  # fmt: skip
    table = plyfile.PlyData.read(folder / "point_cloud.ply")["vertex"]
    assert sum(p.name.startswith("f_rest_") for p in table.properties) == 45

    def columns(*names: str) -> np.ndarray:
        return np.stack([table[name] for name in names], 1).astype(float)

    binding = table["binding_0"].astype(int)
    local = columns("x", "y", "z")
    own = Rotation.from_quat(columns("rot_1", "rot_2", "rot_3", "rot_0"))
    bound = headed.state.face >= 0
    for frame, cloud in enumerate(posed_clouds(headed, motion)):
        moved = flame["static_offset"][0] + flame["dynamic_offset"][frame]
        a, b, c = (model.template + moved[:-120])[model.faces].transpose(1, 0, 2)[:, binding]
        first = (b - a) / np.linalg.norm(b - a, axis=1, keepdims=True)
        normal = np.cross(first, c - a)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        third = -np.cross(normal, first)
        axes = np.stack([first, normal, third], -1)
        height = np.abs((third * (c - a)).sum(1))
        size = (np.linalg.norm(b - a, axis=1) + height) / 2
        found = (axes @ local[..., None])[..., 0] * size[:, None] + (a + b + c) / 3
        np.testing.assert_allclose(found[bound], cloud.means[bound], atol=2e-6)
        if frame == 0:  # the motion starts at rest
            still = canonical_cloud(headed.state)
            turned = (own * Rotation.from_matrix(axes)).as_matrix()
            expected = Rotation.from_quat(still.quats[:, [1, 2, 3, 0]]).as_matrix()
            np.testing.assert_allclose(turned, expected, atol=1e-4)
            scales = columns("scale_0", "scale_1", "scale_2") + np.log(size)[:, None]
            np.testing.assert_allclose(scales, still.log_scales, atol=1e-4)


def test_another_head_model_is_one_sentence(headed: SplatAvatar, tmp_path: Path):
    with pytest.raises(UserError, match="binds to FLAME"):
        export(headed, tmp_path / "face", format="gaussian-avatars")
    assert list(tmp_path.iterdir()) == []
