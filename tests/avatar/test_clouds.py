"""What no frame shows starts in the colours of what is beside it, or on the other side."""

import numpy as np

from avatar3d.avatar import SplatState
from avatar3d.avatar.clouds import bound_cloud
from avatar3d.avatar.views import Shown
from avatar3d.head import HeadModel
from avatar3d.subject import PARSING_LABELS


class OneSidedViews:
    """Frames that show the person's left half, and the right one's front; colours by place.

    `shade` darkens the right half.
    """

    def __init__(self, head, front: float = np.inf, shade: float = 0.0) -> None:
        self.head, self.front, self.shade = head, front, shade

    def look(self, faces: np.ndarray, bary: np.ndarray) -> Shown:
        points = (self.head.vertices[self.head.model.faces[faces]] * bary[:, :, None]).sum(1)
        seen = (points[:, 0] > 0) | (points[:, 2] > self.front)
        color = np.where(seen[:, None], self.paint(points), 0.0)
        label = np.where(seen, PARSING_LABELS.index("skin"), 0).astype(np.uint8)
        return Shown(color, seen, np.where(seen, 1.0, -1.0), label)

    def paint(self, points: np.ndarray) -> np.ndarray:
        return symmetric_paint(points) - self.shade * (points[:, :1] < 0)


def symmetric_paint(points: np.ndarray) -> np.ndarray:
    return 0.5 + 3 * points * np.where(points[:, :1] < 0, [-1, 1, 1], 1)


def test_the_unseen_half_is_mirrored(small_head: HeadModel) -> None:
    head = small_head.shaped(np.zeros(4))
    cloud = bound_cloud(head, OneSidedViews(head), 3000, np.random.default_rng(0))
    points = (head.vertices[small_head.faces[cloud.face]] * cloud.bary[:, :, None]).sum(1)
    unseen = (cloud.part == SplatState.PARTS.index("skin")) & (points[:, 0] < 0)
    error = np.abs(cloud.color - symmetric_paint(points))[unseen]
    assert unseen.sum() > 500
    assert np.median(error) < 0.02
    assert np.quantile(error, 0.95) < 0.15


def test_the_unseen_half_is_lit_as_what_is_seen_of_it(small_head: HeadModel) -> None:
    """A lamp at one side must not make the other side's unseen jaw and temple pale."""
    head = small_head.shaped(np.zeros(4))
    views = OneSidedViews(head, front=0.02, shade=0.2)
    cloud = bound_cloud(head, views, 3000, np.random.default_rng(0))
    points = (head.vertices[small_head.faces[cloud.face]] * cloud.bary[:, :, None]).sum(1)
    skin = cloud.part == SplatState.PARTS.index("skin")
    unseen = skin & (points[:, 0] < -0.02) & (points[:, 2] < 0.0)
    error = (cloud.color - views.paint(points))[unseen]
    assert unseen.sum() > 300
    assert abs(np.median(error)) < 0.04  # 0.2 without


def test_what_no_frame_shows_does_not_widen_the_person(small_head: HeadModel) -> None:
    """Two deviations along the normal of what is unseen end at the surface, where it cannot learn
    to; what is seen starts on it."""
    head = small_head.shaped(np.zeros(4))
    cloud = bound_cloud(head, OneSidedViews(head), 3000, np.random.default_rng(0))
    assert cloud.shown is not None
    skin = cloud.part == SplatState.PARTS.index("skin")
    unseen = skin & ~cloud.shown.seen
    reach = cloud.position[:, 2] + 2 * 0.18 * cloud.spacing
    assert unseen.sum() > 500
    assert (reach[unseen] < 1e-6).all()
    assert (reach[unseen] > -0.2 * cloud.spacing[unseen]).all()
    assert (cloud.position[skin & cloud.shown.seen] == 0).all()
