"""The priors' value and hand-written gradients against their definition, left to autograd."""

from functools import partial

import numpy as np
import pytest
import torch

from avatar3d.avatar import SplatState
from avatar3d.avatar.deform import SplatParameters
from avatar3d.kernels import attribute_pull
from avatar3d.kernels._backend import Backend
from avatar3d.training import TrainingConfig
from avatar3d.training.priors import Priors

NAMES = ("color", "position", "log_scale", "opacity")


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_priors_are_mean_squares_with_their_gradients(
    small_state: SplatState, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = partial(attribute_pull, backend=backend)
    monkeypatch.setattr("avatar3d.training.priors.attribute_pull", pull)
    config = TrainingConfig(prior_color=0.5, prior_position=0.2, prior_scale=0.3, prior_opacity=0.1)
    priors = Priors(small_state, config)
    goals, reciprocal = priors.goals, priors.goals.inverse_reach[:, None]
    parameters = SplatParameters(small_state)
    torch.manual_seed(0)
    with torch.no_grad():
        for name in NAMES:
            value = getattr(parameters, name)
            value += 0.01 * torch.randn_like(value)
    choice = int(np.random.default_rng(3).integers(8))
    loss = 3 * priors(parameters, np.random.default_rng(3))
    loss.backward()

    truth = {n: getattr(parameters, n).detach().double().requires_grad_() for n in NAMES}
    start = torch.tensor(small_state.log_scale).double()
    skin = torch.tensor(small_state.part == SplatState.PARTS.index("skin"))
    color = truth["color"]
    expected = 3 * (
        0.5 * (color - color[priors.neighbours[choice]]).square().mean()
        + 0.2 * ((truth["position"] - goals.position) * reciprocal).square().mean()
        + 0.3 * (truth["log_scale"] - start).square().mean()
        + 0.1 * (truth["opacity"][skin] - 4).square().mean()
    )
    expected.backward()
    assert torch.allclose(loss.double(), expected, rtol=1e-5)
    for name in NAMES:
        ours = getattr(parameters, name).grad.double()
        assert torch.allclose(ours, truth[name].grad, rtol=1e-4, atol=1e-9), name
    assert skin.any()


def test_neighbours_are_near_and_of_the_same_part(small_state: SplatState) -> None:
    priors = Priors(small_state, TrainingConfig())
    part = torch.tensor(small_state.part)
    assert priors.neighbours.shape == (8, len(part))
    assert (part[priors.neighbours] == part).all()


def test_a_neighbour_that_does_not_exist_is_refused(small_state: SplatState) -> None:
    priors, p = Priors(small_state, TrainingConfig()), SplatParameters(small_state)
    for wrong in (-1, len(small_state)):
        neighbour = priors.neighbours[0].clone()
        neighbour[3] = wrong
        with pytest.raises(ValueError, match="neighbour"):
            attribute_pull(
                p.color, p.position, p.log_scale, p.opacity, priors.goals, neighbour,
                backend="native",
            )  # fmt: skip
