"""Following a face for its performance alone."""

import numpy as np
import pytest

from avatar3d.capture import CaptureConfig
from avatar3d.capture.performance import track_performance
from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_INDEX
from avatar3d.io.images import write_image
from avatar3d.motion.paths import head_angles
from avatar3d.motion.retargeting import retarget
from avatar3d.synth.clip import to_bytes


@pytest.mark.usefixtures("models")
def test_a_clips_performance_is_what_was_performed(clip, person, anny):
    performance = track_performance(clip, CaptureConfig(refine=False), anny)
    motion = retarget(performance.motion, effects=performance.effects)
    truth = person.expression[: len(motion)]
    assert len(motion) == len(person)

    def rmse(weights: np.ndarray) -> float:
        return float(np.sqrt(np.mean((weights - truth) ** 2)))

    assert rmse(motion.expression) <= 0.08
    assert rmse(motion.expression) < 0.9 * rmse(np.zeros_like(truth))
    assert rmse(motion.expression) < 0.9 * rmse(performance.motion.expression)
    for name in ("jawOpen", "eyeBlinkLeft"):
        column = ARKIT_INDEX[name]
        assert np.corrcoef(motion.expression[:, column], truth[:, column])[0, 1] > 0.85
    yaw, true_yaw = (head_angles(p)[0] for p in (motion.head_pose, person.performance.head))
    assert np.degrees((yaw - true_yaw).std()) < 1.5


@pytest.mark.usefixtures("models")
def test_a_picture_gives_one_frame_with_pose_and_expression(person, anny, tmp_path):
    jaw = person.expression[:, ARKIT_INDEX["jawOpen"]]
    index = int(jaw.argmax())
    write_image(tmp_path / "p.png", to_bytes(person.picture(index).image))
    motion = track_performance(tmp_path / "p.png", head=anny).motion
    assert len(motion) == 1
    assert motion.expression[0, ARKIT_INDEX["jawOpen"]] == pytest.approx(jaw[index], abs=0.12)
    ours = np.degrees(np.stack(head_angles(motion.head_pose)))[:, 0]
    theirs = np.degrees(np.stack(head_angles(person.performance.head[index : index + 1])))[:, 0]
    assert np.abs(ours - theirs).max() < 5


@pytest.mark.usefixtures("models")
def test_nobody_is_one_sentence(anny, tmp_path):
    write_image(tmp_path / "wall.png", np.full((200, 300, 3), 120, np.uint8))
    with pytest.raises(UserError, match="No face was found"):
        track_performance(tmp_path / "wall.png", head=anny)
    (tmp_path / "text.png").write_text("hello")
    for name in ("text.png", "absent.png", "absent.mp4"):
        with pytest.raises(UserError, match=name):
            track_performance(tmp_path / name, head=anny)
