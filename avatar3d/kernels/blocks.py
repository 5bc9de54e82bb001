"""Normal equations of many frames, each a dense symmetric block, and what solves them."""

import numpy as np
import torch
from torch import Tensor

from avatar3d.kernels import reference
from avatar3d.kernels._backend import Backend, arrays, check_tensor, native, use_native

__all__ = ["factor_blocks", "multiply_blocks", "normal_equations", "solve_blocks"]


def normal_equations(
    own: Tensor,
    view: Tensor,
    basis: Tensor,
    error: Tensor,
    strength: Tensor,
    pairs: Tensor,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Gauss-Newton's H = sum of strength J^T J and g = sum of strength J^T error, for each frame.

    The unknowns of a frame are A of its own and E weights of movements that all frames share, so
    the slopes of point q are J = [own, view basis]. After the Q points come P differences of two
    of them. As many threads as torch has at most. Not differentiable.

    Args:
        own: (T, Q, 2, A) slopes by a frame's own unknowns.
        view: (T, Q, 2, 3) slopes by a movement of the point.
        basis: (Q, 3, E) movements.
        error: (T, Q + P, 2).
        strength: (T, Q + P), not negative; rows of strength 0 cost nothing.
        pairs: (P, 2) int32, first minus second.

    Returns:
        H (T, A + E, A + E) and g (T, A + E), a frame's own unknowns first.

    Raises:
        ValueError: an argument has the wrong shape, dtype or range.
    """
    frames, points = own.shape[:2]
    size = own.shape[-1] + basis.shape[-1]
    residuals = points + len(pairs)
    for name, value, shape in (
        ("own", own, (frames, points, 2, None)),
        ("view", view, (frames, points, 2, 3)),
        ("basis", basis, (points, 3, None)),
        ("error", error, (frames, residuals, 2)),
        ("strength", strength, (frames, residuals)),
    ):
        check_tensor(name, value, shape, float32=True, form=str(shape))
    if pairs.dtype != torch.int32 or pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pairs is {pairs.dtype} {tuple(pairs.shape)}, expected int32 (P, 2).")
    if not use_native(backend):
        return reference.normal_equations(own, view, basis, error, strength, pairs)
    H, g = torch.empty(frames, size, size), torch.empty(frames, size)
    given = arrays([own, view, basis, error, strength, pairs, H, g])
    native().normal_equations(*given, torch.get_num_threads())
    return H, g


def factor_blocks(H: Tensor, mask: Tensor, added: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Cholesky factors U of blocks: U^T U = mask H mask + diag(added).

    Args:
        H: (T, N, N) symmetric; only the upper triangle is read.
        mask: (T, N) factors of rows and columns.
        added: (T, N).

    Returns:
        (T, N, N) for `solve_blocks`: U above the diagonal, 1 / U on it, below it anything.

    Raises:
        ValueError: an argument has the wrong shape or dtype.
        np.linalg.LinAlgError: a block is not positive definite.
    """
    _check_blocks(H, mask=mask, added=added)
    if not use_native(backend):
        return reference.factor_blocks(H, mask, added)
    upper = torch.empty_like(H, memory_format=torch.contiguous_format)
    if not native().factor_blocks(*arrays([H, mask, added, upper]), torch.get_num_threads()):
        raise np.linalg.LinAlgError("A block of the normal equations is not positive definite.")
    return upper


def solve_blocks(upper: Tensor, b: Tensor, *, backend: Backend = "auto") -> Tensor:
    """(T, N): x with U^T U x = b for the factors (T, N, N) of `factor_blocks` and b (T, N).

    Raises:
        ValueError: an argument has the wrong shape or dtype.
    """
    _check_blocks(upper, b=b)
    if not use_native(backend):
        return reference.solve_blocks(upper, b)
    x = torch.empty_like(b, memory_format=torch.contiguous_format)
    native().solve_blocks(*arrays([upper, b, x]), torch.get_num_threads())
    return x


def multiply_blocks(H: Tensor, x: Tensor, *, backend: Backend = "auto") -> Tensor:
    """(T, N): products of symmetric blocks (T, N, N), whose upper triangle is read, and x (T, N).

    Raises:
        ValueError: an argument has the wrong shape or dtype.
    """
    _check_blocks(H, x=x)
    if not use_native(backend):
        return reference.multiply_blocks(H, x)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    native().multiply_blocks(*arrays([H, x, y]), torch.get_num_threads())
    return y


def _check_blocks(blocks: Tensor, **vectors: Tensor) -> None:
    count, size = (blocks.shape[0], blocks.shape[-1]) if blocks.ndim else (0, 0)
    check_tensor("the blocks", blocks, (count, size, size), float32=True, form="(T, N, N)")
    for name, value in vectors.items():
        check_tensor(name, value, (count, size), float32=True, form="(T, N)")
