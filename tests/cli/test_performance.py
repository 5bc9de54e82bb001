"""What `avatar3d render` performs for which options."""

from types import SimpleNamespace

import numpy as np
import pytest

from avatar3d.audio import load_audio, save_wav
from avatar3d.cli.performance import Wish, performance
from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion import Motion, MotionConfig
from avatar3d.motion.paths import head_angles, orbit

JAW, SMILE, BROW = (ARKIT_INDEX[n] for n in ("jawOpen", "mouthSmileLeft", "browInnerUp"))
CALM = MotionConfig(driver="energy")


@pytest.fixture
def avatar():
    """Something with a captured motion of 4 s and no driver of its own."""
    captured = Motion(25, np.full((100, len(ARKIT_52)), 0.05), orbit(4, degrees=5).head_pose)
    return SimpleNamespace(idle_motion=captured, driver=None)


@pytest.fixture
def files(tmp_path):
    time = np.arange(32_000) / 16_000
    voice = 0.2 * np.sin(2 * np.pi * 150 * time) * (np.sin(9 * time) > 0)
    save_wav(tmp_path / "s.wav", voice.astype(np.float32))
    expression = np.zeros((50, len(ARKIT_52)))
    expression[:, JAW] = 0.3
    Motion(25, expression, orbit(2).head_pose).save(tmp_path / "m.npz")
    (tmp_path / "k.yaml").write_text("keys: [{time: 0, yaw: 10, expression: {mouthSmile: 0.5}}]")
    return tmp_path


def performed(avatar, config=CALM, pose=None, **wish):
    with performance(avatar, config, Wish(**wish), pose) as (motion, sound):
        return motion, sound


def test_a_motion_is_performed_as_it_is_and_may_have_sound(avatar, files):
    motion, sound = performed(avatar, motion=str(files / "m.npz"))
    np.testing.assert_allclose(motion.expression[:, JAW], 0.3)
    assert sound is None
    _, sound = performed(avatar, motion=str(files / "m.npz"), audio=files / "s.wav")
    assert sound == files / "s.wav"
    captured, _ = performed(avatar, motion="captured")
    np.testing.assert_array_equal(captured.expression, avatar.idle_motion.expression)


def test_a_mood_and_a_path_go_over_any_motion(avatar, files):
    happy = MotionConfig(emotion="smile")
    motion, _ = performed(avatar, happy, "still", motion=str(files / "m.npz"))
    assert motion.expression[-1, SMILE] > 0.2
    np.testing.assert_allclose(motion.head_pose, np.tile(np.eye(4), (50, 1, 1)), atol=1e-6)
    idle = MotionConfig(pose="idle", eyes="idle")
    motion, _ = performed(avatar, idle, "idle", motion=str(files / "m.npz"))
    np.testing.assert_allclose(motion.expression[:, JAW], 0.3)
    np.testing.assert_allclose(motion.expression[:, BROW], 0.05, atol=1e-6)  # the avatar's own
    turned = np.degrees(np.ptp(head_angles(motion.head_pose)[0]))
    assert 1 < turned < 10.5


def test_keyframes_alone_or_on_top_of_speech(avatar, files):
    motion, sound = performed(avatar, keyframes=files / "k.yaml")
    assert np.degrees(head_angles(motion.head_pose)[0]) == pytest.approx(10, abs=1e-3)
    assert sound is None
    speech, sound = performed(avatar, audio=files / "s.wav")
    both, _ = performed(avatar, audio=files / "s.wav", keyframes=files / "k.yaml")
    assert sound == files / "s.wav"
    np.testing.assert_allclose(both.expression[:, JAW], speech.expression[:, JAW])
    np.testing.assert_allclose(both.expression[:, SMILE], speech.expression[:, SMILE] + 0.5)
    yaw = head_angles(both.head_pose)[0] - head_angles(speech.head_pose)[0]
    assert np.degrees(yaw) == pytest.approx(10, abs=0.1)


def test_a_text_comes_with_its_sound_and_lips_of_its_phonemes(avatar):
    pytest.importorskip("espeakng_loader")
    with performance(avatar, MotionConfig(), Wish(text="Papa"), None) as (motion, sound):
        samples, rate = load_audio(sound)
        assert len(samples) / rate == pytest.approx(motion.duration, abs=0.05)
    assert motion.source == "phonemes"
    assert not sound.exists()


def test_anothers_motion_is_retargeted(avatar, files):
    motion, _ = performed(avatar, performance=files / "m.npz")
    # The actor's jaw is at 0.3 all the time: that is its resting face, ours is at 0.05.
    np.testing.assert_allclose(motion.expression[:, JAW], 0.05, atol=1e-6)
    assert motion.torso_pose is None


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({}, "one of --audio"),
        ({"audio": "s.wav", "text": "hi"}, "--audio and --text"),
        ({"motion": "m.npz", "text": "hi"}, "--motion and --text"),
        ({"motion": "m.npz", "performance": "m.npz"}, "--motion and --performance"),
        ({"text": "  "}, "1 to"),
        ({"text": "hi", "language": "elvish"}, "no language"),
        ({"text": "hi", "voice": "nobody"}, "no voice"),
        ({"motion": "absent.npz"}, "absent.npz"),
        ({"keyframes": "absent.yaml"}, "absent.yaml"),
        ({"performance": "absent.mp4"}, "absent.mp4"),
    ],
)
def test_what_cannot_be_performed_is_one_sentence(avatar, wish, said):
    with pytest.raises(UserError, match=said) as caught:
        performed(avatar, **wish)
    assert "\n" not in str(caught.value)
