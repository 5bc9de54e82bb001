"""Blinks found and made again, and motion in a person's own manner."""

from itertools import pairwise

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion import Motion
from avatar3d.motion.blinks import BlinkHabit, find_blinks, lid_closure, without_blinks
from avatar3d.motion.idle import MOUTH_COLUMNS
from avatar3d.motion.manner import in_manner, speech_effort
from avatar3d.motion.paths import head_angles, head_rotations

LIDS = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]
LENGTHS = {25: (0.12, 0.2, 0.28), 30: (0.1, 0.3), 60: (0.15,)}


def person(
    fps: float = 25, seconds: float = 20, every: float = 2.5, width: float = 0.2, seed: int = 0
) -> Motion:
    """Blinks of triangular shape, `width` s at half height; a head that nods while it talks."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * fps)) / fps
    closed = 0.05 + 0.03 * np.sin(time) + rng.normal(0, 0.01, len(time))
    moments = np.arange(0.7, seconds - 0.5, every) + rng.uniform(
        0, 0.3, len(np.arange(0.7, seconds - 0.5, every))
    )
    for moment in moments:
        closed = np.maximum(closed, 0.9 * np.clip(1 - np.abs(time - moment) / (2 * width), 0, 1))
    expression = np.zeros((len(time), len(ARKIT_52)))
    expression[:, LIDS] = np.clip(closed, 0, 1)[:, None]
    talking = (np.mod(time, 8) < 4).astype(float)
    expression[:, ARKIT_INDEX["jawOpen"]] = 0.3 * talking * np.abs(np.sin(9 * time))
    expression[:, ARKIT_INDEX["browInnerUp"]] = 0.2 + 0.2 * np.sin(0.9 * time)
    yaw = 0.08 * np.sin(0.6 * time + 1)
    nod = talking * 0.1 * np.sin(7 * time)
    gaze = np.repeat(np.stack([-yaw, 0 * yaw], 1)[:, None], 2, 1)
    head = head_rotations(yaw, nod, 0 * yaw)
    return Motion(fps, expression, head, gaze, None, head)


def rate_and_width(motion: Motion) -> tuple[float, float]:
    blinks = find_blinks(lid_closure(motion), motion.fps)
    return len(blinks) / motion.duration, float(np.mean([b.width for b in blinks])) / motion.fps


@pytest.mark.parametrize(("fps", "width"), [(f, w) for f, some in LENGTHS.items() for w in some])
def test_blinks_are_counted_and_measured(fps, width):
    motion = person(fps, width=width)
    blinks = find_blinks(lid_closure(motion), fps)
    assert len(blinks) == 8
    assert np.mean([b.width for b in blinks]) / fps == pytest.approx(2 * width, rel=0.2)
    assert all(a.stop <= b.start for a, b in pairwise(blinks))


def test_noise_and_eyes_that_stay_shut_are_no_blinks():
    rng = np.random.default_rng(0)
    assert not find_blinks(np.clip(rng.normal(0.1, 0.05, 500), 0, 1), 25)
    asleep = np.zeros(200)
    asleep[40:120] = 1
    assert not find_blinks(asleep, 25)
    assert not find_blinks(np.ones(3), 25)
    assert len(find_blinks(np.tile([0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0], 10), 25)) == 10


def test_taking_blinks_out_leaves_open_eyes_and_the_rest():
    motion = person()
    calm = without_blinks(motion)
    assert calm.expression[:, LIDS].max() < 0.15
    others = np.setdiff1d(np.arange(len(ARKIT_52)), LIDS)
    np.testing.assert_allclose(calm.expression[:, others], motion.expression[:, others], atol=0.02)


@pytest.mark.parametrize(("every", "width"), [(1.0, 0.1), (2.5, 0.2), (5.0, 0.15)])
@pytest.mark.parametrize("fps", [25, 30])
def test_made_up_blinks_have_the_rate_and_duration_of_the_clips(every, width, fps):
    clip = person(fps, every=every, width=width)
    made = in_manner(clip, 120, fps, seed=3)
    for ours, theirs in zip(rate_and_width(made), rate_and_width(clip), strict=True):
        assert ours == pytest.approx(theirs, rel=0.25)


def test_a_clip_without_blinks_gets_usual_ones():
    open_eyes = person()
    expression = open_eyes.expression.copy()
    expression[:, LIDS] = 0
    made = in_manner(Motion(25, expression, open_eyes.head_pose), 120)
    per_minute = 60 * rate_and_width(made)[0]
    assert 2 < per_minute < 20  # none in 20 s: somewhat below the usual 15
    assert lid_closure(made).max() > 0.9


def test_the_manner_is_the_clips_seeded_and_without_jumps():
    clip = person()
    made, again, other = (in_manner(clip, 60, 25, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(made.head_pose, again.head_pose)
    assert not np.array_equal(made.head_pose, other.head_pose)
    ours, theirs = (np.stack(head_angles(m.head_pose), 1) for m in (made, clip))
    assert ours.std(0)[:2] == pytest.approx(theirs.std(0)[:2], rel=0.4)
    assert np.abs(np.diff(ours, axis=0)).max() < 1.5 * np.abs(np.diff(theirs, axis=0)).max()
    # Head and eyes still go together: the eyes stay on the viewer while the head turns.
    assert np.corrcoef(ours[:, 0], made.gaze[:, 0, 0])[0, 1] < -0.95
    np.testing.assert_allclose(made.torso_pose, made.head_pose, atol=1e-5)
    assert not made.expression[:, MOUTH_COLUMNS].any()
    brow = made.expression[:, ARKIT_INDEX["browInnerUp"]]
    assert brow.mean() == pytest.approx(0.2, abs=0.08)


def test_the_head_nods_when_somebody_speaks():
    clip = person()
    effort = (np.mod(np.arange(1500) / 25, 20) < 10).astype(float)
    made = in_manner(clip, 60, 25, 0, effort=effort)
    swing = np.abs(np.diff(head_angles(made.head_pose)[1]))
    assert swing[effort[1:] > 0].mean() > 2 * swing[effort[1:] == 0].mean()
    heard = speech_effort(clip)
    assert heard[:80].mean() > 0.5
    assert heard[110:190].mean() < 0.1


def test_intensity_scales_the_head_and_leaves_the_blinks():
    clip = person()
    still, double = in_manner(clip, 40, intensity=0), in_manner(clip, 40, intensity=2)
    once = in_manner(clip, 40)
    assert np.ptp(still.head_pose, axis=0).max() < 1e-3
    stds = [head_angles(m.head_pose)[0].std() for m in (once, double)]
    assert stds[1] == pytest.approx(2 * stds[0], rel=0.1)
    assert rate_and_width(still)[0] == pytest.approx(rate_and_width(once)[0], rel=0.05)
    np.testing.assert_allclose(np.linalg.det(double.head_pose[:, :3, :3]), 1, atol=1e-4)


@pytest.mark.parametrize("seconds", [0.04, 0.5, 2.0, 3.2, 5.0])
def test_any_length_of_clip_will_do(seconds):
    made = in_manner(person(seconds=seconds), 7.3, 25)
    assert len(made) == 183
    assert np.isfinite(made.expression).all()
    habit = BlinkHabit.of(person(seconds=seconds))
    assert habit.closure(100, 30, np.random.default_rng(0)).max() <= 1


def test_impossible_wishes_are_refused():
    for wrong in ({"seconds": 0}, {"seconds": 1e9}, {"seconds": 5, "intensity": -1},
                  {"seconds": 5, "effort": np.zeros(3)}):  # fmt: skip
        with pytest.raises(UserError):
            in_manner(person(), **wrong)
