"""Several faces at once: posed and drawn, or compared with pictures and differentiated.

The same as `bind_gaussians`, `rasterize` and `l1_ssim_loss` one after the other, but on the CPU
each face is the work of one thread from its vertices to its picture or its gradients. That keeps
all of them busy where the steps of one face, some a fraction of a millisecond, would not.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from avatar3d.kernels._backend import Backend, arrays, check_tensor, native, use_native
from avatar3d.kernels.binding import Attributes, Binding, bind_gaussians, check_binding
from avatar3d.kernels.pixels import encode_pixels
from avatar3d.kernels.rasterizer import rasterize
from avatar3d.kernels.ssim import l1_ssim_loss

__all__ = ["FaceGradients", "Poses", "check_view", "draw_faces", "face_gradients", "native_rig"]

_Pose = tuple[Tensor, Tensor, Tensor, Tensor | None]  # vertices, both transforms, weights


class Poses(NamedTuple):
    """What F faces do; see `bind_gaussians`.

    Attributes:
        vertices: (F, V, 3) metres, head frame.
        T_camera_head, T_camera_torso: (F, 4, 4) rigid.
        weights: (F, K) of the blendshapes; None leaves them out.
    """

    vertices: Tensor
    T_camera_head: Tensor
    T_camera_torso: Tensor
    weights: Tensor | None = None


class FaceGradients(NamedTuple):
    """The losses (F,) of F faces and their gradients at `Poses`, blendshape weights apart."""

    losses: Tensor
    vertices: Tensor
    T_camera_head: Tensor
    T_camera_torso: Tensor


def draw_faces(
    binding: Binding,
    attributes: Attributes,
    poses: Poses,
    K: Tensor,
    width: int,
    height: int,
    background: Tensor,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Pictures (F, height, width, 3) uint8 of F faces. Not differentiable.

    Args:
        binding, attributes, poses: see `bind_gaussians`.
        K, background: see `rasterize`; the same for all faces.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device, or is not finite.
    """
    if not _whole(backend, attributes):
        view = K, width, height, background
        drawn = [_draw(binding, attributes, pose, view, backend) for pose in _each(poses)]
        return torch.stack([encode_pixels(picture, backend=backend) for picture in drawn])
    pictures = torch.empty(len(poses.vertices), height, width, 3, dtype=torch.uint8)
    rig = native_rig(binding, attributes, poses)
    check_view(K, background, width, height)
    native().draw_faces(rig, *arrays([K, background, pictures]))
    return pictures


def face_gradients(
    binding: Binding,
    attributes: Attributes,
    poses: Poses,
    K: Tensor,
    background: Tensor,
    targets: Tensor,
    weights: Tensor,
    ssim_weight: float = 0.2,
    *,
    backend: Backend = "auto",
) -> FaceGradients:
    """`l1_ssim_loss` of every face against its picture, and the gradients at its pose.

    Args:
        binding, attributes, poses: see `bind_gaussians`; the attributes get no gradient.
        K, background: see `rasterize`; the same for all faces.
        targets: (F, H, W, 3) in [0, 1].
        weights: (F, H, W) of the pixels.
        ssim_weight: see `l1_ssim_loss`.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device, or is not finite.
    """
    faces, height, width = targets.shape[:3]
    if not _whole(backend, attributes):
        view = K, width, height, background
        rows = []
        for pose, target, weight in zip(_each(poses), targets, weights, strict=True):
            with torch.enable_grad():
                vertices, head, torso = (track.detach().requires_grad_() for track in pose[:3])
                leaves = vertices, head, torso, pose[3]
                image = _draw(binding, attributes, leaves, view, backend)
                loss = l1_ssim_loss(image, target, weight, ssim_weight, backend=backend)
            rows.append([loss.detach(), *torch.autograd.grad(loss, leaves[:3])])
        return FaceGradients(*(torch.stack(column) for column in zip(*rows, strict=True)))
    check_tensor("targets", targets, (len(poses.vertices), None, None, 3), float32=True,
                 form=f"(F, H, W, 3) with F = {len(poses.vertices)}")  # fmt: skip
    check_tensor("weights", weights, (faces, height, width), float32=True,
                 form=f"(F, H, W) = ({faces}, {height}, {width})")  # fmt: skip
    rig = native_rig(binding, attributes, poses)
    check_view(K, background, width, height)
    share = 1 / max(targets[0].numel(), 1)
    result = FaceGradients(
        torch.empty(faces),
        torch.empty(poses.vertices.shape),
        torch.empty(faces, 4, 4),
        torch.empty(faces, 4, 4),
    )
    native().face_gradients(
        rig,
        *arrays([K, background, targets, weights]),
        (1.0 - ssim_weight) * share,
        ssim_weight * share,
        *arrays(result),
    )
    return result


def _whole(backend: Backend, attributes: Attributes) -> bool:
    """Whether the native kernels do all of it; on a GPU, or without them, the parts are called."""
    return use_native(backend, attributes.position) and attributes.position.device.type == "cpu"


def _each(poses: Poses) -> Iterator[_Pose]:
    vertices, head, torso, weights = poses
    for i in range(len(vertices)):
        yield vertices[i], head[i], torso[i], None if weights is None else weights[i]


def native_rig(binding: Binding, a: Attributes, poses: Poses) -> object:
    """All faces as the native module takes them."""
    vertices, head, torso, weights = poses
    faces = vertices.shape[0] if isinstance(vertices, Tensor) and vertices.ndim == 3 else None
    basis = a.basis
    if weights is None or basis is None:
        basis, weights = a.position.new_empty(0, 10, 0), a.position.new_empty(faces or 0, 0)
    for name, value, shape in (
        ("vertices", vertices, (faces, None, 3)),
        ("T_camera_head", head, (faces, 4, 4)),
        ("T_camera_torso", torso, (faces, 4, 4)),
        ("weights", weights, (faces, None)),
    ):
        check_tensor(name, value, shape, float32=True, form=f"(F, ...) = {shape}")
        if name != "vertices" and not value.isfinite().all():
            raise ValueError(f"{name} is not finite; expected numbers without NaN or infinity.")
    one = (vertices[0], head[0], torso[0], weights[0] if weights.shape[1] else None)
    check_binding(binding, a, *one, fast=True)
    units = a.position.new_ones(10) if a.units is None else a.units
    tensors = (
        a.position, a.quat, a.log_scale, a.opacity, a.color, basis, weights, units, vertices,
        binding.corners, binding.bary, binding.torso_weight, head, torso,
    )  # fmt: skip
    return native().Rig(*arrays(tensors))


def check_view(K: Tensor, background: Tensor, width: int, height: int) -> None:
    check_tensor("K", K, (3, 3), float32=True, form="(3, 3)")
    flat = isinstance(background, Tensor) and background.ndim == 1
    shape = (3,) if flat else (height, width, 3)
    form = f"(3,) or ({height}, {width}, 3)"
    check_tensor("background", background, shape, float32=True, form=form)


def _draw(
    binding: Binding,
    attributes: Attributes,
    pose: _Pose,
    view: tuple[Tensor, int, int, Tensor],
    backend: Backend,
) -> Tensor:
    """The picture of one face by the parts that make it."""
    splats = bind_gaussians(binding, attributes, *pose, backend=backend)
    K, width, height, background = view
    eye = torch.eye(4, dtype=K.dtype, device=K.device)
    return rasterize(*splats, eye, K, width, height, background, backend=backend)[0]
