"""What no frame shows starts in the colours of what is beside it, or on the other side."""

import numpy as np

from avatar3d.avatar import SplatState
from avatar3d.avatar.clouds import bound_cloud
from avatar3d.avatar.views import Shown
from avatar3d.head import HeadModel


class OneSidedViews:
    """Frames that show the person's left half only, whose colours depend on the place."""

    def __init__(self, head) -> None:
        self.head = head

    def look(self, faces: np.ndarray, bary: np.ndarray) -> Shown:
        points = (self.head.vertices[self.head.model.faces[faces]] * bary[:, :, None]).sum(1)
        seen = points[:, 0] > 0
        color = np.where(seen[:, None], symmetric_paint(points), 0.0)
        return Shown(color, seen, np.where(seen, 1.0, -1.0), color, color)


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
