"""Binding Gaussians to a mesh, against scipy's rotations, a float64 twin and torch's own checks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from avatar3d import kernels
from avatar3d.kernels import Binding


def run(rig, backend: str, dtype: torch.dtype) -> tuple[Any, dict[str, Tensor]]:
    leaves = rig.leaves(dtype)
    out = leaves.bind(backend)
    g = torch.Generator().manual_seed(1)
    sum((v * torch.randn(v.shape, generator=g).to(dtype)).sum() for v in out).backward()
    return [v.detach() for v in out], leaves.gradients()


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_follows_the_contract_in_scipys_rotations(make_rig, backend):
    rig = make_rig(40, 30, 20, 5)
    means, quats, scales, opacities, colors = (v.numpy() for v in rig.bind(backend))
    a, b = rig.attributes, rig.binding
    vertices = rig.vertices.double().numpy()
    transforms = [t.double().numpy() for t in (rig.head, rig.torso)]
    for i in range(40):
        delta = np.zeros(10)
        if i < 20:
            delta = a.basis[i].double().numpy() @ rig.weights.double().numpy() * a.units.numpy()
        point = a.position[i].double().numpy() + delta[:3]
        turn = Rotation.from_quat(np.roll(a.quat[i].double().numpy() + delta[3:7], -1))
        if i < 30:
            corners = vertices[b.corners[i]]
            u = corners[1] - corners[0]
            n = np.cross(u, corners[2] - corners[0])
            u, n = u / np.linalg.norm(u), n / np.linalg.norm(n)
            frame = np.stack([u, np.cross(n, u), n], -1)
            point = b.bary[i].numpy() @ corners + frame @ point
            turn = Rotation.from_matrix(frame) * turn
        w = float(b.torso_weight[i])
        carried = [T[:3, :3] @ point + T[:3, 3] for T in transforms]
        assert np.allclose(means[i], (1 - w) * carried[0] + w * carried[1], atol=1e-6)
        turn = Rotation.from_matrix(transforms[w >= 0.5][:3, :3]) * turn
        ours = Rotation.from_quat(np.roll(quats[i], -1)).as_matrix()
        assert np.allclose(ours, turn.as_matrix(), atol=1e-5)
        assert np.allclose(colors[i], a.color[i].numpy() + delta[7:], atol=1e-5)
    assert np.allclose(scales, np.exp(a.log_scale.numpy()), rtol=1e-6)
    assert np.allclose(opacities, 1 / (1 + np.exp(-a.opacity.numpy())), rtol=1e-6)


@pytest.mark.parametrize("sizes", [(50, 33, 21, 16), (37, 37, 37, 5), (20, 0, 7, 33), (9, 4, 0, 3)])
def test_agrees_with_the_float64_oracle(make_rig, sizes, simd, threads, relative_error):
    rig = make_rig(*sizes)
    out, gradients = run(rig, "native", torch.float32)
    truth, true_gradients = run(rig, "reference", torch.float64)
    for value, expected in zip(out, truth, strict=True):
        assert ((value - expected).abs() < 2e-6 * expected.abs().clamp(min=1)).all()
    for name, gradient in gradients.items():
        if true_gradients[name] is None or not true_gradients[name].numel():
            continue
        assert relative_error(gradient, true_gradients[name]) < 1e-5, name


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_size(make_rig, data):
    count = data.draw(st.integers(0, 40))
    bound, blended = data.draw(st.integers(0, count)), data.draw(st.integers(0, count))
    rig = make_rig(
        count, bound, blended, data.draw(st.integers(1, 40)), data.draw(st.integers(0, 99))
    )
    for value, expected in zip(
        rig.bind("native"), rig.leaves(torch.float64).bind("reference"), strict=True
    ):
        assert ((value - expected).abs() < 3e-6 * expected.abs().clamp(min=1)).all()


def test_without_blendshapes(make_rig):
    rig = make_rig(30, 20, 30, 4)
    plain = replace(rig, weights=None)
    still = replace(rig, weights=torch.zeros(4))
    for a, b in zip(plain.bind(), still.bind(), strict=True):
        assert torch.equal(a, b)


def test_only_what_is_asked_for_gets_a_gradient(make_rig):
    rig = make_rig(30, 20, 30, 4)
    rig.vertices.requires_grad_()
    rig.head.requires_grad_()
    rig.bind().means.sum().backward()
    assert rig.vertices.grad is not None
    assert rig.torso.grad is None
    assert rig.attributes.position.grad is None
    # moving every vertex moves every bound mean with the skinned rotation
    w = rig.binding.torso_weight[:20, None, None]
    turn = (1 - w) * rig.head[:3, :3] + w * rig.torso[:3, :3]
    assert torch.allclose(rig.vertices.grad.sum(0), turn.sum((0, 1)), atol=1e-4)


def test_results_do_not_depend_on_threads(make_rig, simd):
    rig = make_rig(700, 500, 400, 16)
    before = kernels.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        kernels.set_num_threads(threads)
        results.append(run(rig, "native", torch.float32))
    kernels.set_num_threads(before)
    for out, gradients in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(out, results[0][0], strict=True))
        assert all(torch.equal(gradients[name], results[0][1][name]) for name in gradients)


def test_degenerate_triangles_and_extreme_values_stay_in_their_lane(make_rig, simd):
    rig = make_rig(32, 20, 10, 4)
    expected = rig.bind("native")
    rig.binding.corners[3] = rig.binding.corners[3, 0]  # a triangle of no area
    rig.attributes.log_scale[5] = 200.0
    rig.attributes.opacity[6] = -1000.0
    rig.attributes.position[7] = float("nan")
    out = rig.bind("native")
    others = [i for i in range(32) if i not in (3, 5, 6, 7)]
    for a, b in zip(out, expected, strict=True):
        assert torch.equal(a[others], b[others])
    assert out.means[3].isfinite().all()
    assert (out.scales[5] > 1e38).all()
    assert out.opacities[6] == pytest.approx(0, abs=1e-30)
    assert out.means[7].isnan().all()


def test_the_operator_obeys_torch(make_rig):
    from avatar3d.kernels.binding import _bind

    rig = make_rig(14, 9, 6, 3).leaves(torch.float32)
    a, b = rig.attributes, rig.binding
    arguments = (
        a.position, a.quat, a.log_scale, a.opacity, a.color, a.basis, rig.weights, a.units,
        rig.vertices, b.corners, b.bary, b.torso_weight, rig.head, rig.torso,
    )  # fmt: skip
    torch.library.opcheck(_bind.overload, (*arguments, None))
    probe = torch.zeros(6, 10, requires_grad=True)
    torch.library.opcheck(_bind.overload, (*arguments, probe))


def test_wrong_arguments_are_named(make_rig):
    rig = make_rig(8, 5, 4, 3)
    b = rig.binding
    with pytest.raises(ValueError, match="corners must be an int32 tensor"):
        Binding(b.corners.long(), b.bary, b.torso_weight)
    with pytest.raises(ValueError, match="none negative"):
        Binding(b.corners - 30, b.bary, b.torso_weight)
    with pytest.raises(ValueError, match="torso_weight has 2 rows for 5"):
        Binding(b.corners, b.bary, b.torso_weight[:2])
    with pytest.raises(ValueError, match=r"quat has shape \(8, 3\), expected \(N, 4\) with N = 8"):
        replace(rig, attributes=replace(rig.attributes, quat=torch.zeros(8, 3))).bind()
    with pytest.raises(ValueError, match="vertices has 4 rows, but corners go to"):
        replace(rig, vertices=rig.vertices[:4]).bind()
    with pytest.raises(ValueError, match=r"basis has shape .*, expected \(B, 10, K\) with K = 2"):
        replace(rig, weights=torch.zeros(2)).bind()
