"""The PLY writer against an independent reader, and the reader against damaged files."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig, pose_gaussians
from avatar3d.avatar.state import SH_C0
from avatar3d.errors import UserError
from avatar3d.export import export
from avatar3d.geometry import quaternion_to_matrix
from avatar3d.io.ply import GaussianCloud, decode_ply, encode_ply, read_ply, write_ply

REFERENCE_ORDER = [
    "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
    "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
]  # fmt: skip


def make_cloud(count: int = 50) -> GaussianCloud:
    rng = np.random.default_rng(7)
    quats = rng.normal(size=(count, 4)).astype(np.float32)
    return GaussianCloud(
        means=rng.normal(size=(count, 3)).astype(np.float32),
        quats=quats / np.linalg.norm(quats, axis=1, keepdims=True),
        log_scales=rng.normal(-6, 1, (count, 3)).astype(np.float32),
        opacity=rng.normal(size=count).astype(np.float32),
        colors=rng.random((count, 3)).astype(np.float32),
    )


def test_independent_reader_finds_the_reference_layout(tmp_path):
    plyfile = pytest.importorskip("plyfile")
    cloud = make_cloud()
    write_ply(tmp_path / "a.ply", cloud, ["made by a\ntest"])
    ply = plyfile.PlyData.read(tmp_path / "a.ply")
    vertex = ply["vertex"]
    assert [p.name for p in vertex.properties] == REFERENCE_ORDER
    assert (ply.text, ply.byte_order, ply.comments) == (False, "<", ["made by a test"])
    np.testing.assert_array_equal(np.stack([vertex[c] for c in "xyz"], 1), cloud.means)
    np.testing.assert_array_equal(vertex["opacity"], cloud.opacity)
    rgb = np.stack([vertex[f"f_dc_{c}"] for c in range(3)], 1) * SH_C0 + 0.5
    np.testing.assert_allclose(rgb, cloud.colors, atol=1e-6)
    rot = np.stack([vertex[f"rot_{c}"] for c in range(4)], 1)
    np.testing.assert_allclose(rot, cloud.quats, atol=1e-6)


def test_reads_what_another_writer_wrote(tmp_path):
    plyfile = pytest.importorskip("plyfile")
    cloud = make_cloud(9)
    names = [*REFERENCE_ORDER[::-1], "f_rest_0"]  # other order, one property more
    table = np.zeros(9, [(name, "f8" if name == "x" else "f4") for name in names])
    for columns, values in (
        ("x y z", cloud.means), ("f_dc_0 f_dc_1 f_dc_2", (cloud.colors - 0.5) / SH_C0),
        ("opacity", cloud.opacity[:, None]), ("scale_0 scale_1 scale_2", cloud.log_scales),
        ("rot_0 rot_1 rot_2 rot_3", 3 * cloud.quats),
    ):  # fmt: skip
        for column, value in zip(columns.split(), values.T, strict=True):
            table[column] = value
    element = plyfile.PlyElement.describe(table, "vertex")
    plyfile.PlyData([element], byte_order="<").write(tmp_path / "b.ply")
    back = read_ply(tmp_path / "b.ply")
    for name in ("means", "quats", "log_scales", "opacity", "colors"):
        np.testing.assert_allclose(getattr(back, name), getattr(cloud, name), atol=1e-6)


def test_damage_is_one_clear_sentence(tmp_path):
    good = encode_ply(make_cloud())
    body = good.index(b"end_header\n") + len("end_header\n")
    poisoned = bytearray(good)
    poisoned[body : body + 4] = np.float32(np.nan).tobytes()
    cases = {
        "not a PLY": b"hello",
        "cut short": good[:-1],
        "damaged PLY header": good.replace(b"property float x", b"property floaty x"),
        "at most": good.replace(b"vertex 50", b"vertex 99999999999999"),
        "little-endian": good.replace(b"binary_little_endian", b"ascii"),
        "lacks the property rot_3": good.replace(b"rot_3", b"rot_4"),
        "non-finite": bytes(poisoned),
    }
    for expected, data in cases.items():
        with pytest.raises(UserError, match=expected):
            decode_ply(data)
    with pytest.raises(UserError, match="Cannot read"):
        read_ply(tmp_path / "missing.ply")


def test_every_truncation_is_noticed():
    data = encode_ply(make_cloud(3))
    for length in range(len(data)):
        with pytest.raises(UserError):
            decode_ply(data[:length])


@pytest.mark.parametrize(("axes", "flip"), [("3dgs", (1, -1, -1)), ("head", (1, 1, 1))])
def test_exported_neutral_head(avatar, tmp_path, axes, flip):
    """Centres and covariances of the file, read independently, are those of the posed state."""
    plyfile = pytest.importorskip("plyfile")
    export(avatar, tmp_path / "head.ply", axes=axes)
    vertex = plyfile.PlyData.read(tmp_path / "head.ply")["vertex"]
    means = np.stack([vertex[c] for c in "xyz"], 1) * flip
    quats = np.stack([vertex[f"rot_{c}"] for c in (1, 2, 3, 0)], 1)
    scales = np.exp(np.stack([vertex[f"scale_{c}"] for c in range(3)], 1))
    axes_of = np.array(flip)[:, None] * Rotation.from_quat(quats).as_matrix() * scales[:, None]

    state = avatar.state
    face = FaceParameters(
        torch.zeros(len(state.expression)), torch.zeros(2, 2), torch.eye(4), torch.eye(4)
    )
    with torch.no_grad():
        posed = pose_gaussians(SplatRig(state), SplatParameters(state), face)
        expected = quaternion_to_matrix(posed.quats) * posed.scales[:, None]
    np.testing.assert_allclose(means, posed.means, atol=1e-6)
    covariance = np.einsum("nij,nkj->nik", axes_of, axes_of)
    expected_covariance = torch.einsum("nij,nkj->nik", expected, expected)
    np.testing.assert_allclose(covariance, expected_covariance, atol=1e-8)
    np.testing.assert_array_equal(vertex["opacity"], state.opacity)
    eye = means[state.eye[state.faces[state.face[state.face >= 0]][:, 0]].nonzero()[0]]
    assert eye[:, 2].mean() > 0.05  # in the head frame the eyes look along +z
