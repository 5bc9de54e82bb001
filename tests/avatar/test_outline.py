"""The surface goes to where the mattes end, on a ball that is not as wide as the person."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from avatar3d.avatar.outline import conformed
from avatar3d.avatar.views import Views
from avatar3d.geometry import Camera
from avatar3d.head import HeadModel
from avatar3d.head.model import PARTS, ShapedHead
from avatar3d.kernels import rasterize_mesh
from avatar3d.subject import PARSING_LABELS

SIZE = 192
HAIR, SKIN = (PARSING_LABELS.index(name) for name in ("hair", "skin"))


@pytest.fixture
def ball(small_head: HeadModel) -> ShapedHead:
    """A head whose upper half and back are scalp."""
    template = small_head.template
    scalp = (template[:, 1] > 0.02) | (template[:, 2] < -0.02)
    part = np.where(scalp, PARTS.index("scalp"), PARTS.index("face")).astype(np.uint8)
    whole = np.zeros_like(small_head.torso_weight)
    return replace(small_head, part=part, torso_weight=whole).shaped(np.zeros(4))


def views_of(head: ShapedHead, width: float, label: int) -> Views:
    """Frames of a person who is `width` times as large, with one label beside the head."""
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[2, 3] = 0.6
    camera = Camera.from_focal(1.6 * SIZE, SIZE, SIZE)

    def silhouette(scale: float) -> np.ndarray:
        points = head.vertices * scale @ pose[:3, :3].T + pose[:3, 3]
        screen = np.concatenate([camera.project(points), points[:, 2:]], 1).astype(np.float32)
        return rasterize_mesh(screen, head.model.faces, SIZE, SIZE)[0] >= 0

    person, inner = silhouette(width), silhouette(min(width, 1.0) * 0.9)
    labels = np.where(inner, SKIN, np.where(person, label, 0)).astype(np.uint8)
    subject = SimpleNamespace(
        frame=lambda index: np.zeros((SIZE, SIZE, 3), np.uint8),
        matte=lambda index: person.astype(np.uint8) * 255,
        parsing=lambda index: labels,
    )
    tracking = SimpleNamespace(
        camera=camera,
        weights=np.zeros((8, len(head.expression))),
        gaze=np.zeros((8, 2, 2)),
        T_camera_head=np.tile(pose, (8, 1, 1)),
        T_camera_torso=np.tile(pose, (8, 1, 1)),
    )
    return Views(subject, tracking, head, np.arange(8))


def beyond(views: Views) -> float:
    """Share of the surface's pixels outside the person."""
    mesh = views.face[0] >= 0
    return float((mesh & (views.mattes[0] < 128)).sum() / mesh.sum())


def bare(views: Views, rows: slice) -> float:
    """Share of the person's pixels that the surface leaves free."""
    person = views.mattes[0][rows] > 127
    return float((person & (views.face[0][rows] < 0)).sum() / person.sum())


def test_a_surface_wider_than_the_person_shrinks_to_the_matte(ball: ShapedHead) -> None:
    views = views_of(ball, 0.9, SKIN)
    after = views.of(conformed(ball, views))
    assert beyond(views) > 0.15
    assert beyond(after) < 0.04


def test_the_scalp_grows_to_where_the_hair_ends(ball: ShapedHead) -> None:
    upper = slice(0, SIZE // 2 - SIZE // 16)
    views = views_of(ball, 1.2, HAIR)
    after = views.of(conformed(ball, views))
    assert bare(views, upper) > 0.25
    assert bare(after, upper) < 0.08
    assert beyond(after) < 0.02


def test_hair_beside_a_cheek_does_not_swell_it(ball: ShapedHead) -> None:
    after = conformed(ball, views_of(ball, 1.2, HAIR))
    lower = (ball.vertices[:, 1] < -0.05) & (ball.vertices[:, 2] > 0.01)
    upper = ball.vertices[:, 1] > 0.06
    moved = np.linalg.norm(after.vertices - ball.vertices, axis=1)
    assert np.median(moved[lower]) < 0.4 * np.median(moved[upper])
    assert np.median(moved[upper]) > 0.01


def test_skin_that_faces_the_camera_stays(ball: ShapedHead) -> None:
    for width in (0.9, 1.2):
        after = conformed(ball, views_of(ball, width, SKIN))
        front = ball.vertices[:, 2] > 0.085
        moved = np.linalg.norm(after.vertices - ball.vertices, axis=1)
        assert front.sum() > 3
        assert moved[front].max() < 0.1 * moved.max()
