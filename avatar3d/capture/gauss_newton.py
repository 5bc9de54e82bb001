"""Gauss-Newton for the landmark fit: the linearised problem of many frames and its solution.

The unknowns of one frame form a dense block; frames hang together through second differences in
time and the mean expression, and through the shape of the face where that is free. The normal
equations are solved by conjugate gradients with the frame blocks as preconditioner. Expression
weights stay within [0, 1] by an active set.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from avatar3d.kernels import factor_blocks, multiply_blocks, solve_blocks

__all__ = ["Blocks", "Coupling", "bounded_step"]

_DAMPING = 1e-4
_ROUNDS = 2


@dataclass(frozen=True)
class Blocks:
    """Quadratic model 0.5 x'Hx + g'x of T frames with N unknowns, and of S shared unknowns.

    Attributes:
        H: (T, N, N) of every frame by itself, smoothness included in its diagonal.
        g: (T, N).
        shared_g: (S,); shared_preconditioner: (S,) vector to (S,), an approximate inverse.
        shared_product: frame part (T, N) and shared part (S,) of a vector to what the shared
            unknowns add to its product with H.
    """

    H: Tensor
    g: Tensor
    shared_g: Tensor | None = None
    shared_preconditioner: Callable[[Tensor], Tensor] | None = None
    shared_product: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None


@dataclass(frozen=True)
class Coupling:
    """What ties the frames together.

    Attributes:
        bend: (N,) weights of the squared second differences.
        inside: (T - 2,) 1 where the three frames of a second difference belong together.
        mean: (N,) weights of the squared mean over the frames, times T.
        share: (T,) of each frame in that mean, sum 1.
    """

    bend: Tensor
    inside: Tensor
    mean: Tensor
    share: Tensor

    def product(self, x: Tensor) -> Tensor:
        """Half the Hessian of the coupling's cost times x (T, N)."""
        total = self.mean * len(x) * self.share[:, None] * (self.share @ x)
        if len(x) > 2:
            second = self.inside[:, None] * (x[2:] - 2 * x[1:-1] + x[:-2]) * self.bend
            total[2:] += second
            total[1:-1] -= 2 * second
            total[:-2] += second
        return total

    def diagonal(self, frames: int) -> Tensor:
        """Diagonal (T, N) of `product`."""
        amount = self.inside.new_zeros(frames)
        if frames > 2:
            amount[2:] += self.inside
            amount[1:-1] += 4 * self.inside
            amount[:-2] += self.inside
        return amount[:, None] * self.bend + frames * self.share[:, None] ** 2 * self.mean


def bounded_step(
    blocks: Blocks,
    coupling: Coupling,
    low: Tensor,
    high: Tensor,
    free: Tensor,
    iterations: int,
) -> tuple[Tensor, Tensor | None]:
    """Minimise the quadratic model within bounds.

    Args:
        blocks, coupling: the model; the cost of the coupling counts twice its `product`.
        low, high: (T, N) bounds of the step.
        free: (T, N) bool; the other unknowns stay.
        iterations: of conjugate gradients, per round of the active set.

    Returns:
        the step (T, N), and that of the shared unknowns.
    """
    frames = len(blocks.g)
    free = free & ~((low >= 0) & (blocks.g > 0)) & ~((high <= 0) & (blocks.g < 0))
    step = torch.zeros_like(blocks.g)
    shared = None if blocks.shared_g is None else torch.zeros_like(blocks.shared_g)
    diagonal = blocks.H.diagonal(dim1=1, dim2=2) + 2 * coupling.diagonal(frames)

    def product(x: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor | None]:
        y = multiply_blocks(blocks.H, x) + 2 * coupling.product(x)
        y = y + _DAMPING * diagonal * x
        if s is None or blocks.shared_product is None:
            return y, None
        add, z = blocks.shared_product(x, s)
        return y + add, z

    for _ in range(_ROUNDS):
        mask = free.to(blocks.g)
        added = 2 * coupling.diagonal(frames) + (_DAMPING + 1e-6) * diagonal
        factor = factor_blocks(blocks.H, mask, added * mask + (1 - mask))
        y, z = product(step, shared)
        residual = -(blocks.g + y) * mask
        shared_residual = None
        if shared is not None and z is not None and blocks.shared_g is not None:
            shared_residual = -(blocks.shared_g + z)

        def precondition(
            r: Tensor, q: Tensor | None, factor: Tensor = factor
        ) -> tuple[Tensor, Tensor | None]:
            first = solve_blocks(factor, r)
            second = q
            if q is not None and blocks.shared_preconditioner is not None:
                second = blocks.shared_preconditioner(q)
            return first, second

        change, shared_change = _conjugate_gradients(
            product, precondition, residual, shared_residual, mask, iterations
        )
        step = step + change
        if shared is not None and shared_change is not None:
            shared = shared + shared_change
        outside = (step < low) | (step > high)
        step = torch.minimum(torch.maximum(step, low), high)
        if not outside.any():
            break
        free = free & ~outside
    return step, shared


def _conjugate_gradients(
    product: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]],
    precondition: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]],
    r: Tensor,
    q: Tensor | None,
    mask: Tensor,
    iterations: int,
) -> tuple[Tensor, Tensor | None]:
    """Solve for the residual (r, q) by preconditioned conjugate gradients."""

    def dot(a: Tensor, b: Tensor, c: Tensor | None, d: Tensor | None) -> Tensor:
        total = (a * b).sum()
        return total if c is None or d is None else total + (c * d).sum()

    x, s = torch.zeros_like(r), None if q is None else torch.zeros_like(q)
    z, v = precondition(r, q)
    p, w = z, v
    rz = dot(r, z, q, v)
    first = float(rz)
    for _ in range(iterations):
        if not float(rz) > 1e-8 * first:
            break
        hp, hw = product(p, w)
        hp = hp * mask
        alpha = rz / dot(p, hp, w, hw).clamp_min(1e-30)
        x, r = x + alpha * p, r - alpha * hp
        if s is not None and q is not None and w is not None and hw is not None:
            s, q = s + alpha * w, q - alpha * hw
        z, v = precondition(r, q)
        before, rz = rz, dot(r, z, q, v)
        beta = rz / before
        p = z + beta * p
        if w is not None and v is not None:
            w = v + beta * w
    return x, s
