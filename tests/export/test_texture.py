"""The whole head with its texture, read back by trimesh."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from avatar3d.avatar import SplatAvatar
from avatar3d.errors import UserError
from avatar3d.export import export
from avatar3d.export.whole import whole_head

from .conftest import place_color


@pytest.fixture(scope="module")
def mesh(headed_glb: Path) -> trimesh.Trimesh:
    return trimesh.load(headed_glb, process=False).geometry["head"]


def test_the_kept_triangles_are_found_in_the_model(headed: SplatAvatar):
    """Although all vertices have moved, and a third of the triangles is not there."""
    whole = whole_head(headed)
    np.testing.assert_array_equal(whole.face, headed.kept)
    np.testing.assert_allclose(whole.head.vertices[whole.vertex], headed.state.vertices, atol=1e-6)
    away = np.linalg.norm(whole.head.vertices - headed.whole_vertices, axis=1)
    assert away.max() < 0.001  # metres; they had moved by four times as much


def test_the_mesh_has_no_holes(mesh: trimesh.Trimesh):
    mesh = trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight


def test_texels_have_the_colour_of_their_place(mesh: trimesh.Trimesh):
    picture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"), float) / 255
    uv = mesh.visual.uv[mesh.faces].mean(1)
    assert ((uv >= 0) & (uv <= 1)).all()
    column, row = (uv * [1, -1] + [0, 1]).T * len(picture)  # trimesh turns v
    found = picture[row.astype(int), column.astype(int)]
    error = np.abs(found - place_color(mesh.triangles_center))
    assert np.median(error) < 0.02
    above = mesh.triangles_center[:, 1] > -0.06  # the Gaussians of the torso hide the chin
    assert np.quantile(error[above], 0.99) < 0.08


def test_without_its_head_model_the_mesh_is_what_carries_gaussians(
    headed: SplatAvatar, tmp_path: Path
):
    alone = replace(headed, info={**headed.info, "head_model": str(tmp_path / "gone.npz")})
    with pytest.raises(UserError, match=r"gone\.npz does not exist"):
        whole_head(alone)
    found = trimesh.load(export(alone, tmp_path / "a.glb"), process=False).geometry["head"]
    assert len(found.faces) == len(headed.state.faces)
