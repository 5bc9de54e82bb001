"""Posing Gaussians, against a plain numpy reading of the contract in `SplatState`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from avatar3d.avatar import SplatState
from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig, pose_gaussians
from avatar3d.head import HeadModel, ShapedHead


def _face(rows: int, seed: int = 0) -> FaceParameters:
    rng = np.random.default_rng(seed)

    def rigid() -> torch.Tensor:
        transform = np.eye(4)
        transform[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.3, 3)).as_matrix()
        transform[:3, 3] = rng.normal([0, 0, 0.6], 0.05)
        return torch.tensor(transform, dtype=torch.float32)

    return FaceParameters(
        weights=torch.tensor(rng.random(rows), dtype=torch.float32),
        gaze=torch.tensor(rng.normal(0, 0.2, (2, 2)), dtype=torch.float32),
        T_camera_head=rigid(),
        T_camera_torso=rigid(),
    )


def _by_the_contract(state: SplatState, face: FaceParameters, index: int):
    """Mean, rotation matrix and colour of one Gaussian, in float64 numpy."""
    weights, gaze = face.weights.double().numpy(), face.gaze.double().numpy()
    vertices = state.vertices + np.einsum("e,evk->vk", weights, state.expression)
    for side in (1, 2):
        yaw, pitch = gaze[side - 1]
        turn = Rotation.from_euler("YX", [yaw, -pitch]).as_matrix()
        center = state.eye_centers[side - 1]
        chosen = state.eye == side
        vertices[chosen] = (vertices[chosen] - center) @ turn.T + center
    signal = np.concatenate([weights, gaze.ravel()])
    signal = np.clip(signal, state.signal_min, state.signal_max) - state.mean
    raw = state.map @ signal + state.bias
    blend = state.limit * np.tanh(raw / state.limit)
    delta = state.basis[index] @ blend if index < len(state.basis) else np.zeros(10)
    position, quat = state.position[index] + delta[:3], state.quat[index] + delta[3:7]
    local = Rotation.from_quat(np.roll(quat, -1)).as_matrix()
    if state.face[index] >= 0:
        corners = vertices[state.faces[state.face[index]]]
        u = corners[1] - corners[0]
        u /= np.linalg.norm(u)
        n = np.cross(u, corners[2] - corners[0])
        n /= np.linalg.norm(n)
        frame = np.stack([u, np.cross(n, u), n], -1)
        point = state.bary[index] @ corners + frame @ position
        rotation = frame @ local
        w = state.torso_weight[state.faces[state.face[index]]] @ state.bary[index]
    else:
        point, rotation, w = position, local, 1.0
    head, torso = face.T_camera_head.double().numpy(), face.T_camera_torso.double().numpy()
    mean = (1 - w) * (head[:3, :3] @ point + head[:3, 3])
    mean += w * (torso[:3, :3] @ point + torso[:3, 3])
    carrier = head if w < 0.5 else torso
    return mean, carrier[:3, :3] @ rotation, state.color[index] + delta[7:]


def test_posed_gaussians_follow_the_contract(small_state: SplatState) -> None:
    face = _face(len(small_state.expression))
    splats = pose_gaussians(SplatRig(small_state), SplatParameters(small_state), face)
    for index in range(0, len(small_state), 7):
        mean, rotation, color = _by_the_contract(small_state, face, index)
        np.testing.assert_allclose(splats.means[index].detach(), mean, atol=2e-6)
        np.testing.assert_allclose(splats.colors[index].detach(), color, atol=2e-6)
        quat = splats.quats[index].detach().numpy()
        got = Rotation.from_quat(np.roll(quat, -1)).as_matrix()
        np.testing.assert_allclose(got, rotation, atol=1e-4)


def test_rig_moves_vertices_like_the_head_model(
    small_head: HeadModel, small_state: SplatState
) -> None:
    face = _face(len(small_state.expression), seed=1)
    shaped = ShapedHead(small_head, small_head.template, small_head.eye_centers)
    expected = shaped.posed(face.weights.numpy(), face.gaze.numpy())
    got = SplatRig(small_state).head_vertices(face.weights, face.gaze)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_without_the_basis_the_expression_does_not_change_colours(small_state: SplatState) -> None:
    rig, parameters = SplatRig(small_state), SplatParameters(small_state)
    face = _face(len(small_state.expression))
    splats = pose_gaussians(rig, parameters, face, use_basis=False)
    assert torch.equal(splats.colors, parameters.color)


def test_gradients_reach_pose_and_expression(small_state: SplatState) -> None:
    """Against central differences in the quantities photometric tracking optimises."""
    rig, parameters = SplatRig(small_state), SplatParameters(small_state)
    parameters.requires_grad_(False)
    target = torch.randn(len(small_state), 3, generator=torch.Generator().manual_seed(0))

    def objective(weights: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
        face = replace(_face(len(small_state.expression)), weights=weights, T_camera_head=transform)
        splats = pose_gaussians(rig, parameters, face, use_basis=False)
        # Torso and bound Gaussians whose frame does not turn: the frames count as constant.
        return (splats.means * target).sum()

    start = _face(len(small_state.expression))
    transform = start.T_camera_head.clone().requires_grad_(True)
    objective(start.weights, transform).backward()
    assert transform.grad is not None
    for row, column in ((0, 3), (1, 1), (2, 0)):
        step = torch.zeros(4, 4)
        step[row, column] = 1e-2
        numeric = objective(start.weights, start.T_camera_head + step) - objective(
            start.weights, start.T_camera_head - step
        )
        assert float(transform.grad[row, column]) == pytest.approx(float(numeric) / 2e-2, rel=2e-2)


def test_learned_parameters_survive_the_way_back_to_the_state(small_state: SplatState) -> None:
    before = replace(small_state)
    SplatParameters(small_state).write_to(small_state)
    for name in SplatParameters.NAMES:
        np.testing.assert_allclose(getattr(small_state, name), getattr(before, name), rtol=1e-6)
