"""Gaussians that ride on a mesh: from triangle frames and blendshapes to the camera frame."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avatar3d.kernels import reference
from avatar3d.kernels._backend import (
    Backend,
    arrays,
    check_devices,
    check_tensor,
    native,
    use_native,
)
from avatar3d.kernels.adam import OuterGradient
from avatar3d.kernels.cuda import binding as on_cuda
from avatar3d.kernels.operators import operator

__all__ = ["Attributes", "Binding", "BoundGaussians", "bind_gaussians", "check_binding"]


@dataclass(frozen=True)
class Binding:
    """Where N Gaussians sit: the first n on triangles, the rest in the rest frame.

    Attributes:
        corners: (n, 3) int32, the vertices of each one's triangle.
        bary: (n, 3) barycentric coordinates of its anchor point.
        torso_weight: (N,) skinning weight to the torso; the rest belongs to the head.
        vertex_count: how many vertices the mesh must have at least.
    """

    corners: Tensor
    bary: Tensor
    torso_weight: Tensor
    vertex_count: int = field(init=False)

    def __post_init__(self) -> None:
        corners = self.corners
        if not isinstance(corners, Tensor) or corners.dtype != torch.int32 or corners.ndim != 2:
            raise ValueError("corners must be an int32 tensor of shape (n, 3).")
        n = corners.shape[0]
        if corners.shape[1] != 3 or (n and int(corners.min()) < 0):
            raise ValueError("corners must have three indices a row, none negative.")
        check_tensor("bary", self.bary, (n, 3), float32=False, form=f"(n, 3) with n = {n}")
        check_tensor("torso_weight", self.torso_weight, (None,), float32=False, form="(N,)")
        if len(self.torso_weight) < n:
            raise ValueError(f"torso_weight has {len(self.torso_weight)} rows for {n} bound ones.")
        object.__setattr__(self, "vertex_count", int(corners.max()) + 1 if n else 0)


@dataclass
class Attributes:
    """Learned attributes of N Gaussians; the first B have blendshapes.

    Attributes:
        position: (N, 3) metres, in the triangle's frame or, past the bound ones, the rest frame.
        quat: (N, 4) wxyz; log_scale: (N, 3); opacity: (N,) logit; color: (N, 3).
        basis: (B, 10, K) for position 3, quat 4, color 3, in multiples of `units`; or None.
        units: (10,), ones if None.
        basis_gradient: collects the basis' gradient in factors, for a basis that does not require
            one itself.
    """

    position: Tensor
    quat: Tensor
    log_scale: Tensor
    opacity: Tensor
    color: Tensor
    basis: Tensor | None = None
    units: Tensor | None = None
    basis_gradient: OuterGradient | None = None


class BoundGaussians(NamedTuple):
    """Activated Gaussians in the camera frame, as `rasterize` takes them."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor


def bind_gaussians(
    binding: Binding,
    attributes: Attributes,
    vertices: Tensor,
    T_camera_head: Tensor,
    T_camera_torso: Tensor,
    weights: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> BoundGaussians:
    """Pose Gaussians with the mesh. Differentiable in attributes, vertices, transforms, weights.

    With a = attributes + units * (basis @ weights): a bound Gaussian's point is the barycentric
    mean of its corners plus F a.position, where F has the columns u (first edge), n x u and n
    (normal); a free one's is a.position. Then, w being torso_weight,
    means = (1 - w) T_camera_head point + w T_camera_torso point and quats = C F a.quat with C the
    torso's rotation where w >= 0.5, otherwise the head's. scales = exp(log_scale),
    opacities = sigmoid(opacity), colors = a.color.

    F and C are constants to the gradient: vertices are moved through the anchor points alone and
    transforms through the means alone. The rest would cost double and matters little.

    Args:
        vertices: (V, 3) metres, head frame.
        T_camera_head, T_camera_torso: (4, 4) rigid.
        weights: (K,) of the blendshapes; None leaves them out.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device.
    """
    a = attributes
    fast = use_native(backend, a.position)
    check_binding(binding, a, vertices, T_camera_head, T_camera_torso, weights, fast=fast)
    basis, probe = a.basis, None
    if weights is None or basis is None:
        basis, weights = a.position.new_empty(0, 10, 0), a.position.new_empty(0)
    elif a.basis_gradient is not None:
        probe = a.basis_gradient.probe(basis, weights)
    units = a.position.new_ones(10) if a.units is None else a.units
    tensors = (
        a.position, a.quat, a.log_scale, a.opacity, a.color, basis, weights, units, vertices,
        binding.corners, binding.bary, binding.torso_weight, T_camera_head, T_camera_torso, probe,
    )  # fmt: skip
    if not fast:
        return BoundGaussians(*reference.bind(*tensors))
    return BoundGaussians(*_bind(*tensors))


def check_binding(
    binding: Binding,
    a: Attributes,
    vertices: Tensor,
    T_camera_head: Tensor,
    T_camera_torso: Tensor,
    weights: Tensor | None,
    *,
    fast: bool,
) -> None:
    """Raise ValueError unless the arguments of `bind_gaussians` fit; `fast` asks for float32."""

    def check(name: str, value: Any, shape: tuple[int | None, ...], form: str) -> None:
        check_tensor(name, value, shape, float32=fast, form=form)

    n = binding.torso_weight.shape[0]
    check("torso_weight", binding.torso_weight, (n,), "(N,)")
    check("bary", binding.bary, (None, 3), "(n, 3)")
    check("position", a.position, (n, 3), f"(N, 3) with N = {n}")
    check("quat", a.quat, (n, 4), f"(N, 4) with N = {n}")
    check("log_scale", a.log_scale, (n, 3), f"(N, 3) with N = {n}")
    check("opacity", a.opacity, (n,), f"(N,) with N = {n}")
    check("color", a.color, (n, 3), f"(N, 3) with N = {n}")
    check("vertices", vertices, (None, 3), "(V, 3)")
    check("T_camera_head", T_camera_head, (4, 4), "(4, 4)")
    check("T_camera_torso", T_camera_torso, (4, 4), "(4, 4)")
    if vertices.shape[0] < binding.vertex_count:
        raise ValueError(
            f"vertices has {vertices.shape[0]} rows, but corners go to {binding.vertex_count - 1}."
        )
    if a.units is not None:
        check("units", a.units, (10,), "(10,)")
    if weights is not None and a.basis is not None:
        check("weights", weights, (None,), "(K,)")
        check("basis", a.basis, (None, 10, len(weights)), f"(B, 10, K) with K = {len(weights)}")
        if len(a.basis) > n:
            raise ValueError(f"basis has {len(a.basis)} rows for {n} Gaussians.")
    check_devices(
        position=a.position, quat=a.quat, log_scale=a.log_scale, opacity=a.opacity, color=a.color,
        basis=a.basis, units=a.units, weights=weights, vertices=vertices, corners=binding.corners,
        bary=binding.bary, torso_weight=binding.torso_weight, T_camera_head=T_camera_head,
        T_camera_torso=T_camera_torso,
    )  # fmt: skip


@operator("bind_gaussians")
def _bind(
    position: Tensor,
    quat: Tensor,
    log_scale: Tensor,
    opacity: Tensor,
    color: Tensor,
    basis: Tensor,
    weights: Tensor,
    units: Tensor,
    vertices: Tensor,
    corners: Tensor,
    bary: Tensor,
    torso_weight: Tensor,
    T_head: Tensor,
    T_torso: Tensor,
    probe: Tensor | None,
) -> list[Tensor]:
    tensors = (
        position, quat, log_scale, opacity, color, basis, weights, units, vertices, corners, bary,
        torso_weight, T_head, T_torso,
    )  # fmt: skip
    # One bad number here would spoil every Gaussian, and rasterize would draw none of them.
    for name, value in (
        ("weights", weights), ("T_camera_head", T_head), ("T_camera_torso", T_torso),
    ):  # fmt: skip
        if not np.isfinite(value.detach().numpy()).all():
            raise ValueError(f"{name} is not finite; expected numbers without NaN or infinity.")
    rig = native().Rig(*arrays(tensors))
    n = position.shape[0]
    out = [
        torch.empty(n, 3),
        torch.empty(n, 4),
        torch.empty(n, 3),
        torch.empty(n),
        torch.empty(n, 3),
    ]
    native().bind(rig, *arrays(out))
    return out


@_bind.register_fake
def _(position: Tensor, quat: Tensor, *rest: Tensor | None) -> list[Tensor]:
    n = position.shape[0]
    return [position.new_empty(shape) for shape in ((n, 3), (n, 4), (n, 3), (n,), (n, 3))]


@operator("bind_gaussians_backward")
def _bind_backward(
    inputs: list[Tensor], v_outputs: list[Tensor], wanted: list[bool]
) -> list[Tensor]:
    """Gradients of the eleven differentiable inputs, empty where not wanted.

    Args:
        inputs: of the forward, but for the probe.
        wanted: the five attributes; basis; probe; weights; vertices; transforms.
    """
    grads = [
        torch.empty(shape) if need else None
        for shape, need in zip(_gradient_shapes(inputs), _spread(wanted), strict=True)
    ]
    native().bind_backward(native().Rig(*arrays(inputs)), *arrays([*v_outputs, *grads]))
    return [torch.empty(0) if g is None else g for g in grads]


@_bind_backward.register_fake
def _(inputs: list[Tensor], v_outputs: list[Tensor], wanted: list[bool]) -> list[Tensor]:
    return [
        inputs[0].new_empty(shape if need else 0)
        for shape, need in zip(_gradient_shapes(inputs), _spread(wanted), strict=True)
    ]


_PROBE = 14  # places in the operator's arguments
_DIFFERENTIABLE = (0, 1, 2, 3, 4, 5, _PROBE, 6, 8, 12, 13)


def _gradient_shapes(inputs: list[Tensor]) -> list[torch.Size]:
    return [inputs[5].shape[:2] if i == _PROBE else inputs[i].shape for i in _DIFFERENTIABLE]


def _spread(wanted: list[bool]) -> list[bool]:
    attributes, *blended, vertices, transforms = wanted
    return [attributes] * 5 + blended + [vertices] + [transforms] * 2


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.save_for_backward(*inputs[:_PROBE])


def _backward(ctx: Any, v_outputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    need = [ctx.needs_input_grad[i] for i in _DIFFERENTIABLE]
    wanted = [any(need[:8]), *need[5:9], any(need[9:])]
    grads = _bind_backward(list(ctx.saved_tensors), list(v_outputs), wanted)
    result: list[Tensor | None] = [None] * (_PROBE + 1)
    for i, grad, needed in zip(_DIFFERENTIABLE, grads, need, strict=True):
        result[i] = grad if needed else None
    return tuple(result)


_bind.register_kernel("cuda", on_cuda.bind)
_bind_backward.register_kernel("cuda", on_cuda.bind_backward)
_bind.register_autograd(_backward, setup_context=_setup_context)
