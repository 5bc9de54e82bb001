"""From the densities and colours of samples to those of rays."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from avatar3d.kernels import radiance_reference as reference
from avatar3d.kernels._backend import (
    Backend,
    arrays,
    check_devices,
    check_tensor,
    native,
    use_native,
)
from avatar3d.kernels.cuda import rays as on_cuda
from avatar3d.kernels.operators import operator
from avatar3d.kernels.raymarch import Samples

__all__ = ["Composited", "composite"]


class Composited(NamedTuple):
    """R rays before a black background.

    Attributes:
        color: (R, 3); alpha: (R,); depth: (R,) sum of w t, so the mean distance times alpha.
        distortion: (R,) metres, how much the weights are spread out.
        extra: (R, C).
        weights: (N,) of the samples, not differentiable.
    """

    color: Tensor
    alpha: Tensor
    depth: Tensor
    distortion: Tensor
    extra: Tensor
    weights: Tensor


def composite(
    density: Tensor,
    color: Tensor,
    samples: Samples,
    extra: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> Composited:
    """Volume rendering. Differentiable in density, color and extra.

    With T_i = exp(-sum of density dt before i) and w_i = T_i (1 - exp(-density_i dt_i)), sums over
    a ray's samples of w times color, 1, t and extra, and the distortion of mip-NeRF 360,
    sum_ij w_i w_j |t_i - t_j| + 1/3 sum w_i^2 dt_i. Samples with T_i < 1e-4 do not count. Neither
    does, in value and gradient, one whose density is negative or NaN or whose color or extra is
    not finite; an infinite density is opaque.

    Args:
        density: (N,) per metre; color: (N, 3); extra: (N, C).

    Raises:
        ValueError: an argument has the wrong shape, dtype or device.

    Example:
        >>> one = torch.ones(2)
        >>> s = Samples(torch.zeros(2, 3), torch.tensor([1.0, 2.0]), one, torch.tensor(
        ...     [0, 2], dtype=torch.int32), torch.zeros(2, dtype=torch.int32), 1)
        >>> out = composite(torch.log(torch.tensor([2.0, 4.0])), torch.eye(3)[:2], s)
        >>> out.color
        tensor([[0.5000, 0.3750, 0.0000]])
        >>> out.alpha, out.depth
        (tensor([0.8750]), tensor([1.2500]))
    """
    n = len(samples)
    check_tensor("density", density, (n,), float32=False, form=f"(N,) = ({n},)")
    check_tensor("color", color, (n, 3), float32=False, form=f"({n}, 3)")
    if extra is None:
        extra = density.new_empty(n, 0)
    check_tensor("extra", extra, (n, None), float32=False, form=f"({n}, C)")
    check_devices(density=density, color=color, extra=extra, t=samples.t)
    tensors = (density, color, extra, samples.t, samples.dt, samples.offsets)
    fast = density.dtype == torch.float32
    if fast and use_native(backend, density):
        return Composited(*_composite(*tensors))
    out = Composited(*reference.composite(*tensors))
    return out._replace(weights=out.weights.detach())


@operator("composite")
def _composite(
    density: Tensor, color: Tensor, extra: Tensor, t: Tensor, dt: Tensor, offsets: Tensor
) -> list[Tensor]:
    rays, channels = len(offsets) - 1, extra.shape[1]
    sizes = ((rays, 3), (rays,), (rays,), (rays,), (rays, channels), (len(t),))
    out = [torch.empty(size) for size in sizes]
    native().composite(*arrays([density, color, extra, t, dt, offsets, *out]))
    return out


@_composite.register_fake
def _(
    density: Tensor, color: Tensor, extra: Tensor, t: Tensor, dt: Tensor, offsets: Tensor
) -> list[Tensor]:
    rays, channels = len(offsets) - 1, extra.shape[1]
    sizes = ((rays, 3), (rays,), (rays,), (rays,), (rays, channels), (len(t),))
    return [density.new_empty(size) for size in sizes]


@operator("composite_backward")
def _composite_backward(inputs: list[Tensor], v_outputs: list[Tensor]) -> list[Tensor]:
    """Gradients at density, color and extra."""
    grads = [torch.empty(v.shape) for v in inputs[:3]]
    native().composite_backward(*arrays([*inputs, *v_outputs, *grads]))
    return grads


@_composite_backward.register_fake
def _(inputs: list[Tensor], v_outputs: list[Tensor]) -> list[Tensor]:
    return [torch.empty_like(v) for v in inputs[:3]]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, v_outputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    *wanted, _ = v_outputs  # the weights are constants
    return (*_composite_backward(list(ctx.saved_tensors), wanted), None, None, None)


_composite.register_kernel("cuda", on_cuda.composite)
_composite_backward.register_kernel("cuda", on_cuda.composite_backward)
_composite.register_autograd(_backward, setup_context=_setup_context)
