"""The mesh z-buffer against ray casting, brute force and hand-made cases."""

import numpy as np
import pytest

from avatar3d.kernels import rasterize_mesh


def random_mesh(seed: int, count: int = 60, faces: int = 80):
    rng = np.random.default_rng(seed)
    points = np.c_[rng.uniform(-5, 60, (count, 2)), rng.uniform(1, 3, count)].astype(np.float32)
    return points, rng.integers(0, count, (faces, 3)).astype(np.int32)


def test_agrees_with_ray_casting(simd, threads):
    """A sphere and a box that cross, against trimesh's plane and barycentric functions."""
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    box = trimesh.creation.box(extents=(0.5, 1.2, 0.3))
    mesh = trimesh.util.concatenate([ball, box])
    mesh.apply_transform(trimesh.transformations.rotation_matrix(0.7, (1, 2, 0.3)))
    mesh.apply_translation((0.05, -0.02, 3))
    width, height, focal = 60, 48, 90.0
    points = mesh.vertices[:, :2] / mesh.vertices[:, 2:] * focal + [width / 2, height / 2]
    points = np.c_[points, mesh.vertices[:, 2]].astype(np.float32)
    face, bary, depth = rasterize_mesh(points, mesh.faces.astype(np.int32), width, height)

    y, x = np.mgrid[:height, :width] + 0.5
    rays = np.stack([(x - width / 2) / focal, (y - height / 2) / focal, np.ones_like(x)], -1)
    expected = np.full(width * height, np.inf)
    for triangle in mesh.triangles:
        normal = np.cross(*(triangle[1:] - triangle[0]))
        hits, valid = trimesh.intersections.planes_lines(
            np.tile(triangle[0], (width * height, 1)),
            np.tile(normal, (width * height, 1)),
            np.zeros((width * height, 3)),
            rays.reshape(-1, 3),
        )[:2]
        where = trimesh.triangles.points_to_barycentric(np.tile(triangle, (len(hits), 1, 1)), hits)
        inside = np.zeros(width * height, bool)
        inside[valid] = (where >= 0).all(-1)
        z = np.full(width * height, np.inf)
        z[valid] = hits[:, 2]
        expected = np.where(inside & (z < expected), z, expected)
    expected = expected.reshape(height, width)
    # a silhouette pixel whose centre is on an edge may go either way
    assert (np.isinf(expected) != np.isinf(depth)).sum() <= 2
    both = np.isfinite(expected) & np.isfinite(depth)
    assert both.sum() > 400
    assert np.abs(depth[both] - expected[both]).max() < 1e-4
    # perspective-correct: the barycentric point of the 3D triangle lies on the pixel's ray
    point = (mesh.vertices[mesh.faces[face[both]]] * bary[both][..., None]).sum(1)
    assert np.abs(point / point[:, 2:] - rays[both]).max() < 1e-4


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_brute_force(seed, simd, threads):
    points, faces = random_mesh(seed)
    fast = rasterize_mesh(points, faces, 50, 41, backend="native")
    slow = rasterize_mesh(points, faces, 50, 41, backend="reference")
    assert np.array_equal(fast[0], slow[0])
    assert np.allclose(fast[1], slow[1], atol=1e-6)
    assert np.allclose(fast[2], slow[2], rtol=1e-6)


def test_a_pixel_is_covered_when_its_centre_is():
    """The triangle (0,0) (3,0) (0,3) holds the centres with x + y <= 3."""
    points = np.array([[0, 0, 2], [3, 0, 2], [0, 3, 2]], np.float32)
    face, bary, depth = rasterize_mesh(points, np.array([[0, 1, 2]], np.int32), 4, 4)
    y, x = np.mgrid[:4, :4] + 0.5
    assert np.array_equal(face == 0, x + y <= 3)
    assert np.allclose(bary[0, 1], [1 - 2 / 3, 0.5, 1 / 6], atol=1e-6)
    assert np.array_equal(np.isinf(depth), x + y > 3)
    assert not bary[face < 0].any()


def test_depth_is_perspective_correct():
    """A slanted edge from z = 1 to z = 3: half way in the image is z = 1.5."""
    points = np.array([[-4.5, 0, 1], [5.5, 0, 3], [-4.5, 9, 1], [5.5, 9, 3]], np.float32)
    faces = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
    _, _, depth = rasterize_mesh(points, faces, 1, 8)
    assert np.allclose(depth, 1.5, atol=1e-6)


def test_shared_edges_leave_no_gap():
    """A fan whose edges pass through pixel centres."""
    angle = np.linspace(0, 2 * np.pi, 9)[:-1]
    rim = np.c_[16.5 + 40 * np.cos(angle), 16.5 + 40 * np.sin(angle), np.full(8, 2)]
    points = np.r_[[[16.5, 16.5, 2]], rim].astype(np.float32)
    faces = np.array([[0, i + 1, (i + 1) % 8 + 1] for i in range(8)], np.int32)
    face, _, _ = rasterize_mesh(points, faces, 33, 33)
    assert (face >= 0).all()


def test_poisoned_and_hidden_triangles_are_left_out(simd):
    points, faces = random_mesh(0)
    clean = rasterize_mesh(points, faces[:40], 50, 41)
    bad = np.array(
        [
            [np.nan, 5, 1], [20, np.inf, 1], [20, 20, -1], [30, 10, 0], [1e38, -1e38, 1],
            [40, 5, np.nan], [3, 3, np.inf],
        ],
        np.float32,
    )  # fmt: skip
    both = np.r_[points, bad]
    extra = np.array([[0, 1, 60 + i] for i in range(7) if i != 4] + [[5, 5, 9]], np.int32)
    poisoned = rasterize_mesh(both, np.r_[faces[:40], extra], 50, 41)
    for a, b in zip(clean, poisoned, strict=True):
        assert np.array_equal(a, b)
    huge = rasterize_mesh(both, np.array([[0, 1, 64]], np.int32), 50, 41)
    assert np.isfinite(huge[1]).all()


def test_nothing_to_draw():
    face, bary, depth = rasterize_mesh(
        np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), 3, 2
    )
    assert (face == -1).all()
    assert not bary.any()
    assert np.isinf(depth).all()


def test_wrong_arguments_are_named():
    points, faces = random_mesh(0)
    with pytest.raises(ValueError, match="points is float64"):
        rasterize_mesh(points.astype(np.float64), faces, 4, 4)
    with pytest.raises(ValueError, match=r"faces is int64 \(80, 3\), expected int32 \(F, 3\)"):
        rasterize_mesh(points, faces.astype(np.int64), 4, 4)
    with pytest.raises(ValueError, match="faces points outside points, which has 10 rows"):
        rasterize_mesh(points[:10], faces, 4, 4)
    with pytest.raises(ValueError, match="width x height is 4 x 0"):
        rasterize_mesh(points, faces, 4, 0)
