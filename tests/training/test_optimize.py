"""The optimiser that takes the basis' gradient in factors, against torch's AdamW on all of it."""

import numpy as np
import torch

from avatar3d.avatar import SplatState
from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig, pose_gaussians
from avatar3d.avatar.gamut import Gamut
from avatar3d.training.optimize import (
    ColorLimits,
    SplatAdamW,
    keep_in_bounds,
    raise_eps,
    set_rate,
)


def _faces(state: SplatState) -> list[FaceParameters]:
    rest = torch.tensor(state.T_camera_rest, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    return [
        FaceParameters(
            weights=torch.rand(len(state.expression), generator=generator),
            gaze=0.1 * torch.randn(2, 2, generator=generator),
            T_camera_head=rest,
            T_camera_torso=rest,
        )
        for _ in range(6)
    ]


def _descend(state: SplatState, factored: bool) -> SplatParameters:
    torch.manual_seed(1)
    parameters, rig = SplatParameters(state), SplatRig(state)
    with torch.no_grad():
        for value in (parameters.basis, parameters.map):
            value += 0.1 * torch.randn_like(value)
    optimizer: torch.optim.Optimizer = SplatAdamW(parameters)
    if not factored:
        groups = [{**g, "params": list(g["params"])} for g in optimizer.param_groups]
        optimizer = torch.optim.AdamW(groups, fused=False, foreach=False)
        parameters.basis_gradient = None
        parameters.basis.requires_grad_(True)
        for group in optimizer.param_groups:
            group["fused"] = group["foreach"] = False
    faces = _faces(state)
    for step in range(len(faces)):
        set_rate(optimizer, 1 - 0.1 * step)
        optimizer.zero_grad()
        for face in (faces[step], faces[step - 1]):  # two frames a step
            means, quats, _, _, colors = pose_gaussians(rig, parameters, face)
            (
                100 * means.square().sum() + quats[:, 1].sum() + (colors - 0.3).square().sum()
            ).backward()
        optimizer.step()
        if step == 3:
            raise_eps(optimizer)
    return parameters


def test_factored_basis_learns_as_torchs_adamw_lets_it(small_state: SplatState) -> None:
    ours, torchs = (_descend(small_state, factored) for factored in (True, False))
    start = SplatParameters(small_state)
    for name in SplatParameters.NAMES:
        a, b = getattr(ours, name).detach(), getattr(torchs, name).detach()
        moved = (b - getattr(start, name).detach()).abs().max()
        assert (a - b).abs().max() <= 1e-3 * moved, name
    assert ours.basis.grad is None
    assert torchs.basis.grad is not None


def test_moments_survive_a_state_dict(small_state: SplatState) -> None:
    parameters, rig = SplatParameters(small_state), SplatRig(small_state)
    optimizer = SplatAdamW(parameters)
    pose_gaussians(rig, parameters, _faces(small_state)[0]).means.sum().backward()
    optimizer.step()
    again = SplatAdamW(SplatParameters(small_state))
    again.load_state_dict(optimizer.state_dict())
    first, second = optimizer.state_dict()["state"], again.state_dict()["state"]
    assert first.keys() == second.keys()
    basis = SplatParameters.NAMES.index("basis")
    assert set(first[basis]) == {"step", "exp_avg", "exp_avg_sq"}
    assert all(torch.equal(first[basis][key], second[basis][key]) for key in first[basis])


def test_eyeballs_keep_their_place_in_every_expression(small_state):
    """Moved outwards by one expression, they would come through the lids of the next blink."""
    eyes = (np.arange(len(small_state)) % 3 == 0) & (small_state.face >= 0)
    small_state.part[:] = np.where(eyes, SplatState.PARTS.index("eyes"), 0)
    parameters = SplatParameters(small_state)
    with torch.no_grad():
        parameters.basis.fill_(0.5)
    keep_in_bounds(parameters, ColorLimits(Gamut.unlimited(len(small_state))))
    basis = parameters.basis.detach().numpy()
    eyes = eyes[: len(basis)]
    assert (basis[eyes, :3] == 0).all()
    assert (basis[eyes, 3:] == 0.5).all()
    assert (basis[~eyes] == 0.5).all()
