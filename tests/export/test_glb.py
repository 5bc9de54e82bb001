"""The mesh and the transparent pictures, read back by programs that we did not write."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import trimesh

from avatar3d.avatar import SplatAvatar
from avatar3d.export import export
from avatar3d.head import ARKIT_52, ARKIT_INDEX


@pytest.fixture(scope="module")
def glb(avatar: SplatAvatar, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(avatar, tmp_path_factory.mktemp("mesh") / "head.glb")


def test_trimesh_reads_the_mesh(glb: Path, avatar: SplatAvatar):
    mesh = trimesh.load(glb, process=False).geometry["head"]
    np.testing.assert_array_equal(mesh.vertices.astype(np.float32), avatar.state.vertices)
    np.testing.assert_array_equal(mesh.faces, avatar.state.faces)
    ours = mesh.vertex_normals  # stored in the file, not computed by the reader
    theirs = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).vertex_normals
    assert (ours * theirs).sum(1).min() > 0.9


def test_morph_targets_have_their_names(glb: Path, avatar: SplatAvatar):
    pygltflib = pytest.importorskip("pygltflib")
    document = pygltflib.GLTF2().load(str(glb))
    mesh = document.meshes[0]
    assert mesh.extras["targetNames"] == list(ARKIT_52)
    accessor = document.accessors[mesh.primitives[0].targets[ARKIT_INDEX["jawOpen"]]["POSITION"]]
    view = document.bufferViews[accessor.bufferView]
    data = document.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    moved = np.frombuffer(data, "<f4").reshape(-1, 3)
    np.testing.assert_array_equal(moved, avatar.state.expression[ARKIT_INDEX["jawOpen"]])
    np.testing.assert_array_equal(accessor.min, moved.min(0))


def test_colours_are_those_of_the_gaussians(glb: Path, avatar: SplatAvatar):
    """Of the face as a whole: mean sRGB of vertices against that of the Gaussians on the mesh."""
    mesh = trimesh.load(glb, process=False).geometry["head"]
    linear = mesh.visual.vertex_attributes["color"][:, :3]
    bound = avatar.state.face >= 0
    expected = avatar.state.color[bound].clip(0, 1).mean(0)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(srgb.mean(0), expected, atol=0.08)


def test_transparent_pictures_compose_to_the_render(avatar: SplatAvatar, tmp_path: Path):
    motion = avatar.idle_motion.slice(5, 8)
    export(avatar, tmp_path / "frames", format="png", motion=motion)
    paths = sorted((tmp_path / "frames").iterdir())
    assert [p.name for p in paths] == ["000000.png", "000001.png", "000002.png"]
    for path, expected in zip(paths, avatar.render_motion(motion), strict=True):
        picture = iio.imread(path).astype(float)
        alpha = picture[..., 3:] / 255
        assert alpha.min() == 0
        assert alpha.max() > 0.98
        composed = picture[..., :3] * alpha + avatar.background * (1 - alpha)
        assert np.abs(composed - expected).mean() < 1
        assert np.abs(composed - expected).max() <= 4
