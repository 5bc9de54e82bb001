"""One face's performance on another."""

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion import Motion
from avatar3d.motion.paths import orbit
from avatar3d.motion.retargeting import landmark_effects, resting, retarget, simplest_weights

JAW, BLINK = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["eyeBlinkLeft"]
SMILE = [ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]]
BROW = ARKIT_INDEX["browInnerUp"]


def truth(seconds: float = 12, fps: float = 25) -> np.ndarray:
    """(T, 52) what is meant: speech with pauses, blinks, a brow that rises now and then."""
    time = np.arange(round(seconds * fps)) / fps
    talking = np.mod(time, 4) < 2.4
    expression = np.zeros((len(time), len(ARKIT_52)))
    expression[:, JAW] = 0.4 * talking * np.sin(8 * time) ** 2
    expression[:, SMILE] = 0.5 * (np.mod(time, 6) < 1.5)[:, None]
    expression[:, BROW] = 0.6 * (np.mod(time, 5) < 1)
    for eye in (BLINK, ARKIT_INDEX["eyeBlinkRight"]):
        expression[:, eye] = np.clip(1.4 - np.abs(np.mod(time, 2.5) - 1.2) / 0.08, 0, 1)
    return expression


def tracked(expression: np.ndarray, rest: dict[str, float], gain: float, seed: int = 0) -> Motion:
    """As a tracker sees it whose every row is off by that face's peculiarities."""
    rng = np.random.default_rng(seed)
    weights = gain * expression + rng.normal(0, 0.01, expression.shape)
    for name, value in rest.items():
        weights[:, ARKIT_INDEX[name]] += value
    weights = np.clip(weights, 0, 1)
    gaze = np.full((len(weights), 2, 2), 0.03 * seed)
    return Motion(25, weights, orbit(len(weights) / 25).head_pose, gaze)


def rmse(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.sqrt(np.mean((ours - theirs) ** 2)))


ACTOR = {"mouthSmileLeft": 0.2, "browInnerUp": 0.15, "jawLeft": 0.1, "cheekSquintLeft": 0.12}
OURS = {"mouthFrownLeft": 0.1, "mouthFrownRight": 0.12, "browDownLeft": 0.2}


def test_the_actors_resting_face_is_taken_away():
    meant = truth()
    actor = tracked(meant, ACTOR, 1.0)
    plain = retarget(actor)
    assert rmse(plain.expression, meant) < 0.02
    assert rmse(actor.expression, meant) > 0.035


def test_the_target_keeps_its_own_face_and_its_own_range():
    """The actor's eyes close to 0.7 only and its brow moves half as far; ours do it fully."""
    meant = truth()
    actor, ours = tracked(meant, ACTOR, 0.7, 1), tracked(truth(20), OURS, 1.0, 2)
    want = tracked(meant, OURS, 1.0, 3)
    got = retarget(actor, ours, match=1.0)
    error = rmse(got.expression, want.expression)
    assert error < 0.018
    assert error < 0.8 * rmse(retarget(actor, ours, match=0).expression, want.expression)
    assert error < 0.4 * rmse(actor.expression, want.expression)
    quiet = (meant.max(1) == 0).nonzero()[0]
    np.testing.assert_allclose(
        got.expression[quiet].mean(0), want.expression[quiet].mean(0), atol=0.03
    )
    assert np.quantile(got.expression[:, BLINK], 0.98) > 0.9
    np.testing.assert_allclose(got.gaze, ours.gaze[0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(got.head_pose, actor.head_pose)
    assert got.torso_pose is None


def test_a_neutral_frame_can_be_given_and_short_takes_have_none():
    meant = truth()
    actor = tracked(meant, ACTOR, 1.0)
    neutral = np.zeros(len(ARKIT_52))
    for name, value in ACTOR.items():
        neutral[ARKIT_INDEX[name]] = value
    assert rmse(retarget(actor, neutral=neutral).expression, meant) < 0.015
    one = retarget(actor.slice(40, 41))
    np.testing.assert_allclose(one.expression, actor.expression[40:41], atol=1e-6)
    assert not resting(actor.expression[:5]).any()


def test_other_programs_get_the_simplest_weights():
    """A row that does what two others do together takes their place."""
    rng = np.random.default_rng(0)
    effects = rng.normal(0, 0.8, (len(ARKIT_52), 200 * 3))  # millimetres
    both, one, other = JAW, SMILE[0], SMILE[1]
    effects[both] = effects[one] + effects[other]
    tracked_as = np.zeros((3, len(ARKIT_52)))
    tracked_as[0, [one, other]] = 0.5
    tracked_as[1, one] = 0.5
    tracked_as[2, [both, BROW]] = 0.5
    found = simplest_weights(tracked_as, effects)
    want = np.zeros_like(tracked_as)
    want[0, both] = want[1, one] = want[2, both] = want[2, BROW] = 0.5
    assert np.abs(found - want).max() < 0.05


def test_a_negative_difference_becomes_the_opposite_row(toy_head):
    effects = landmark_effects(toy_head.shaped(np.zeros(1)))
    change = np.zeros((1, len(effects)))
    change[0, JAW] = -0.4
    found = simplest_weights(change, effects)
    assert found[0, ARKIT_INDEX["mouthClose"]] == pytest.approx(0.4, abs=0.05)
    assert found.min() >= 0


def test_rows_of_another_head_model_are_dropped():
    actor, ours = tracked(truth(), ACTOR, 1.0), tracked(truth(), OURS, 1.0)
    with_rows = Motion(25, actor.expression, residual=np.full((len(actor), 5), 0.3))
    assert retarget(with_rows, ours).residual is None
    same = Motion(25, ours.expression, residual=np.full((len(ours), 5), 0.1))
    np.testing.assert_allclose(retarget(with_rows, same).residual, 0.1, atol=1e-6)


def test_nothing_to_retarget_is_refused():
    with pytest.raises(UserError, match="no expression"):
        retarget(orbit(2))
    with pytest.raises(UserError, match="0 to 1"):
        retarget(tracked(truth(), {}, 1), match=2)
