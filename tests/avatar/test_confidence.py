"""What a motion asks for, held against the range of the training frames."""

import numpy as np
import pytest

from avatar3d.avatar import SplatState
from avatar3d.avatar.confidence import confidence, furthest_beyond
from avatar3d.head import ARKIT_52, ARKIT_INDEX
from avatar3d.motion import Motion


@pytest.fixture
def filmed(small_state: SplatState) -> SplatState:
    """Every weight between 0 and 0.5, gaze within 0.2, on average at rest."""
    small_state.mean[:] = 0
    small_state.signal_min[:-4], small_state.signal_max[:-4] = 0, 0.5
    small_state.signal_min[-4:], small_state.signal_max[-4:] = -0.2, 0.2
    return small_state


def asked(**weights: float) -> Motion:
    expression = np.zeros((2, len(ARKIT_52)), np.float32)
    for name, value in weights.items():
        expression[1, ARKIT_INDEX[name]] = value
    return Motion(25, expression=expression)


def test_what_was_filmed_is_sure(filmed):
    assert confidence(filmed, asked(jawOpen=0.5, mouthFunnel=0.3)) == pytest.approx([1, 1])


def test_the_filmed_share_of_the_way_counts(filmed):
    assert confidence(filmed, asked(jawOpen=1.0)) == pytest.approx([1, 0.5])
    assert confidence(filmed, asked(jawOpen=1.0, mouthFunnel=0.5)) == pytest.approx([1, 2 / 3])


def test_gaze_counts_and_absent_tracks_are_rest(filmed):
    gaze = np.zeros((3, 2, 2), np.float32)
    gaze[2, :, 0] = -0.8
    assert confidence(filmed, Motion(25, gaze=gaze)) == pytest.approx([1, 1, 0.25])


def test_the_weight_furthest_beyond_is_named(filmed):
    motion = asked(jawOpen=0.9, mouthPucker=0.7)
    assert furthest_beyond(filmed, motion) == ("jawOpen", pytest.approx(0.9), pytest.approx(0.5))
