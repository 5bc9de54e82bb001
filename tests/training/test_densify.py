"""Densification: what it may and may not change, and where it puts what it has."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from avatar3d.avatar import SplatState
from avatar3d.avatar.canonical import canonical_cloud
from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig, draw_face
from avatar3d.avatar.gamut import Gamut
from avatar3d.geometry import Camera, quaternion_to_matrix
from avatar3d.training.densify import Seen, densified, look
from avatar3d.training.losses import Sample

MOUTH = SplatState.PARTS.index("mouth")


@pytest.fixture
def gamut(small_state: SplatState) -> Gamut:
    """Limits that tell which Gaussian they are of."""
    mark = np.arange(len(small_state), dtype=float)[:, None] * np.ones(3)
    return Gamut(mark, mark + 1, np.arange(len(small_state)) % 2 == 0)


def _seen(state: SplatState) -> Seen:
    rng = np.random.default_rng(2)
    return Seen(rng.random(len(state)) * 0.2, rng.random(len(state)))


def test_meets_the_budget_and_keeps_the_order_that_renderers_need(small_state, gamut):
    seen = _seen(small_state)
    before = {f.name: np.array(getattr(small_state, f.name)) for f in fields(small_state)}
    state, limits = densified(small_state, gamut, seen, 400)
    state.validate()
    assert len(state) == 400
    SplatRig(state)  # refuses bound Gaussians behind the torso's
    parents = limits.low[:, 0].astype(int)
    assert (np.diff(parents) >= 0).all()
    for name in ("face", "bary", "part", "quat", "opacity", "color"):
        assert np.array_equal(getattr(state, name), before[name][parents]), name
    assert np.array_equal(state.basis, before["basis"][parents[parents < 300]])
    assert np.array_equal(limits.steady, parents % 2 == 0)
    assert all(np.array_equal(getattr(small_state, n), value) for n, value in before.items())


def test_splits_where_the_error_pulls_hardest(small_state, gamut):
    seen = _seen(small_state)
    _, limits = densified(small_state, gamut, seen, 400)
    parents, copies = np.unique(limits.low[:, 0].astype(int), return_counts=True)
    split = parents[copies == 2]
    once = parents[copies == 1]
    assert len(split) > 60
    assert seen.pull[split].min() >= seen.pull[once].max()


def test_thins_only_what_no_frame_shows_of_parts_with_layers(small_state, gamut):
    seen = _seen(small_state)
    _, limits = densified(small_state, gamut, seen, 0)
    gone = np.setdiff1d(np.arange(len(small_state)), limits.low[:, 0].astype(int))
    layered = np.isin(small_state.part, [MOUTH, SplatState.PARTS.index("hair")])
    hidden = np.flatnonzero(layered & (seen.area < 0.05))
    assert np.array_equal(gone, hidden[::2])


def test_halves_lie_inside_the_whole_and_beside_each_other(small_state, gamut):
    count = len(small_state)
    small_state.basis[:] = 0
    state, _ = densified(small_state, gamut, Seen(np.ones(count), np.ones(count)), 2 * count)
    old, new = canonical_cloud(small_state), canonical_cloud(state)
    first, second = new.means[::2], new.means[1::2]
    assert np.allclose((first + second) / 2, old.means, atol=1e-6)
    axis = small_state.log_scale.argmax(1)
    longest = np.exp(small_state.log_scale.max(1))
    assert np.allclose(np.linalg.norm(first - second, axis=1), 1.2 * longest, rtol=1e-3)
    shrunk = state.log_scale[::2] - small_state.log_scale
    assert np.allclose(shrunk[np.arange(count), axis], np.log(0.65), atol=1e-5)
    assert np.count_nonzero(shrunk) == count
    along = quaternion_to_matrix(torch.tensor(old.quats)).numpy()[np.arange(count), :, axis]
    cosine = np.abs(((first - second) * along).sum(1)) / (1.2 * longest)
    assert np.allclose(cosine, 1, atol=1e-3)


def test_look_tells_area_and_pull(small_state):
    state = small_state
    rig = SplatRig(state)
    parameters = SplatParameters(state)
    rest = torch.tensor(state.T_camera_rest, dtype=torch.float32)
    face = FaceParameters(torch.zeros(len(state.expression)), torch.zeros(2, 2), rest, rest)
    width, height = (int(side) for side in state.size)
    camera = Camera(np.asarray(state.K_matrix), width, height)
    background = torch.zeros(3)
    target = torch.full((height, width, 3), 0.5)
    sample = Sample(face, camera, target, background, torch.ones(height, width))
    seen = look(rig, parameters, [sample, sample], lambda image, s: (image - s.image).abs().mean())
    _, alpha = draw_face(rig, parameters, face, camera, background, use_basis=False)
    assert seen.area.sum() == pytest.approx(float(alpha.detach().sum()), rel=1e-4)
    assert ((seen.pull > 0) == (seen.area > 0)).mean() > 0.95
    assert (seen.pull >= 0).all()
