"""From the densities and colours of samples to those of rays."""

from typing import NamedTuple

from torch import Tensor

from avatar3d.kernels import radiance_reference as reference
from avatar3d.kernels._backend import Backend, check_devices, check_tensor
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
    out = Composited(
        *reference.composite(density, color, extra, samples.t, samples.dt, samples.offsets)
    )
    return out._replace(weights=out.weights.detach())
