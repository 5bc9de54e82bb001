"""gsplat as the rasteriser of CUDA tensors, held to the rules of `avatar3d.kernels.rasterize`."""

import contextlib
import sys
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Rendering", "rasterize", "unusable"]

_NEAR, _FAR, _EPS2D = 0.01, 1e10, 0.3
_MAX_SCALE = 1e6  # metres; larger footprints overflow gsplat's pixel arithmetic


class Rendering(NamedTuple):
    """B images.

    Attributes:
        image: (B, height, width, 3), background included.
        alpha: (B, height, width).
        depth: (B, height, width) camera z weighted as the colours are, not divided by alpha; None
            if not asked for.
        radii: (B, N) half the larger side of the footprint's box, whole pixels; 0: not drawn.
        means2d: (B, N, 2) or (1, B, N, 2) pixels. With `absgrad`, backward adds an attribute of
            that name: the sum over pixels of the absolute gradient.
    """

    image: Tensor
    alpha: Tensor
    depth: Tensor | None
    radii: Tensor
    means2d: Tensor


@cache
def unusable() -> str:
    """Why gsplat cannot draw here, or "" if it can. Builds its kernels if they are not there yet,
    which takes minutes."""
    if find_spec("gsplat") is None:
        return "gsplat is not installed (pip install 'avatar3d[gpu]')"
    if not torch.cuda.is_available():
        return "torch sees no CUDA GPU"
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it reports on its build
            from gsplat.cuda._backend import _C
    except Exception as error:  # a failed build says so in many ways
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return f"gsplat's kernels cannot be built: {reason[0]}"
    if _C is None:
        return "gsplat found no CUDA toolkit to build its kernels with; install nvcc"
    return ""


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmat: Tensor,
    K: Tensor,
    background: Tensor,
    width: int,
    height: int,
    *,
    depth: bool = False,
    absgrad: bool = False,
) -> Rendering:
    """Draw B images. Differentiable in all tensors but K, through gsplat's own backward.

    Every tensor has the dimensions that `avatar3d.kernels.rasterize` says for one image, and before
    them B or 1. Gaussians with a non-finite value or a scale over 1e6 m are not drawn and get zero
    gradients.
    """
    from gsplat import rasterization

    gaussians = _sane(means, quats, scales, opacities, colors)
    images = max(len(t) for t in (*gaussians, viewmat, K, background))
    viewmats, Ks = viewmat.expand(images, 4, 4), K.expand(images, 3, 3)
    if all(len(t) == 1 for t in gaussians):  # seen by several cameras
        viewmats, Ks = viewmats[None], Ks[None]
    else:
        gaussians = tuple(t.expand(images, *t.shape[1:]) for t in gaussians)
        viewmats, Ks = viewmats[:, None], Ks[:, None]
    drawn, alpha, meta = rasterization(
        *gaussians,
        viewmats=viewmats,
        Ks=Ks,
        width=width,
        height=height,
        near_plane=_NEAR,
        far_plane=_FAR,
        eps2d=_EPS2D,
        packed=False,
        render_mode="RGB+D" if depth else "RGB",
        absgrad=absgrad,
        rasterize_mode="classic",
    )
    drawn, alpha = drawn.reshape(images, height, width, -1), alpha.reshape(images, height, width)
    if background.ndim == 2:
        background = background[:, None, None]
    return Rendering(
        drawn[..., :3] + (1 - alpha[..., None]) * background,
        alpha,
        drawn[..., 3] if depth else None,
        meta["radii"].amax(-1).to(means.dtype).reshape(images, -1),
        meta["means2d"],
    )


def _sane(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor
) -> tuple[Tensor, ...]:
    """The same Gaussians with those that must not be drawn replaced by invisible ones."""
    good = opacities.isfinite() & (scales.abs().amax(-1) < _MAX_SCALE)  # false for NaN
    for t in (means, quats, colors):
        good = good & t.isfinite().all(-1)
    row = good[..., None]
    identity = quats.new_tensor([1.0, 0.0, 0.0, 0.0])
    turned = row & (quats != 0).any(-1, keepdim=True)
    zero = means.new_zeros(())
    return (
        torch.where(row, means, zero),
        torch.where(turned, quats, identity),
        torch.where(row, scales, zero),
        torch.where(good, opacities, zero),
        torch.where(row, colors, zero),
    )
