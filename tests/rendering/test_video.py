"""What `render` says before it draws what was never filmed."""

import numpy as np
import pytest
import torch

from avatar3d.avatar import SplatAvatar, SplatState
from avatar3d.geometry import yaw_pitch_roll
from avatar3d.head import ARKIT_INDEX
from avatar3d.motion import Motion
from avatar3d.rendering import render


@pytest.fixture
def avatar(small_state: SplatState) -> SplatAvatar:
    small_state.mean[:] = 0
    small_state.signal_min[:], small_state.signal_max[:] = -0.2, 0.5
    still = Motion(25, expression=np.zeros((1, 52), np.float32))
    return SplatAvatar(small_state, None, still, driver=None)


def turned(yaw: float, pitch: float = 0) -> np.ndarray:
    pose = np.tile(np.eye(4), (3, 1, 1))
    angles = (torch.tensor(np.deg2rad(float(angle))) for angle in (yaw, pitch, 0))
    pose[1, :3, :3] = yaw_pitch_roll(*angles).numpy()
    return pose


@pytest.mark.parametrize(
    ("yaw", "pitch", "said"), [(44, 0, None), (-46, 0, "46"), (0, 50, "50"), (60, 0, "60")]
)
def test_a_head_turned_further_than_45_degrees_is_warned_of(
    avatar, tmp_path, capsys, yaw, pitch, said
):
    render(avatar, Motion(25, head_pose=turned(yaw, pitch)), tmp_path / "out.mp4")
    told = capsys.readouterr().err
    assert ("The head turns up to" in told) == (said is not None)
    if said:
        assert f"turns up to {said} degrees" in told
    assert (tmp_path / "out.mp4").is_file()


@pytest.mark.parametrize(("opening", "told"), [(0.5, False), (0.8, False), (1.0, True)])
def test_expressions_far_beyond_the_filmed_are_told_with_their_confidence(
    avatar, tmp_path, capsys, opening, told
):
    expression = np.zeros((4, 52), np.float32)
    expression[2, ARKIT_INDEX["jawOpen"]] = opening
    render(avatar, Motion(25, expression=expression), tmp_path / "out.mp4")
    said = capsys.readouterr().err
    assert ("25% of the frames ask for more expression" in said) == told
    assert ("confidence 0.50 at 0.1 s" in said) == told
