"""Colours that a Gaussian may learn, on skin and hair whose shown colours are known."""

from itertools import product

import numpy as np
import pytest
import torch

from avatar3d.avatar import SplatState
from avatar3d.avatar.build import _stretch
from avatar3d.avatar.deform import SplatParameters
from avatar3d.avatar.gamut import Gamut, freedom, learnable_colors
from avatar3d.avatar.opponent import from_opponent, to_opponent
from avatar3d.avatar.views import Shown
from avatar3d.geometry import quaternion_to_matrix
from avatar3d.head import HeadModel
from avatar3d.subject import PARSING_LABELS
from avatar3d.training.optimize import ColorLimits, keep_in_bounds

SKIN, HAIR = (SplatState.PARTS.index(name) for name in ("skin", "hair"))
TEAL = np.array([0.0, 0.6, 0.7])


@pytest.fixture
def skin(small_state: SplatState) -> tuple[SplatState, Shown]:
    """Skin of (0.5, 0.4, 0.3), a third of it shown from the front, edge-on and never."""
    count = int((small_state.face >= 0).sum())
    small_state.part[:] = SKIN
    small_state.color[:] = 0.5, 0.4, 0.3
    facing = np.resize([1.0, 0.05, -1.0], count)
    seen = facing > 0.3
    label = np.where(seen, PARSING_LABELS.index("skin"), 0).astype(np.uint8)
    return small_state, Shown(small_state.color[:count], seen, facing, label)


def test_only_what_faced_the_camera_may_take_any_colour(skin):
    state, shown = skin
    gamut = learnable_colors(state, shown)
    bound = len(shown.facing)
    front = np.flatnonzero(shown.facing > 0.9)
    rest = np.flatnonzero(shown.facing < 0.1)
    assert (gamut.low[front] <= [-1, 0, -1]).all()
    assert (gamut.high[front] >= 1).all()
    for wrong in (TEAL, np.array([0.6, 0.1, 0.1])):
        tint = to_opponent(wrong)
        inside = (gamut.low[rest] < tint) & (gamut.high[rest] > tint)
        assert not inside.all(1).any()
    assert gamut.steady[rest].all()
    assert not gamut.steady[front].any()
    assert not gamut.steady[bound:].any()  # shoulders do not turn


def test_edge_on_skin_may_be_what_is_common_near_it_and_no_collar(skin):
    """Seen skin is (0.1, 0.4, -0.1) and a freckle; what is known of a collar counts for nothing."""
    state, shown = skin
    seen = np.flatnonzero(shown.seen)
    rest = np.flatnonzero(shown.facing < 0.1)
    tint = to_opponent(state.color)
    near = learnable_colors(state, shown)
    state.color[seen[::2]] = 0.5 - 0.15, 0.4 - 0.15, 0.3 - 0.15
    common = learnable_colors(state, shown)
    assert (common.low[rest, 1] < near.low[rest, 1]).mean() > 0.9
    assert (common.low[rest, 1] >= tint[rest, 1] - 0.21).all()
    shown.label[seen[::2]] = PARSING_LABELS.index("clothes")
    collar = learnable_colors(state, shown)
    np.testing.assert_allclose(collar.low[rest], near.low[rest])


def test_without_any_frame_skin_stays_as_it_started(skin):
    state, shown = skin
    unseen = np.full(len(shown.facing), -1.0)
    nothing = Shown(shown.color, unseen > 0, unseen, shown.label * 0)
    gamut = learnable_colors(state, nothing)
    start = to_opponent(state.color[: len(unseen)])
    for bound in (gamut.low, gamut.high):
        apart = np.abs(bound[: len(unseen)] - start)
        assert apart[:, 1].max() < 0.15
        assert apart[:, [0, 2]].max() < 0.03


def test_hair_of_the_backgrounds_colour_is_recoloured(skin):
    state, shown = skin
    rng = np.random.default_rng(0)
    hair = np.flatnonzero(np.arange(len(state)) % 2 == 0)
    state.part[hair] = HAIR
    state.color[hair] = rng.uniform(0.1, 0.3, (len(hair), 3))
    stray = hair[:1]
    state.color[stray] = TEAL
    gamut = learnable_colors(state, shown)
    assert gamut.high[hair, 1].max() <= 0.4
    assert np.ptp(state.color[stray]) < 0.4
    assert state.color[stray].max() <= 0.6
    tint = to_opponent(state.color[hair])
    assert (gamut.low[hair] - 1e-6 <= tint).all()
    assert (tint <= gamut.high[hair] + 1e-6).all()


def test_hair_that_no_frame_shows_stays_close_to_its_guess(skin):
    state, shown = skin
    hair = np.flatnonzero(np.arange(len(state)) % 2 == 0)
    state.part[hair] = HAIR
    state.color[hair] = np.random.default_rng(0).uniform(0.1, 0.5, (len(hair), 3))
    shown_hair, guessed = np.split(hair, 2)
    gamut = learnable_colors(state, shown, guessed)
    width = gamut.high - gamut.low
    assert width[guessed].max() < 0.1
    assert (width[shown_hair].max(1) > 0.2).all()
    tint = to_opponent(state.color[guessed])
    np.testing.assert_allclose((gamut.low + gamut.high)[guessed] / 2, tint, atol=1e-6)


def test_freedom_grows_with_how_frontally_skin_was_seen():
    assert freedom(np.array([-1, 0.15, 0.325, 0.5, 1])) == pytest.approx([0, 0, 0.5, 1, 1])


def test_training_keeps_to_the_limits(skin):
    state, shown = skin
    gamut = learnable_colors(state, shown)
    parameters, limits = SplatParameters(state), ColorLimits(gamut)
    with torch.no_grad():
        parameters.color.copy_(torch.rand_like(parameters.color) * 4 - 2)
        parameters.basis.fill_(0.5)
    keep_in_bounds(parameters, limits)
    color = parameters.color.detach().numpy()
    assert color.min() >= 0
    assert color.max() <= 1
    tint = to_opponent(color)
    assert (tint >= gamut.low - 1e-6).all()
    assert (tint <= gamut.high + 1e-6).all()
    basis = parameters.basis.detach().numpy()
    steady = gamut.steady[: len(basis)]
    assert steady.any()
    assert (basis[steady, 7:] == 0).all()
    assert (basis[~steady] == 0.5).all()
    assert (basis[:, :7] == 0.5).all()


def test_unlimited_is_all_of_srgb(skin):
    gamut = Gamut.unlimited(7)
    assert gamut.low.shape == gamut.high.shape == (7, 3)
    corners = to_opponent(np.array(list(product((0.0, 1.0), repeat=3))))
    assert (corners >= gamut.low[0]).all()
    assert (corners <= gamut.high[0]).all()
    assert not gamut.steady.any()


def test_opponent_coordinates_there_and_back():
    color = np.random.default_rng(1).random((5, 3))
    assert to_opponent(np.array([0.5, 0.4, 0.3])) == pytest.approx([0.1, 0.4, -0.1])
    np.testing.assert_allclose(from_opponent(to_opponent(color)), color)
    np.testing.assert_allclose(to_opponent(torch.tensor(color)).numpy(), to_opponent(color))


def test_stretching_shows_only_from_aside(small_head: HeadModel):
    """Seen along the line of sight a stretched Gaussian is as large as before."""

    class Rest:
        T_camera_rest = np.diag([1.0, -1, -1, 1])

    Rest.T_camera_rest[2, 3] = 0.6
    head = small_head.shaped(np.zeros(4))
    face = np.arange(len(small_head.faces))
    share = np.where(face % 2, 1.0, 0.0)
    before = {
        "face": face,
        "quat": np.tile([1.0, 0, 0, 0], (len(face), 1)),
        "log_scale": np.full((len(face), 3), np.log(0.002)),
    }
    after = {name: value.copy() for name, value in before.items()}
    _stretch(after, share, head, Rest)
    corners = head.vertices[small_head.faces]
    u = corners[:, 1] - corners[:, 0]
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    n = np.cross(u, corners[:, 2] - corners[:, 0])
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    frame = np.stack([u, np.cross(n, u), n], -1)
    local = quaternion_to_matrix(torch.tensor(after["quat"])).numpy()
    sight = np.array([0, 0, 0.6]) - corners.mean(1)
    sideways = np.cross(n, sight)  # in the plane and across the line of sight
    sideways /= np.linalg.norm(sideways, axis=1, keepdims=True)
    axes = frame @ local * np.exp(after["log_scale"])[:, None, :]
    width = np.linalg.norm(np.einsum("nij,ni->nj", axes, sideways), axis=1)
    longest = np.linalg.norm(axes, axis=1).max(1)
    np.testing.assert_allclose(width, 0.002, rtol=1e-5)
    np.testing.assert_allclose(longest, np.where(share > 0, 0.004, 0.002), rtol=1e-5)


def test_skin_seen_half_aside_may_darken_but_not_change_its_hue(skin):
    """Between edge-on and facing lies the strip of a jaw that a wall's colour would stick to."""
    state, shown = skin
    shown.facing[shown.facing > 0.3] = 0.4
    gamut = learnable_colors(state, shown)
    strip = np.flatnonzero(shown.facing == 0.4)
    for color, allowed in (
        (TEAL, False),
        (np.array([0.7, 0.3, 0.3]), False),
        (np.array([0.3, 0.25, 0.2]), True),
    ):
        tint = to_opponent(color)
        inside = (gamut.low[strip] < tint) & (gamut.high[strip] > tint)
        assert (inside.all(1) == allowed).all()
