"""Held-out cameras: what is asked of an avatar is what the other camera sees."""

import numpy as np
import pytest

from avatar3d.evaluation.cameras import held_out_cameras
from avatar3d.head import load_head
from avatar3d.subject import PARSING_LABELS
from avatar3d.synth import SyntheticClip, make_synthetic
from avatar3d.synth.clip import to_bytes


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    return make_synthetic(seed=2, seconds=1, fps=10, size=128, head=load_head())


class Knowing:
    """An avatar that is the truth, plus what `spoil` adds to it."""

    def __init__(self, clip, degrees, frames, spoil) -> None:
        self.clip, self.spoil, self.motions = clip, spoil, []
        self.asked = iter([(angle, list(frames)) for angle in degrees])

    def render_motion(self, motion, camera=None, background=None):
        self.motions.append(motion)
        angle, frames = next(self.asked)
        for index in frames:
            picture = self.clip.picture_from(index, np.deg2rad(angle))
            yield self.spoil(to_bytes(picture.image), picture)


def test_a_known_error_has_its_analytic_psnr(clip):
    degrees, frames = (-40, 20), (1, 7)

    def spoil(image, picture):
        return np.where(image < 128, image + 10, image - 10).astype(np.uint8)

    scores, pictures = held_out_cameras(
        Knowing(clip, degrees, frames, spoil), clip, degrees, frames
    )
    assert list(scores) == [-40, 20]
    assert list(scores.values()) == pytest.approx([20 * np.log10(25.5)] * 2, abs=1e-6)
    assert len(pictures) == 2


def test_only_the_head_and_its_outline_count(clip):
    degrees, frames = (-20, 20), (3,)

    def clothes(image, picture):
        return np.where((picture.label == PARSING_LABELS.index("clothes"))[..., None], 0, image)

    def far_background(image, picture):
        image = image.copy()
        image[:6, :6] = 255
        return image

    for spoil in (clothes, far_background):
        avatar = Knowing(clip, degrees, frames, spoil)
        assert min(held_out_cameras(avatar, clip, degrees, frames)[0].values()) > 35


def test_the_motion_puts_the_head_where_the_camera_sees_it(clip):
    """The tip of the nose, posed by the motion, is on the nose of the picture."""
    degrees, frames = (-20, 0, 20), (2, 8)
    avatar = Knowing(clip, degrees, frames, lambda image, picture: image)
    held_out_cameras(avatar, clip, degrees, frames)
    model, nose = clip.head, PARSING_LABELS.index("nose")
    for angle, motion in zip(degrees, avatar.motions, strict=True):
        for row, index in enumerate(frames):
            posed = clip.shaped.posed(motion.expression[row], motion.gaze[row])
            pose = clip.T_camera_rest @ motion.head_pose[row]
            tip = model.landmarks_of(posed)[4] @ pose[:3, :3].T + pose[:3, 3]
            column, line = np.floor(clip.camera.project(tip[None]))[0].astype(int)
            label = clip.picture_from(index, np.deg2rad(angle)).label
            assert label[line, column] == nose


def test_light_stays_where_it_is_when_the_camera_moves(clip):
    """The same spot of the cheek keeps its colour; by the camera's light it would change."""
    cheeks = [50, 280]  # one on each side
    seen = []
    for yaw in (0.0, np.deg2rad(15)):
        picture = clip.picture_from(4, yaw)
        points = clip.head.landmarks_of(clip.vertices(4)) @ clip.orbit(yaw)[:3, :3].T
        pixel = np.floor(clip.camera.project(points + clip.orbit(yaw)[:3, 3])).astype(int)
        seen.append(
            [picture.image[v - 1 : v + 2, u - 1 : u + 2].mean((0, 1)) for u, v in pixel[cheeks]]
        )
    assert np.abs(np.subtract(*seen)).max() < 0.03
