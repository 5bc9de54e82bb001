"""What frames show of a head, where every pixel's colour is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from avatar3d.avatar.views import Views
from avatar3d.geometry import Camera
from avatar3d.head import HeadModel
from avatar3d.kernels import rasterize_mesh
from avatar3d.subject import PARSING_LABELS

SKIN, TEAL, WHITE = (0.5, 0.4, 0.3), (0.0, 0.6, 0.7), (0.9, 0.9, 0.9)
SIZE = 128


@pytest.fixture
def look(small_head: HeadModel):
    """A beige ball before a teal wall, from below its middle in a white collar."""
    head = small_head.shaped(np.zeros(4))
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[2, 3] = 0.6
    camera = Camera.from_focal(2.2 * SIZE, SIZE, SIZE)
    points = head.vertices @ pose[:3, :3].T + pose[:3, 3]
    screen = np.concatenate([camera.project(points), points[:, 2:]], 1).astype(np.float32)
    face, _, _ = rasterize_mesh(screen, small_head.faces, SIZE, SIZE)
    person, collar = face >= 0, np.arange(SIZE)[:, None] >= SIZE * 0.6
    labels = np.where(person, PARSING_LABELS.index("skin"), 0)
    labels = np.where(person & collar, PARSING_LABELS.index("clothes"), labels).astype(np.uint8)
    image = np.where(person[..., None], np.where(collar[..., None], WHITE, SKIN), TEAL)
    subject = SimpleNamespace(
        frame=lambda index: (image * 255).round().astype(np.uint8),
        matte=lambda index: person.astype(np.uint8) * 255,
        parsing=lambda index: labels,
    )
    tracking = SimpleNamespace(
        camera=camera,
        weights=np.zeros((8, len(small_head.expression))),
        gaze=np.zeros((8, 2, 2)),
        T_camera_head=np.tile(pose, (8, 1, 1)),
        T_camera_torso=np.tile(pose, (8, 1, 1)),
    )
    views = Views(subject, tracking, head, np.arange(8))
    faces = np.arange(len(small_head.faces))
    center = head.vertices[small_head.faces].mean(1)
    return views.look(faces, np.full((len(faces), 3), 1 / 3)), center


def test_seen_points_have_their_colour_and_others_none(look):
    shown, center = look
    upper = center[:, 1] > 0
    assert (shown.seen & upper).sum() > 20
    np.testing.assert_allclose(
        shown.color[shown.seen & upper], np.tile(SKIN, ((shown.seen & upper).sum(), 1)), atol=0.003
    )
    assert not shown.seen[center[:, 2] < 0].any()
    assert (shown.facing[center[:, 2] < -0.02] == -1).all()
    assert shown.facing.max() > 0.95


def test_nothing_beside_the_outline_gives_a_colour(look):
    shown, _ = look
    away = np.abs(shown.color[shown.seen][:, None] - np.array([SKIN, WHITE])).max(-1).min(1)
    assert (away < 0.003).all()  # none has any teal in it


def test_a_collar_is_not_bare_skin(look):
    shown, center = look
    assert (shown.bare & (center[:, 1] > 0)).sum() > 20
    covered = shown.seen & (center[:, 1] < -0.04)
    assert covered.sum() > 5
    assert not shown.bare[covered].any()
    assert not shown.hairy.any()
