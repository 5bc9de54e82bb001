"""Splats learnt from a field."""

import numpy as np
import pytest

from avatar3d.avatar import NerfAvatar, SplatAvatar, SplatState, load
from avatar3d.errors import UserError
from avatar3d.evaluation.metrics import psnr
from avatar3d.motion import Motion
from avatar3d.rendering import render
from avatar3d.training.distill import DistillConfig, to_splats

TINY = DistillConfig(gaussians=900, basis=2, pictures=4, iterations=60, device="cpu")


def test_refined_splats_look_like_the_field(ball: NerfAvatar) -> None:
    sampled = to_splats(ball, DistillConfig(900, 2, 4, 0, "cpu"))
    refined = to_splats(ball, TINY)
    field = ball.render(yaw=0.3) / 255
    before, after = (psnr(splats.render(yaw=0.3) / 255, field) for splats in (sampled, refined))
    assert after > before + 3
    assert after > 22
    assert refined.info["converted_from"] == "nerf"


def test_the_same_call_gives_the_same_splats(ball: NerfAvatar) -> None:
    one, other = (to_splats(ball, DistillConfig(300, 2, 2, 5, "cpu")).state for _ in range(2))
    assert np.array_equal(one.position, other.position)
    assert np.array_equal(one.color, other.color)


def test_a_field_that_shows_nothing_is_a_sentence(ball: NerfAvatar) -> None:
    ball.state.bias_2[0] = -20
    with pytest.raises(UserError, match="shows nothing"):
        to_splats(ball, TINY)


def test_the_command_writes_splats_once(ball: NerfAvatar, tmp_path, run_here) -> None:
    ball.save(tmp_path / "ball.a3d")
    small = ("gaussians=300", "pictures=2", "iterations=3", "device=cpu")
    done = run_here("convert", "ball.a3d", *small)
    assert done.returncode == 0, done.stderr
    splats = load(tmp_path / "ball.splat.a3d")
    assert isinstance(splats, SplatAvatar)
    refused = run_here("convert", "ball.splat.a3d", *small)
    assert refused.returncode == 2
    assert "of splats already" in refused.stderr
    assert run_here("convert", "ball.a3d", "-o", "ball.ply").returncode == 2


def test_two_avatars_perform_side_by_side(ball: NerfAvatar, small_state: SplatState, tmp_path):
    import imageio.v3 as iio

    motion = Motion(25, expression=np.zeros((3, 52), np.float32))
    small_state.size = np.array([48, 40])
    small_state.K_matrix = np.array([[100.0, 0, 24], [0, 100, 20], [0, 0, 1]])
    other = SplatAvatar(small_state, None, motion, None)
    render(ball, motion, tmp_path / "two.mp4", compare=other)
    frames = iio.imread(tmp_path / "two.mp4", plugin="pyav")
    assert frames.shape == (3, 80, 192, 3)
    left = np.asarray(next(iter(ball.render_motion(motion))), float)
    assert psnr(frames[0, :, :96] / 255, left / 255) > 25
