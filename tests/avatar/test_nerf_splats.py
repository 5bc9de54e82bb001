"""Splats sampled from a field of known shape."""

import numpy as np
import pytest
import torch

from avatar3d.avatar import NerfAvatar
from avatar3d.avatar.canonical import canonical_cloud
from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig, pose_gaussians
from avatar3d.avatar.nerf.splats import sampled_splats
from avatar3d.avatar.nerf.surface import mouth_points, surface_points
from avatar3d.avatar.state import SplatState

RADIUS, CELL = 0.06, 0.2 / 64
COLOR = 1 / (1 + np.exp([1.0, -0.5, -2.0]))


def test_surface_points_lie_on_the_ball_in_its_colour(ball: NerfAvatar) -> None:
    points = surface_points(ball, np.random.default_rng(0))
    off = np.linalg.norm(points.place, axis=1) - RADIUS
    assert np.quantile(np.abs(off), 0.95) < CELL + 0.001
    assert np.allclose(points.color, COLOR, atol=0.02)
    for axis, reach in ((0, 0.055), (1, 0.045)):
        assert points.place[:, axis].max() > reach
        assert points.place[:, axis].min() < -reach


def test_splats_at_rest_are_where_the_field_is(ball: NerfAvatar) -> None:
    state = sampled_splats(ball, 800, 4, np.random.default_rng(0))
    assert 600 < len(state) <= 800
    outside = state.part != SplatState.PARTS.index("mouth")
    means = canonical_cloud(state).means[outside]
    assert np.quantile(np.abs(np.linalg.norm(means, axis=1) - RADIUS), 0.95) < CELL + 0.001
    assert np.allclose(state.color[outside], COLOR, atol=0.02)
    assert len(state.basis) == (state.part != SplatState.PARTS.index("hair")).sum() > 0


def test_splats_follow_the_triangle_below_them(ball: NerfAvatar) -> None:
    """A displacement of the whole head takes all of them along, those of the torso excepted."""
    ball.state.expression[:] = 0
    ball.state.expression[0] = [0.01, 0.02, 0.03]
    state = sampled_splats(ball, 300, 4, np.random.default_rng(0))
    torso = state.part == SplatState.PARTS.index("torso")
    rig, parameters = SplatRig(state), SplatParameters(state)

    def means(weight: float) -> np.ndarray:
        weights = torch.zeros(len(state.expression))
        weights[0] = weight
        rest = torch.eye(4)
        face = FaceParameters(weights, torch.zeros(2, 2), rest, rest)
        return pose_gaussians(rig, parameters, face).means.detach().numpy()

    moved = (means(1.0) - means(0.0))[~torso]
    assert np.allclose(moved, [0.01, 0.02, 0.03], atol=1e-5)


def test_what_the_shoulders_carry_is_the_torsos(ball: NerfAvatar) -> None:
    ball.state.skin[:] = 1
    state = sampled_splats(ball, 300, 4, np.random.default_rng(0))
    outside = state.part != SplatState.PARTS.index("mouth")
    assert (state.part[outside] == SplatState.PARTS.index("torso")).all()
    assert (state.face[outside] == -1).all()


def test_the_mouth_is_filled_though_it_does_not_show(ball: NerfAvatar) -> None:
    mouth = SplatState.PARTS.index("mouth")
    ball.state.face_part[:] = 0
    ball.state.face_part[:3] = mouth
    points = mouth_points(ball, 50, np.random.default_rng(0))
    assert set(points.face) <= {0, 1, 2}
    assert np.allclose(points.bary.sum(1), 1)
    assert (points.color > 0).all()
    assert not len(mouth_points(ball, 0, np.random.default_rng(0)).face)


def test_a_field_that_shows_nothing_has_no_surface(ball: NerfAvatar) -> None:
    ball.state.bias_2[0] = -20
    with pytest.raises(ValueError, match="shows nothing"):
        surface_points(ball, np.random.default_rng(0))
