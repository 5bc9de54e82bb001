"""Head paths, sliders, idle motion and the whole performance for a sound."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from avatar3d.audio import embedding
from avatar3d.config import compose
from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion import Motion, MotionConfig
from avatar3d.motion.idle import MOUTH_COLUMNS, blinks, idle
from avatar3d.motion.paths import nod, orbit, shake, still
from avatar3d.motion.sliders import expression_vector, pose
from avatar3d.motion.speech import motion_for_audio


def facing(motion: Motion) -> np.ndarray:
    """(T, 3) direction of the face in the head frame of the rest pose: x left, y up, z out."""
    assert motion.head_pose is not None
    return motion.head_pose[:, :3, 2]


def speech_like(seconds: float = 4.0) -> np.ndarray:
    t = np.arange(round(seconds * 16_000)) / 16_000
    loud = (np.sin(2 * np.pi * 3 * t) > 0) * (t > 1) * (t < seconds - 1)
    voice = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 20))
    return (0.1 * loud * voice).astype(np.float32)


@pytest.fixture
def captured() -> Motion:
    """Two seconds at 30 fps in which everything moves."""
    t = np.arange(60) / 30
    expression = np.zeros((60, 52))
    expression[:, ARKIT_INDEX["browInnerUp"]] = 0.3
    expression[:, ARKIT_INDEX["mouthSmileLeft"]] = 0.2
    expression[:, ARKIT_INDEX["jawOpen"]] = np.abs(np.sin(8 * t)) * 0.5
    head = orbit(2, 30, 10).head_pose
    return Motion(30, expression, head, np.full((60, 2, 2), 0.05), None, head)


def test_orbit_turns_as_far_as_asked_to_both_sides_and_returns() -> None:
    motion = orbit(8, 25, degrees=30)
    yaw = np.degrees(np.arctan2(facing(motion)[:, 0], facing(motion)[:, 2]))
    assert yaw.max() == pytest.approx(30, abs=0.5)
    assert yaw.min() == pytest.approx(-30, abs=0.5)
    assert np.argmax(yaw) < np.argmin(yaw)
    assert len(motion) == 200
    assert motion.head_pose is not None
    assert np.allclose(motion.head_pose[[0, -1]], np.eye(4), atol=1e-6)


def test_nod_goes_down_and_shake_goes_sideways() -> None:
    down, side = facing(nod(4, 25, 12)), facing(shake(4, 25, 15))
    assert np.degrees(np.arcsin(down[:, 1].min())) == pytest.approx(-12, abs=0.6)
    assert np.abs(down[:, 0]).max() < 1e-6
    assert np.degrees(np.arcsin(side[:, 0].max())) == pytest.approx(15, abs=0.8)
    assert np.abs(side[:, 1]).max() < 1e-6


@pytest.mark.parametrize("make", [orbit, nod, shake, still])
def test_paths_are_rigid_smooth_and_turn_about_the_neck(make) -> None:
    motion = make(4, 50)
    rotation = motion.head_pose[:, :3, :3].astype(np.float64)
    assert np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-6)
    assert np.allclose(np.linalg.det(rotation), 1)
    step = Rotation.from_matrix(rotation[1:] @ rotation[:-1].transpose(0, 2, 1)).magnitude()
    assert np.degrees(step).max() < 4
    neck = np.array([0, -0.06, -0.015, 1])
    assert np.allclose(motion.head_pose @ neck, neck, atol=1e-6)


def test_paths_refuse_impossible_lengths() -> None:
    for seconds, fps in ((0, 25), (-1, 25), (np.nan, 25), (1, 0), (1e9, 25)):
        with pytest.raises(UserError):
            orbit(seconds, fps)


def test_sliders_turn_the_head_as_their_names_say() -> None:
    left, up = facing(pose(yaw=0.3))[0], facing(pose(pitch=0.2))[0]
    assert np.allclose(left, [np.sin(0.3), 0, np.cos(0.3)], atol=1e-6)
    assert np.allclose(up, [0, np.sin(0.2), np.cos(0.2)], atol=1e-6)
    tilted = pose(roll=0.1).head_pose
    assert tilted is not None
    assert np.allclose(tilted[0, :3, 1], [np.sin(0.1), np.cos(0.1), 0], atol=1e-6)
    looking = pose(gaze=(0.1, -0.05)).gaze
    assert looking is not None
    assert np.allclose(looking, [[[0.1, -0.05]] * 2])


def test_slider_names_are_checked() -> None:
    assert expression_vector({"jawOpen": 0.5})[ARKIT_INDEX["jawOpen"]] == 0.5
    assert expression_vector({"eyeBlinkLeft": 7}).max() == 1
    assert not expression_vector(None).any()
    with pytest.raises(UserError, match="did you mean 'jawOpen'"):
        expression_vector({"jaw_open": 1})
    for wrong in (np.zeros(51), {"jawOpen": float("nan")}):
        with pytest.raises(UserError):
            pose(wrong)
    with pytest.raises(UserError):
        pose(yaw=float("inf"))


def test_idle_blinks_at_a_human_rate_and_closes_the_eyes() -> None:
    closed = blinks(25 * 600, 25, np.random.default_rng(0))
    count = np.sum((closed[1:] > 0.5) & (closed[:-1] <= 0.5))
    assert 8 <= count / 10 <= 25
    assert closed.max() > 0.95
    assert np.mean(closed > 0.5) < 0.1


def test_idle_is_seeded_calm_and_starts_at_rest() -> None:
    first, again, other = (idle(20, 25, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.expression, again.expression)
    assert not np.array_equal(first.head_pose, other.head_pose)
    assert np.allclose(first.head_pose[0], np.eye(4), atol=1e-6)
    angle = Rotation.from_matrix(first.head_pose[:, :3, :3]).magnitude()
    assert 0.5 < np.degrees(angle).mean() < 6
    assert np.degrees(np.abs(first.gaze)).max() < 15
    assert not first.expression[:, MOUTH_COLUMNS].any()
    with pytest.raises(UserError):
        idle(0)


def test_idle_plays_a_capture_forth_and_back_without_its_mouth(captured: Motion) -> None:
    motion = idle(7, 25, base=captured)
    assert len(motion) == 175
    assert np.allclose(motion.expression[:, ARKIT_INDEX["browInnerUp"]], 0.3)
    assert not motion.expression[:, MOUTH_COLUMNS].any()
    assert np.abs(np.diff(motion.head_pose, axis=0)).max() < 0.05
    assert np.allclose(motion.torso_pose, motion.head_pose)
    only_pose = Motion(30, head_pose=captured.head_pose)
    assert idle(7, 25, base=only_pose).expression[:, ARKIT_INDEX["eyeBlinkLeft"]].max() > 0.9


@pytest.fixture
def no_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "available", lambda: False)


def test_a_performance_has_the_mouth_of_the_sound_and_the_rest_of_the_capture(
    captured: Motion,
) -> None:
    samples = speech_like()
    motion = motion_for_audio(None, samples, 25, captured, MotionConfig(driver="energy"))
    assert len(motion) == 100
    jaw = motion.expression[:, ARKIT_INDEX["jawOpen"]]
    assert jaw[30:70].max() > 0.1
    assert np.r_[jaw[:18], jaw[85:]].max() < 0.01
    assert np.allclose(motion.expression[:, ARKIT_INDEX["browInnerUp"]], 0.3)
    # The person smiles a little even with the mouth closed, so the avatar does too.
    assert np.allclose(motion.expression[:10, ARKIT_INDEX["mouthSmileLeft"]], 0.2, atol=1e-3)
    assert np.allclose(motion.gaze, 0.05)
    assert np.ptp(motion.head_pose[:, 0, 2]) > 0.2


@pytest.mark.parametrize("path", ["orbit", "nod", "shake", "still"])
def test_pose_can_come_from_a_path(captured: Motion, path: str) -> None:
    config = MotionConfig(driver="energy", pose=path)
    motion = motion_for_audio(None, speech_like(10), 25, captured, config)
    assert motion.torso_pose is None
    assert np.allclose(motion.head_pose[0], np.eye(4), atol=1e-5)
    assert (np.ptp(facing(motion), axis=0).max() > 0.01) == (path != "still")
    assert np.abs(np.diff(motion.head_pose, axis=0)).max() < 0.1


def test_idle_head_and_eyes_are_new_but_the_persons(captured: Motion) -> None:
    config = MotionConfig(driver="energy", pose="idle", eyes="idle", seed=4)
    samples = speech_like(6)
    longer = captured.at(np.tile(np.r_[:60, 59:-1:-1], 3).astype(float))
    motion, again = (motion_for_audio(None, samples, 25, longer, config) for _ in range(2))
    np.testing.assert_array_equal(motion.head_pose, again.head_pose)
    played = motion_for_audio(None, samples, 25, longer, MotionConfig(driver="energy"))
    assert not np.allclose(motion.head_pose, played.head_pose, atol=1e-2)
    assert facing(motion)[:, 0].std() == pytest.approx(facing(longer)[:, 0].std(), rel=0.5)
    assert motion.expression[:, ARKIT_INDEX["eyeBlinkLeft"]].max() > 0.9  # none in the clip
    still = replace(config, intensity=0)
    assert np.ptp(motion_for_audio(None, samples, 25, longer, still).head_pose, 0).max() < 1e-3


def test_a_mood_lies_over_the_whole_performance(captured: Motion) -> None:
    samples, smile = speech_like(), ARKIT_INDEX["mouthSmileRight"]
    plain = motion_for_audio(None, samples, 25, captured, MotionConfig(driver="energy"))
    happy = motion_for_audio(
        None, samples, 25, captured, MotionConfig(driver="energy", emotion="smile")
    )
    assert plain.expression[90, smile] == pytest.approx(0, abs=0.02)
    assert happy.expression[90, smile] == pytest.approx(0.5, abs=0.02)


def test_known_phonemes_shape_the_mouth() -> None:
    phonemes = [("a", 0.3, 0.7), ("m", 0.7, 0.85), ("a", 0.85, 1.2)]
    samples = speech_like(3)
    motion = motion_for_audio(None, samples, 25, phonemes=phonemes)
    jaw = motion.expression[:, ARKIT_INDEX["jawOpen"]]
    assert len(motion) == 75
    assert jaw[[12, 25]].min() > 0.2
    lips = motion.expression[:, ARKIT_INDEX["mouthClose"]]
    assert lips[19] > 0.5 * jaw[19]
    assert jaw[45:].max() < 0.01  # the sound goes on, but nothing is said
    with pytest.raises(UserError, match="driver=auto"):
        motion_for_audio(None, samples, 25, config=MotionConfig(driver="visemes"))


@pytest.mark.usefixtures("no_embedding")
def test_every_avatar_can_talk_even_without_speech_models(
    capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avatar3d.motion import universal

    monkeypatch.setenv("AVATAR3D_CACHE", str(tmp_path))
    universal.load_universal.cache_clear()
    motion = motion_for_audio(None, speech_like(), 25)
    assert motion.source == "audio energy"
    assert motion.expression[:, ARKIT_INDEX["jawOpen"]].max() > 0.1
    assert "loudness" in capsys.readouterr().err
    with pytest.raises(UserError, match="onnxruntime"):
        motion_for_audio(None, speech_like(), 25, config=MotionConfig(driver="universal"))
    with pytest.raises(UserError, match="no audio driver of its own"):
        motion_for_audio(None, speech_like(), 25, config=MotionConfig(driver="personal"))


def test_empty_sound_is_refused() -> None:
    for samples in (np.zeros(0), np.full(800, np.inf)):
        with pytest.raises(UserError):
            motion_for_audio(None, samples, 25, config=MotionConfig(driver="energy"))


def test_options_are_checked_and_the_preset_holds_the_defaults() -> None:
    assert compose("motion", MotionConfig) == MotionConfig()
    assert compose("motion", MotionConfig, ["pose=orbit", "opening=1.2"]).opening == 1.2
    for wrong in (
        {"driver": "magic"}, {"pose": "jump"}, {"eyes": "shut"}, {"opening": 9},
        {"emotion": "envy"}, {"intensity": -1}, {"emotion_intensity": 3},
    ):  # fmt: skip
        with pytest.raises(UserError, match=next(iter(wrong))):
            MotionConfig(**wrong)
    assert len(MOUTH_COLUMNS) == sum(
        n.startswith(("jaw", "mouth", "tongue", "cheekPuff")) for n in ARKIT_52
    )
