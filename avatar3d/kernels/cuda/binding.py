"""Gaussians that ride on a mesh, on a GPU; cuda/gpu/binding.cu."""

import torch
from torch import Tensor

from avatar3d.kernels.cuda import modules

__all__ = ["bind", "bind_backward"]

_THREADS = 128
_POSE_SUMS = 24
# Places of the operator's tensors that the backward kernel does not read: quat and color.
_UNREAD = (1, 4)


def bind(*arguments: Tensor | None) -> list[Tensor]:
    """As `avatar3d.kernels.binding._bind`: means, quats, scales, opacities, colors."""
    *inputs, _ = arguments  # the probe is zero and only collects a gradient
    tensors = [t.detach().contiguous() for t in inputs if t is not None]
    position = tensors[0]
    n = len(position)
    out = [position.new_empty(shape) for shape in ((n, 3), (n, 4), (n, 3), (n,), (n, 3))]
    if n:
        modules.load("binding.cu", position.device).launch(
            "bind_forward", (_blocks(n), 1), _THREADS, *_sizes(tensors), *tensors, *out
        )
    return out


def bind_backward(
    inputs: list[Tensor], v_outputs: list[Tensor], wanted: list[bool]
) -> list[Tensor]:
    """As `avatar3d.kernels.binding._bind_backward`: eleven gradients, empty where not wanted.

    The sums that Gaussians share are added in a fixed order, but for the vertices', which come in
    by atomic additions: their last digits may differ from run to run.

    Args:
        wanted: the five attributes; basis; probe; weights; vertices; transforms.
    """
    tensors = [t.detach().contiguous() for t in inputs]
    position, basis, weights, vertices = (tensors[i] for i in (0, 5, 6, 8))
    attributes, by_basis, by_probe, by_weights, by_vertices, transforms = wanted
    blocks = _blocks(len(position))

    def room(want: bool, *shape: int) -> Tensor:
        return position.new_zeros(shape) if want else position.new_empty(0)

    own = [torch.empty_like(t) if attributes else room(False) for t in tensors[:5]]
    grad_basis = torch.empty_like(basis) if by_basis else room(False)
    grad_blend = room(by_probe, *basis.shape[:2])
    weight_sums = room(by_weights, blocks, len(weights))
    grad_vertices = room(by_vertices, *vertices.shape)
    pose_sums = room(transforms, blocks, _POSE_SUMS)
    if len(position):
        modules.load("binding.cu", position.device).launch(
            "bind_backward", (blocks, 1), _THREADS, *_sizes(tensors),
            *(t for i, t in enumerate(tensors) if i not in _UNREAD),
            *(v.contiguous() for v in v_outputs),
            # the address of an empty tensor is null
            *own, grad_basis, grad_blend, weight_sums, grad_vertices, pose_sums,
        )  # fmt: skip
    grad_weights = weight_sums.sum(0, dtype=torch.float64).float()
    poses = [room(False), room(False)]
    if transforms:
        sums = pose_sums.sum(0, dtype=torch.float64).float().view(2, 3, 4)
        poses = list(torch.cat([sums, sums.new_zeros(2, 1, 4)], dim=1))
    return [
        *own, grad_basis, grad_blend, grad_weights if by_weights else room(False), grad_vertices,
        *poses,
    ]  # fmt: skip


def _blocks(count: int) -> int:
    return -(-count // _THREADS)


def _sizes(tensors: list[Tensor]) -> tuple[int, int, int, int]:
    """count, bound, with_basis, basis_size, in the operator's order of tensors."""
    return len(tensors[0]), len(tensors[9]), len(tensors[5]), len(tensors[6])
