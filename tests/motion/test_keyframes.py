"""Keyframes and emotions."""

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion import Motion
from avatar3d.motion.emotions import EMOTIONS, emotion, with_emotion
from avatar3d.motion.keyframes import keyframed, read_keyframes
from avatar3d.motion.paths import head_angles
from avatar3d.motion.sliders import expression_vector, pose

JAW = ARKIT_INDEX["jawOpen"]

EXAMPLE = """
fps: 50
keys:
  - time: 0
    expression: {jawOpen: 0, mouthSmile: 0.2}
  - {time: 0.5, expression: {jawOpen: 0.6}, yaw: 20, easing: linear}
  - {time: 1.5, gaze: [10, -5], yaw: 0, easing: linear}
  - {time: 2.0, expression: {jawOpen: 0.1}, easing: hold}
"""


def test_values_go_from_key_to_key(tmp_path):
    path = tmp_path / "k.yaml"
    path.write_text(EXAMPLE)
    motion = read_keyframes(path)
    assert (motion.fps, len(motion)) == (50, 101)
    jaw = motion.expression[:, JAW]
    assert jaw[[0, 25]] == pytest.approx([0, 0.6])
    assert jaw[12] == pytest.approx(0.6 * 12 / 25, abs=1e-6)
    assert jaw[26:100] == pytest.approx(0.6)  # held until the last moment
    assert jaw[100] == pytest.approx(0.1)
    for side in ("Left", "Right"):
        assert motion.expression[:, ARKIT_INDEX[f"mouthSmile{side}"]] == pytest.approx(0.2)
    yaw = np.degrees(head_angles(motion.head_pose)[0])
    assert yaw[[0, 25, 50, 75, 100]] == pytest.approx([20, 20, 10, 0, 0], abs=1e-3)
    np.testing.assert_allclose(np.degrees(motion.gaze[0]), [[10, -5]] * 2, atol=1e-4)


@pytest.mark.parametrize(
    ("easing", "middle", "steepest"),
    [("smooth", 0.5, "middle"), ("in", 0.25, "end"), ("out", 0.75, "start")],
)
def test_easings_have_the_shape_of_their_name(easing, middle, steepest):
    keys = [{"time": 0, "expression": {"jawOpen": 0}},
            {"time": 1, "expression": {"jawOpen": 1}, "easing": easing}]  # fmt: skip
    jaw = keyframed({"fps": 100, "keys": keys}).expression[:, JAW]
    assert jaw[50] == pytest.approx(middle)
    assert {0: "start", 1: "middle", 2: "end"}[np.argmax(np.diff(jaw)) // 34] == steepest


def test_what_is_not_named_is_left_to_others():
    motion = keyframed({"duration": 1, "keys": [{"time": 0, "yaw": 5}]})
    assert len(motion) == 25
    assert motion.expression is None
    assert motion.gaze is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "keys"), ("keys: []", "keys"), ("- 1", "keys"), ("keys: 3", "keys"),
        ("keys: [{time: 0}]", "no expression"),
        ("keys: [{yaw: 3}]", "time"),
        ("keys: [{time: 0, expression: {jawOpn: 1}}]", "did you mean 'jawOpen'"),
        ("keys: [{time: 0, expresion: {jawOpen: 1}}]", "did you mean 'expression'"),
        ("keys: [{time: 0, yaw: 1}, {time: 0, yaw: 2}]", "rise"),
        ("keys: [{time: 1, yaw: 1}, {time: 0.5, yaw: 2}]", "key 2"),
        ("keys: [{time: -1, yaw: 1}]", "time"),
        ("keys: [{time: .nan, yaw: 1}]", "time"),
        ("keys: [{time: 1e9, yaw: 1}]", "3600"),
        ("keys: [{time: 0, yaw: left}]", "number"),
        ("keys: [{time: 0, expression: {jawOpen: 3}}]", "0 to 1"),
        ("keys: [{time: 0, expression: [1]}]", "mapping"),
        ("keys: [{time: 0, gaze: 3}]", "gaze"),
        ("keys: [{time: 0, emotion: smiling}]", "did you mean 'smile'"),
        ("keys: [{time: 0, yaw: 1, easing: smoth}]", "did you mean 'smooth'"),
        ("fps: 0\nkeys: [{time: 0, yaw: 1}]", "fps"),
        ("keys: [{time: 0, yaw: !!python/object/apply:os.getcwd []}]", "Cannot read"),
        ("keys: [", "Cannot read"), ("[" * 5000, "Cannot read"), ("\x00", "Cannot read"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(tmp_path, text, said):
    path = tmp_path / "k.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_keyframes(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_names_without_a_side_mean_both():
    smile = expression_vector({"mouthSmile": 0.5})
    assert smile[ARKIT_INDEX["mouthSmileLeft"]] == smile[ARKIT_INDEX["mouthSmileRight"]] == 0.5
    for wrong in ("jaw", "mouth", "Left", ""):
        with pytest.raises(UserError, match="did you mean"):
            expression_vector({wrong: 0.5})


@pytest.mark.parametrize("name", list(EMOTIONS))
def test_moods_scale_and_leave_the_rest_alone(name):
    full, half = emotion(name).expression[0], emotion(name, 0.5).expression[0]
    np.testing.assert_allclose(half, full / 2, atol=1e-6)
    quiet = Motion(25, np.zeros((50, len(ARKIT_52))))
    moody = with_emotion(quiet, name).expression
    assert np.abs(np.diff(moody, axis=0)).max() < 0.1
    np.testing.assert_allclose(moody[-1], full, atol=1e-6)
    for side in ("Left", "Right"):
        assert np.ptp(full[[ARKIT_INDEX[f"mouthSmile{side}"]]]) == 0
    other = "surprised" if name == "smile" else "smile"
    assert not np.allclose(full, emotion(other).expression[0])


def test_a_mood_lets_the_mouth_speak():
    """Closed lips stay closed, and an open mouth is not opened further than it was by much."""
    closed = pose({"mouthClose": 0.5, "mouthPress": 0.5}).at(np.zeros(50))
    wide = pose({"jawOpen": 0.6}).at(np.zeros(50))
    assert with_emotion(closed, "surprised").expression[-1, JAW] == pytest.approx(0)
    assert with_emotion(wide, "surprised").expression[-1, JAW] < 0.66
    smiling = with_emotion(wide, "smile").expression[-1, ARKIT_INDEX["mouthSmileLeft"]]
    assert 0.2 < smiling < 0.3
    with pytest.raises(UserError, match="did you mean 'smile'"):
        emotion("smil")
    with pytest.raises(UserError, match="intensity"):
        emotion("smile", 9)
