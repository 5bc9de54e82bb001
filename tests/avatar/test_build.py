"""An avatar's first state, on the default head."""

import numpy as np
import pytest

from avatar3d.avatar.build import behind_lids
from avatar3d.geometry import Camera
from avatar3d.head import load_head
from avatar3d.head.arkit import ARKIT_INDEX
from avatar3d.head.model import PARTS, ShapedHead
from avatar3d.kernels import rasterize_mesh

SIZE, SKIN_DEEP = 256, 0.002  # pixels; metres that a Gaussian may stick out of its surface


@pytest.fixture(scope="module")
def head() -> ShapedHead:
    model = load_head()
    return model.shaped(np.zeros(len(model.identity)))


def eye_pixels(head: ShapedHead, blink: float, forward: float = 0.0) -> int:
    """How many pixels show an eyeball that stands out of its surface by so much."""
    weights = np.zeros(len(head.expression))
    weights[[ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]] = blink
    vertices = head.posed(weights, np.zeros((2, 2)))
    eyes = np.isin(head.model.part, [PARTS.index(name) for name in ("eye_left", "eye_right")])
    vertices = vertices + np.where(eyes[:, None], [0, 0, forward], 0)
    points = vertices * [1, -1, -1] + [0, 0, 0.6]
    camera = Camera.from_focal(5 * SIZE, SIZE, SIZE)
    camera.K[:2, 2] -= camera.project(points[eyes]).mean(0) - SIZE / 2
    screen = np.concatenate([camera.project(points), points[:, 2:]], 1).astype(np.float32)
    lashes = head.model.part == PARTS.index("lashes")
    faces = head.model.faces[~lashes[head.model.faces].any(1)]
    shown, _, _ = rasterize_mesh(screen, faces, SIZE, SIZE)
    return int(eyes[faces[shown[shown >= 0], 0]].sum())


def test_closed_lids_hide_the_eyes(head: ShapedHead) -> None:
    seen = eye_pixels(head, 0)
    assert seen > 500
    assert eye_pixels(head, 1, SKIN_DEEP) > 0.3 * seen
    assert eye_pixels(behind_lids(head), 1, SKIN_DEEP) < 0.005 * seen


def test_open_eyes_look_alike(head: ShapedHead) -> None:
    """The irises show where they were; the eyeballs still fill the opening."""
    moved = behind_lids(head)
    assert eye_pixels(moved, 0) == pytest.approx(eye_pixels(head, 0), rel=0.1)
    np.testing.assert_allclose(moved.eye_centers[:, :2], head.eye_centers[:, :2])
