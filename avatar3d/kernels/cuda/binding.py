"""Gaussians that ride on a mesh, on a GPU; cuda/gpu/binding.cu."""

import torch
from torch import Tensor

from avatar3d.kernels.cuda import modules

__all__ = ["bind", "bind_backward"]

_THREADS = 128
_CAMERA_SUMS = 24
# Places of the operator's tensors that the backward kernel does not read: quat and color.
_UNREAD = (1, 4)


def bind(*tensors: Tensor) -> list[Tensor]:
    """As `avatar3d.kernels.binding._bind`: means, quats, scales, opacities, colors."""
    tensors = tuple(t.detach().contiguous() for t in tensors)
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
    """As `avatar3d.kernels.binding._bind_backward`: ten gradients, empty where not wanted.

    The sums that Gaussians share are added in a fixed order, but for the vertices', which come in
    by atomic additions: their last digits may differ from run to run.

    Args:
        wanted: the five attributes; basis and weights; vertices; transforms.
    """
    tensors = [t.detach().contiguous() for t in inputs]
    position, basis, weights, vertices = (tensors[i] for i in (0, 5, 6, 8))
    attributes, blended, by_vertices, transforms = wanted
    n = len(position)
    blocks = _blocks(n)
    none = position.new_empty(0)
    own = [torch.empty_like(t) if attributes else none for t in tensors[:5]]
    grad_basis = torch.empty_like(basis) if blended else none
    weight_sums = position.new_zeros(blocks, len(weights)) if blended else none
    grad_vertices = torch.zeros_like(vertices) if by_vertices else none
    camera_sums = position.new_empty(blocks, _CAMERA_SUMS) if transforms else none
    if n:
        gradients = [
            g if want else None
            for g, want in (
                *((g, attributes) for g in own),
                (grad_basis, blended), (weight_sums, blended),
                (grad_vertices, by_vertices), (camera_sums, transforms),
            )
        ]  # fmt: skip
        modules.load("binding.cu", position.device).launch(
            "bind_backward", (blocks, 1), _THREADS, *_sizes(tensors),
            *(t for i, t in enumerate(tensors) if i not in _UNREAD),
            *(v.contiguous() for v in v_outputs), *gradients,
        )  # fmt: skip
    grad_weights = weight_sums.sum(0, dtype=torch.float64).float() if blended else none
    poses = [none, none]
    if transforms:
        sums = camera_sums.sum(0, dtype=torch.float64).float().view(2, 3, 4)
        poses = list(torch.cat([sums, sums.new_zeros(2, 1, 4)], dim=1))
    return [*own, grad_basis, grad_weights, grad_vertices, *poses]


def _blocks(count: int) -> int:
    return -(-count // _THREADS)


def _sizes(tensors: tuple[Tensor, ...] | list[Tensor]) -> tuple[int, int, int, int]:
    """count, bound, with_basis, basis_size, in the operator's order of tensors."""
    return len(tensors[0]), len(tensors[9]), len(tensors[5]), len(tensors[6])
