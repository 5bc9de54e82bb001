"""Motions made of motions, and filtered ones."""

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt
from scipy.spatial.transform import Rotation

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion import Motion
from avatar3d.motion.composition import blended, compose, crossfaded, layered, looped, with_speed
from avatar3d.motion.filters import StreamFilter, smoothed
from avatar3d.motion.paths import head_angles, head_rotations, orbit
from avatar3d.motion.sliders import pose

JAW, BLINK = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["eyeBlinkLeft"]


def waving(seconds: float = 4, fps: float = 25, hertz: float = 0.7, phase: float = 0.0) -> Motion:
    """Jaw, lids, head and eyes all follow one sine."""
    wave = np.sin(2 * np.pi * hertz * np.arange(round(seconds * fps)) / fps + phase)
    expression = np.zeros((len(wave), len(ARKIT_52)))
    expression[:, JAW] = expression[:, BLINK] = 0.5 + 0.4 * wave
    zero = np.zeros_like(wave)
    gaze = np.broadcast_to(0.1 * wave[:, None, None], (len(wave), 2, 2))
    return Motion(fps, expression, head_rotations(0.3 * wave, zero, zero), gaze)


def steps(motion: Motion) -> np.ndarray:
    """(T,) the largest change of anything into each frame, the first from the last."""
    tracks = [motion.expression, motion.head_pose, motion.gaze]
    return np.max([np.abs(t - np.roll(t, 1, 0)).reshape(len(t), -1).max(1) for t in tracks], 0)


def test_parts_come_from_whom_they_are_asked_of():
    mouth, turned, eyes = waving(4, 25), orbit(8, 30), waving(1, 60, phase=1)
    motion = compose(mouth=mouth, pose=turned, eyes=eyes)
    assert len(motion) == len(mouth)
    assert motion.fps == 25
    np.testing.assert_array_equal(motion.expression[:, JAW], mouth.expression[:, JAW])
    expected = Rotation.from_matrix(turned.resampled(25).head_pose[:100, :3, :3])
    got = Rotation.from_matrix(motion.head_pose[:, :3, :3])
    assert (expected * got.inv()).magnitude().max() < 1e-3
    # The eyes' second is played forth and back: 59/60 s +- 0.5 s look the same.
    lids = motion.expression[:, BLINK]
    assert lids[12] == pytest.approx(eyes.at(np.array([28.8])).expression[0, BLINK], abs=1e-3)
    assert lids[37] == pytest.approx(eyes.at(np.array([29.2])).expression[0, BLINK], abs=1e-3)
    np.testing.assert_allclose(motion.gaze[:25], eyes.resampled(25).gaze[:25], atol=0.02)
    assert compose(pose=turned, eyes=eyes).fps == 30


def test_composition_needs_something():
    for wrong in ({}, {"mouth": Motion(25, head_pose=np.eye(4)[None])}):
        with pytest.raises(UserError):
            compose(**wrong)
    with pytest.raises(UserError, match="turn, loop or hold"):
        compose(mouth=waving(), eyes=waving(1), fill="again")


@pytest.mark.parametrize("fill", ["turn", "loop", "hold"])
def test_a_shorter_part_goes_on_without_a_jump(fill):
    motion = compose(mouth=waving(9), pose=waving(2.3), eyes=waving(1.7), fill=fill)
    assert steps(motion)[1:].max() < 3 * steps(waving(9))[1:].max()


def test_a_loop_has_no_jump_where_it_begins_again():
    cut = waving(3.1, phase=0.4)
    usual = steps(cut)[1:].max()
    assert steps(cut)[0] > 3 * usual
    loop = looped(cut, 0.5)
    assert len(loop) == len(cut) - 12
    assert steps(loop)[0] < 2.5 * usual
    long = looped(cut, 0.5, seconds=11)
    assert long.duration == pytest.approx(11, abs=0.02)
    assert steps(long)[1:].max() < 2.5 * usual
    determinant = np.linalg.det(long.head_pose[:, :3, :3])
    np.testing.assert_allclose(determinant, 1, atol=1e-5)


def test_speed_changes_frequency_and_length_only():
    double = with_speed(waving(4, hertz=0.7), 2)
    np.testing.assert_allclose(double.expression, waving(2, hertz=1.4).expression, atol=1e-3)
    assert with_speed(waving(4), 0.5).duration == pytest.approx(8)
    for wrong in (0, -1, 1e6, np.nan):
        with pytest.raises(UserError):
            with_speed(waving(), wrong)


def test_crossfades_join_and_reach_both_ends():
    first, second = pose({"jawOpen": 0.2}, yaw=0.4), pose({"jawOpen": 0.8}, yaw=-0.4)
    held = [motion.at(np.zeros(50)) for motion in (first, second)]
    joined = crossfaded(held, 1.0)
    assert len(joined) == 75
    assert joined.expression[0, JAW] == pytest.approx(0.2)
    assert joined.expression[-1, JAW] == pytest.approx(0.8)
    assert np.diff(joined.expression[:, JAW]).min() >= 0
    assert head_angles(joined.head_pose)[0][37] == pytest.approx(0, abs=0.02)
    assert len(crossfaded(held, 0)) == 100
    with pytest.raises(UserError, match="equal lengths"):
        blended(held[0], held[1].slice(0, 9), 0.5)


def test_layers_add_up_and_their_rest_changes_nothing():
    base = waving()
    rest = layered(base, pose())
    np.testing.assert_allclose(rest.expression, base.expression)
    np.testing.assert_allclose(rest.head_pose, base.head_pose, atol=1e-6)
    more = layered(base, pose({"mouthSmileLeft": 0.4}, yaw=0.2, gaze=(0.1, 0)), 0.5)
    np.testing.assert_allclose(more.expression[:, ARKIT_INDEX["mouthSmileLeft"]], 0.2, atol=1e-6)
    assert more.expression[:, JAW] == pytest.approx(base.expression[:, JAW])
    yaw = head_angles(more.head_pose)[0] - head_angles(base.head_pose)[0]
    np.testing.assert_allclose(yaw, 0.1, atol=1e-5)
    np.testing.assert_allclose(more.gaze[..., 0] - base.gaze[..., 0], 0.05, atol=1e-6)
    assert layered(base, pose({"jawOpen": 1})).expression.max() == 1


def test_the_offline_filter_calms_without_delay():
    rng = np.random.default_rng(0)
    clean = waving(20, hertz=0.5)
    noisy = Motion(25, clean.expression + rng.normal(0, 0.05, clean.expression.shape))
    smooth = smoothed(noisy, 0.08).expression[:, JAW]
    truth = clean.expression[:, JAW]
    lags = range(-5, 6)
    match = [np.corrcoef(np.roll(smooth, lag)[10:-10], truth[10:-10])[0, 1] for lag in lags]
    assert lags[int(np.argmax(match))] == 0
    assert np.abs(smooth - truth).std() < 0.5 * 0.05
    # The same height at 2 Hz as a textbook's zero-phase filter of the stated response.
    quick = waving(8, hertz=2)
    swing = np.ptp(smoothed(quick, 0.04).expression[50:150, JAW])
    sos = butter(1, 5.3, fs=25, output="sos")  # 12 % off at 2 Hz, forth and back
    reference = np.ptp(sosfiltfilt(sos, quick.expression[:, JAW])[50:150])
    assert swing == pytest.approx(reference, rel=0.05)
    assert swing == pytest.approx(0.8 * np.exp(-((2 * np.pi * 2 * 0.04) ** 2) / 2), rel=0.03)


@pytest.mark.parametrize(("fps", "cutoff"), [(25, 2.0), (60, 1.0)])
def test_the_stream_filter_lags_as_stated_and_sees_no_future(fps, cutoff):
    count = 20 * fps
    expression = np.zeros((count, len(ARKIT_52)))
    expression[:, JAW] = np.arange(count) / count  # a slow ramp, 0.05 a second
    motion = Motion(fps, expression)
    exact = StreamFilter(fps, cutoff, reaction=0)
    lag = (expression[:, JAW] - exact.push(motion).expression[:, JAW])[-1] * 20
    assert lag == pytest.approx(exact.latency, rel=0.02)
    quick = StreamFilter(fps, cutoff, reaction=3)
    assert (expression[:, JAW] - quick.push(motion).expression[:, JAW])[-1] * 20 < quick.latency
    # Piece by piece as all at once, whatever comes later.
    parts = StreamFilter(fps, cutoff)
    pieces = [parts.push(motion.slice(i, i + 7)).expression for i in range(0, 140, 7)]
    whole = StreamFilter(fps, cutoff).push(motion).expression[:140]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)


def test_the_stream_filter_calms_a_still_face_and_lets_blinks_through():
    rng = np.random.default_rng(1)
    still = np.clip(rng.normal(0.3, 0.02, (250, 52)), 0, 1)
    steady = StreamFilter(25, 1.0).push(Motion(25, still)).expression[50:]
    assert steady.std() < 0.5 * 0.02
    blink = np.zeros((50, 52))
    blink[20:24, BLINK] = 1
    assert StreamFilter(25).push(Motion(25, blink)).expression[:, BLINK].max() > 0.85
    turning = StreamFilter(25).push(waving())
    np.testing.assert_allclose(np.linalg.det(turning.head_pose[:, :3, :3]), 1, atol=1e-5)
    with pytest.raises(UserError, match="frames a second"):
        StreamFilter(25).push(waving(fps=30))
