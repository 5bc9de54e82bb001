"""`avatar3d motion` as a person types it."""

from functools import partial

import numpy as np
import pytest

from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.io.images import read_image
from avatar3d.motion import Motion
from avatar3d.motion.paths import head_angles, orbit

JAW, BLINK = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["eyeBlinkLeft"]
KEYS = "keys: [{time: 0, yaw: 0}, {time: 1, yaw: 20, expression: {jawOpen: 0.5}}]\n"


@pytest.fixture
def run(run_here):
    return partial(run_here, "motion")


@pytest.fixture
def files(tmp_path):
    """talk.npz, 4 s with a moving jaw; eyes.npz, 2 s with two blinks; keys.yaml."""
    time = np.arange(100) / 25
    talk = np.zeros((100, len(ARKIT_52)))
    talk[:, JAW] = 0.5 * np.sin(6 * time) ** 2
    Motion(25, talk, orbit(4).head_pose).save(tmp_path / "talk.npz")
    eyes = np.zeros((60, len(ARKIT_52)))
    for start in (10, 40):
        eyes[start : start + 6, [BLINK, ARKIT_INDEX["eyeBlinkRight"]]] = 0.9
    Motion(30, eyes, gaze=np.full((60, 2, 2), 0.1)).save(tmp_path / "eyes.npz")
    (tmp_path / "keys.yaml").write_text(KEYS)
    return tmp_path


def test_show_describes_and_draws(run, files):
    result = run("show", "eyes.npz", "-o", "eyes.png", "--width", "900")
    assert result.returncode == 0, result.stderr
    assert "60 frames at 30 a second, 2.00 s" in result.stdout
    assert "blinks: 60.0 a minute of 0.2" in result.stdout
    picture = read_image(files / "eyes.png")
    assert picture.shape[1] == 900
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 4
    with_sound = read_image(files / "eyes.png").shape[0]
    from avatar3d.audio import save_wav

    save_wav(files / "s.wav", np.sin(np.arange(32_000) / 20).astype(np.float32))
    assert run("show", "eyes.npz", "-o", "sound.png", "--audio", "s.wav").returncode == 0
    assert read_image(files / "sound.png").shape[0] > with_sound + 100


def test_convert_goes_through_every_format_and_changes_on_the_way(run, files):
    assert run("convert", "talk.npz", "-o", "talk.csv").returncode == 0
    assert run("convert", "talk.csv", "-o", "back.npz").returncode == 0
    talk, back = Motion.load(files / "talk.npz"), Motion.load(files / "back.npz")
    np.testing.assert_allclose(back.expression, talk.expression, atol=1e-6)
    changed = run("convert", "keys.yaml", "-o", "k.npz", "--speed", "0.5", "--fps", "50",
                  "--emotion", "smile", "--smooth", "0.05")  # fmt: skip
    assert changed.returncode == 0, changed.stderr
    motion = Motion.load(files / "k.npz")
    assert (motion.fps, len(motion)) == (50, 104)
    assert np.degrees(head_angles(motion.head_pose)[0][-1]) == pytest.approx(20, abs=1)
    assert motion.expression[-1, ARKIT_INDEX["mouthSmileLeft"]] > 0.2
    assert run("convert", "talk.npz", "-o", "l.npz", "--start", "1", "--end", "3",
               "--loop", "9").returncode == 0  # fmt: skip
    loop = Motion.load(files / "l.npz")
    assert loop.duration == pytest.approx(9)
    assert np.abs(np.diff(loop.expression, axis=0)).max() < 0.3


def test_compose_takes_parts_and_goes_on(run, files):
    result = run("compose", "--mouth", "talk.npz", "--eyes", "eyes.npz", "--pose", "orbit",
                 "--then", "keys.yaml", "--fade", "0.4", "-o", "all.npz")  # fmt: skip
    assert result.returncode == 0, result.stderr
    motion = Motion.load(files / "all.npz")
    assert len(motion) == 100 + 26 - 10
    talk = Motion.load(files / "talk.npz")
    np.testing.assert_allclose(motion.expression[:90, JAW], talk.expression[:90, JAW], atol=1e-6)
    assert motion.expression[:50, BLINK].max() > 0.8
    assert np.degrees(np.ptp(head_angles(motion.head_pose)[0])) > 40


def test_retarget_gives_plain_weights(run, files):
    leaked = np.full((100, len(ARKIT_52)), 0.1)
    leaked[:, JAW] += 0.4 * np.sin(np.arange(100) / 4) ** 2
    Motion(25, leaked).save(files / "actor.npz")
    assert run("retarget", "actor.npz", "-o", "plain.csv").returncode == 0
    plain = Motion.load(files / "plain.csv").expression
    assert plain[:, JAW].max() == pytest.approx(0.4, abs=0.02)
    assert np.delete(plain, JAW, 1).max() < 1e-3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "absent.npz"), "absent.npz"),
        (("show", "keys.txt"), "keys.txt"),
        (("convert", "talk.npz", "-o", "talk.foo"), "csv, json or npz"),
        (("convert", "talk.npz", "-o", "t.npz", "--start", "7"), "4.00 s"),
        (("convert", "talk.npz", "-o", "t.npz", "--speed", "0"), "speed"),
        (("convert", "talk.npz", "-o", "t.npz", "--emotion", "smle"), "did you mean 'smile'"),
        (("compose", "-o", "t.npz"), "mouth, pose and eyes"),
        (("compose", "--pose", "orbits", "-o", "t.npz"), "orbits"),
        (("compose", "--mouth", "talk.npz", "--fill", "x", "-o", "t.npz"), "turn, loop or hold"),
        (("retarget", "absent.mp4", "-o", "t.npz"), "absent.mp4"),
        (("convert", "bad.yaml", "-o", "t.npz"), "did you mean 'jawOpen'"),
    ],
)
def test_mistakes_are_one_sentence(run, files, arguments, said):
    (files / "bad.yaml").write_text("keys: [{time: 0, expression: {jawOpn: 1}}]")
    (files / "keys.txt").write_text(KEYS)
    result = run(*arguments)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert said in result.stderr
