"""Gaussian splatting: project, sort, blend; differentiable. gsplat's conventions and names."""

from typing import Any

import torch
from torch import Tensor

from avatar3d.kernels import reference
from avatar3d.kernels._backend import Backend, check_tensor, native, use_native

__all__ = ["RasterStats", "rasterize"]


class RasterStats:
    """What densification wants to know about each Gaussian. Pass one to `rasterize`, then backward.

    Example:
        >>> stats = RasterStats()
        >>> image, alpha = rasterize(*scene, stats=stats)  # doctest: +SKIP
        >>> image.mean().backward()  # doctest: +SKIP
        >>> stats.radii, stats.mean2d_grad  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._radii: Tensor | None = None
        self._probe: Tensor | None = None

    @property
    def radii(self) -> Tensor:
        """(N,) half the larger side of the box where alpha >= 1/255, pixels; 0: not drawn."""
        if self._radii is None:
            raise RuntimeError("RasterStats is empty: pass it to rasterize first.")
        return self._radii

    @property
    def mean2d_grad(self) -> Tensor:
        """(N,) length of sum over pixels of |d loss / d projected centre|, per pixel of motion.

        The absolute values (gsplat's `absgrad`) keep opposite pulls on one large Gaussian from
        cancelling, which is the sign that it should be split.
        """
        if self._probe is None or self._probe.grad is None:
            raise RuntimeError("RasterStats has no gradient: call backward on the loss first.")
        return torch.linalg.vector_norm(self._probe.grad, dim=-1)


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    background: Tensor | None = None,
    *,
    stats: RasterStats | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Draw N Gaussians. Differentiable in all tensors but K.

    Classic EWA splatting by gsplat's rules: 2D covariance + 0.3 I; near plane 0.01;
    alpha = min(0.999, opacity exp(-sigma)), skipped under 1/255; front to back by camera depth
    (ties by index); a pixel stops before the Gaussian that would take its transmittance to 1e-4 or
    less. Gaussians with a non-finite value, an opacity under 1/255 or a standard deviation over
    1e9 pixels are not drawn and get zero gradients. A zero quaternion is the identity.

    Args:
        means: (N, 3) world, metres.
        quats: (N, 4) wxyz, any length.
        scales: (N, 3) standard deviations, metres.
        opacities: (N,) in [0, 1].
        colors: (N, 3).
        viewmat: (4, 4) world to camera (OpenCV axes).
        K: (3, 3) pixels; the centre of the top-left pixel is (0.5, 0.5). Skew is ignored.
        background: (3,) or (height, width, 3); black if None.
        stats: filled for densification; its gradient arrives with backward.

    Returns:
        image (height, width, 3), background included, and alpha (height, width).

    Raises:
        ValueError: an argument has the wrong shape, dtype or device.
    """
    fast = use_native(backend)
    n = means.shape[0] if isinstance(means, Tensor) and means.ndim else 0
    if background is None:
        background = torch.zeros(3, dtype=means.dtype, device=means.device)
    _check(means, quats, scales, opacities, colors, viewmat, K, width, height, background, fast)
    probe = None
    if stats is not None:
        probe = stats._probe = torch.zeros(
            n, 2, dtype=means.dtype, device=means.device, requires_grad=torch.is_grad_enabled()
        )
    arguments = (means, quats, scales, opacities, colors, viewmat, K, background)
    if fast:
        image, alpha, radii, _ = _rasterize(*arguments, probe, width, height)
    else:
        image, alpha, radii = reference.rasterize(*arguments, width, height, probe=probe)
    if stats is not None:
        stats._radii = radii.detach()
    return image, alpha


def _check(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    background: Tensor,
    fast: bool,
) -> None:
    check_tensor("means", means, (None, 3), float32=fast, form="(N, 3)")
    n = means.shape[0]
    check_tensor("quats", quats, (n, 4), float32=fast, form=f"(N, 4) with N = {n}")
    check_tensor("scales", scales, (n, 3), float32=fast, form=f"(N, 3) with N = {n}")
    check_tensor("opacities", opacities, (n,), float32=fast, form=f"(N,) with N = {n}")
    check_tensor("colors", colors, (n, 3), float32=fast, form=f"(N, 3) with N = {n}")
    check_tensor("viewmat", viewmat, (4, 4), float32=fast, form="(4, 4)")
    check_tensor("K", K, (3, 3), float32=fast, form="(3, 3)")
    if not (1 <= width <= 65536 and 1 <= height <= 65536):
        raise ValueError(f"width x height is {width} x {height}, expected 1 to 65536 each.")
    shape: tuple[int, ...] = (3,)
    if isinstance(background, Tensor) and background.ndim == 3:
        shape = (height, width, 3)
    form = f"(3,) or (height, width, 3) = ({height}, {width}, 3)"
    check_tensor("background", background, shape, float32=fast, form=form)


@torch.library.custom_op("avatar3d::rasterize", mutates_args=(), device_types="cpu")
def _rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmat: Tensor,
    K: Tensor,
    background: Tensor,
    probe: Tensor | None,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """image, alpha, radii and a token that stands for the native state the backward reuses."""
    tensors = (means, quats, scales, opacities, colors, viewmat, K, background)
    scene = native().Scene(*(t.detach().contiguous() for t in tensors), width, height)
    image = torch.empty(height, width, 3)
    alpha = torch.empty(height, width)
    radii = torch.empty(means.shape[0])
    token = native().rasterize(scene, image, alpha, radii)
    return image, alpha, radii, token


@_rasterize.register_fake
def _(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmat: Tensor,
    K: Tensor,
    background: Tensor,
    probe: Tensor | None,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        means.new_empty(height, width, 3),
        means.new_empty(height, width),
        means.new_empty(means.shape[0]),
        means.new_empty(1, dtype=torch.uint8),
    )


@torch.library.custom_op("avatar3d::rasterize_backward", mutates_args=(), device_types="cpu")
def _rasterize_backward(
    v_image: Tensor,
    v_alpha: Tensor | None,
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmat: Tensor,
    K: Tensor,
    background: Tensor,
    image: Tensor,
    alpha: Tensor,
    token: Tensor,
    width: int,
    height: int,
    wanted: list[bool],
) -> list[Tensor]:
    """Gradients of means, quats, scales, opacities, colors; then of viewmat, background and the
    probe, each only if wanted and otherwise empty."""
    tensors = [
        t.detach().contiguous()
        for t in (means, quats, scales, opacities, colors, viewmat, K, background)
    ]
    scene = native().Scene(*tensors, width, height)
    grads = [torch.empty_like(t) for t in tensors[:5]]
    extra = [
        torch.empty_like(tensors[5]) if wanted[0] else None,
        torch.empty_like(tensors[7]) if wanted[1] else None,
        torch.empty(means.shape[0], 2) if wanted[2] else None,
    ]
    v_image = v_image.contiguous()
    v_alpha = None if v_alpha is None else v_alpha.contiguous()
    if not native().rasterize_backward(
        scene, token, v_image, v_alpha, image, alpha, *grads, *extra
    ):
        # The token is a copy (a saved-tensor hook, say), so its state is gone: make it anew.
        token = native().rasterize(
            scene, torch.empty_like(image), torch.empty_like(alpha), torch.empty(means.shape[0])
        )
        native().rasterize_backward(scene, token, v_image, v_alpha, image, alpha, *grads, *extra)
    return grads + [torch.empty(0) if g is None else g for g in extra]


@_rasterize_backward.register_fake
def _(
    v_image: Tensor,
    v_alpha: Tensor | None,
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmat: Tensor,
    K: Tensor,
    background: Tensor,
    image: Tensor,
    alpha: Tensor,
    token: Tensor,
    width: int,
    height: int,
    wanted: list[bool],
) -> list[Tensor]:
    empty = means.new_empty(0)
    return [
        *(torch.empty(t.shape) for t in (means, quats, scales, opacities, colors)),
        torch.empty(viewmat.shape) if wanted[0] else empty,
        torch.empty(background.shape) if wanted[1] else empty,
        torch.empty(means.shape[0], 2) if wanted[2] else empty,
    ]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    image, alpha, radii, token = output
    ctx.save_for_backward(*inputs[:8], image, alpha, token)
    ctx.mark_non_differentiable(radii, token)
    ctx.set_materialize_grads(False)
    ctx.size = inputs[9:11]


def _backward(
    ctx: Any, v_image: Tensor | None, v_alpha: Tensor | None, *_: Any
) -> tuple[Tensor | None, ...]:
    need = ctx.needs_input_grad
    saved = ctx.saved_tensors
    if v_image is None:
        v_image = torch.zeros_like(saved[8])
    grads = _rasterize_backward(v_image, v_alpha, *saved, *ctx.size, [need[5], need[7], need[8]])
    result = [g if wanted else None for g, wanted in zip(grads[:5], need[:5], strict=True)]
    viewmat, background, probe = (
        g if wanted else None
        for g, wanted in zip(grads[5:], (need[5], need[7], need[8]), strict=True)
    )
    return (*result, viewmat, None, background, probe, None, None)


_rasterize.register_autograd(_backward, setup_context=_setup_context)
