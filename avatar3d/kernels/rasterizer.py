"""Gaussian splatting: project, sort, blend; differentiable. gsplat's conventions and names."""

from typing import Any

import torch
from torch import Tensor

from avatar3d.kernels import gsplat_backend, reference
from avatar3d.kernels._backend import (
    Backend,
    arrays,
    check_devices,
    check_tensor,
    native,
    use_native,
    warn_once,
)
from avatar3d.kernels.operators import operator

__all__ = ["RasterStats", "rasterize", "rasterize_with_depth"]


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
        self._means2d: Tensor | None = None  # gsplat's, which carries the sums as an attribute

    @property
    def radii(self) -> Tensor:
        """([B,] N) half the larger side of the box where alpha >= 1/255, pixels; 0: not drawn."""
        if self._radii is None:
            raise RuntimeError("RasterStats is empty: pass it to rasterize first.")
        return self._radii

    @property
    def mean2d_grad(self) -> Tensor:
        """([B,] N) length of sum over pixels of |d loss / d projected centre|, per pixel of motion.

        The absolute values (gsplat's `absgrad`) keep opposite pulls on one large Gaussian from
        cancelling, which is the sign that it should be split.
        """
        sums = self._probe.grad if self._probe is not None else None
        if self._means2d is not None:
            sums = getattr(self._means2d, "absgrad", None)
        if sums is None:
            raise RuntimeError("RasterStats has no gradient: call backward on the loss first.")
        return torch.linalg.vector_norm(sums, dim=-1).reshape(self.radii.shape)


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
    """Draw N Gaussians, of one scene or of B at once. Differentiable in all tensors but K.

    Classic EWA splatting by gsplat's rules: 2D covariance + 0.3 I; near plane 0.01;
    alpha = min(0.999, opacity exp(-sigma)), skipped under 1/255; front to back by camera depth
    (ties by index); a pixel stops before the Gaussian that would take its transmittance to 1e-4 or
    less. Gaussians with a non-finite value, an opacity under 1/255 or a standard deviation over
    1e9 pixels are not drawn and get zero gradients. A zero quaternion is the identity.

    Every tensor may have a leading dimension B of its own, several cameras or frames in one call;
    those without one are shared. Results then have it too. On the CPU the result is the same bits
    from run to run and for any number of threads. CUDA tensors are drawn by gsplat.

    Args:
        means: ([B,] N, 3) world, metres.
        quats: ([B,] N, 4) wxyz, any length.
        scales: ([B,] N, 3) standard deviations, metres.
        opacities: ([B,] N) in [0, 1].
        colors: ([B,] N, 3).
        viewmat: ([B,] 4, 4) world to camera (OpenCV axes).
        K: ([B,] 3, 3) pixels; the centre of the top-left pixel is (0.5, 0.5). Skew is ignored.
        background: (3,), (B, 3) or ([B,] height, width, 3); black if None.
        stats: filled for densification; its gradient arrives with backward.

    Returns:
        image ([B,] height, width, 3), background included, and alpha ([B,] height, width).

    Raises:
        ValueError: an argument has the wrong shape, dtype or device, or the background a value that
            is not finite.
    """
    scene = (means, quats, scales, opacities, colors, viewmat, K, width, height, background)
    image, alpha, _ = _draw(*scene, False, stats, backend)
    return image, alpha


def rasterize_with_depth(
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
) -> tuple[Tensor, Tensor, Tensor]:
    """`rasterize`, and camera z blended like a colour, differentiable too.

    Returns:
        image, alpha and depth ([B,] height, width): sum of weight * camera z, metres (gsplat's
        "D"); divide by alpha for the expected depth of what was hit.
    """
    scene = (means, quats, scales, opacities, colors, viewmat, K, width, height, background)
    return _draw(*scene, True, stats, backend)


def _draw(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    background: Tensor | None,
    with_depth: bool,
    stats: RasterStats | None,
    backend: Backend,
) -> tuple[Tensor, Tensor, Tensor]:
    method = _method(means, backend)
    if method == "copies":
        elsewhere: dict[str, Any] = {
            "means": means, "quats": quats, "scales": scales, "opacities": opacities,
            "colors": colors, "viewmat": viewmat, "K": K, "background": background,
        }  # fmt: skip
        moved = {name: t.cpu() if isinstance(t, Tensor) else t for name, t in elsewhere.items()}
        copied = _draw(
            **moved, width=width, height=height, with_depth=with_depth, stats=stats,
            backend="native",
        )  # fmt: skip
        image, alpha, depth = (t.to(means.device) for t in copied)
        return image, alpha, depth
    if background is None and isinstance(means, Tensor):
        background = torch.zeros(3, dtype=means.dtype, device=means.device)
    flat = isinstance(background, Tensor) and background.ndim < 3
    shapes = {**_SHAPES, "background": (3,) if flat else (height, width, 3)}
    given = dict(
        zip(
            shapes,
            (means, quats, scales, opacities, colors, viewmat, K, background),
            strict=True,
        )
    )
    images = _check(given, shapes, width, height, float32=method != "reference")
    # From here on every tensor has a leading dimension, the number of images or 1.
    scene: Any = [t if t.ndim > len(shapes[name]) else t[None] for name, t in given.items()]
    probe = means2d = None
    if method == "gsplat":
        draw: Any = gsplat_backend.rasterize
        drawn = draw(*scene, width, height, depth=with_depth, absgrad=stats is not None)
        image, alpha, radii, means2d = drawn.image, drawn.alpha, drawn.radii, drawn.means2d
        depth = alpha if drawn.depth is None else drawn.depth
    else:
        if stats is not None:
            probe = torch.zeros(
                images or 1, scene[0].shape[1], 2, dtype=means.dtype, device=means.device,
                requires_grad=torch.is_grad_enabled(),
            )  # fmt: skip
        draw = _rasterize if method == "native" else reference.rasterize
        image, alpha, depth, radii, *_ = draw(*scene, probe, width, height, with_depth)
    if images is None:
        # not [0], whose backward fills a whole batch of zeros
        image, alpha, radii = image.squeeze(0), alpha.squeeze(0), radii.squeeze(0)
        depth = depth.squeeze(0) if with_depth else depth
    if stats is not None:
        stats._radii, stats._probe, stats._means2d = radii.detach(), probe, means2d
    return image, alpha, depth


# What each argument is in one scene.
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "means": ("N", 3),
    "quats": ("N", 4),
    "scales": ("N", 3),
    "opacities": ("N",),
    "colors": ("N", 3),
    "viewmat": (4, 4),
    "K": (3, 3),
}


def _method(means: Tensor, backend: Backend) -> str:
    """One of "native", "gsplat", "copies" (CUDA tensors drawn by the CPU) and "reference"."""
    if backend == "reference" or not (isinstance(means, Tensor) and means.is_cuda):
        return "native" if use_native(backend) else "reference"
    reason = gsplat_backend.unusable()
    if not reason:
        return "gsplat"
    if backend == "native":
        raise RuntimeError(f"the CUDA rasteriser is not available: {reason}.")
    warn_once(
        f"gsplat is not available ({reason}), so CUDA tensors are drawn by the CPU, which costs "
        "the copies; `avatar3d doctor` says more."
    )
    return "copies" if use_native(backend) else "reference"


def _check(
    given: dict[str, Any],
    shapes: dict[str, tuple[int | str, ...]],
    width: int,
    height: int,
    *,
    float32: bool,
) -> int | None:
    """The number of images, None if no tensor has that dimension. Raises ValueError."""
    if not (1 <= width <= 65536 and 1 <= height <= 65536):
        raise ValueError(f"width x height is {width} x {height}, expected 1 to 65536 each.")
    known: dict[str, int | None] = {"B": None, "N": None}
    for name, tensor in given.items():
        one = shapes[name]
        batched = isinstance(tensor, Tensor) and tensor.ndim == len(one) + 1
        names = ("B", *one) if batched else one
        sizes = tuple(known[d] if isinstance(d, str) else d for d in names)
        form = f"([B,] {', '.join(map(str, one))})"
        if name == "background":
            form = f"(3,), (B, 3) or ([B,] {height}, {width}, 3)"
        facts = [f"{k} = {v}" for k, v in known.items() if v is not None and k in names]
        form += f" with {', '.join(facts)}" if facts else ""
        check_tensor(name, tensor, sizes, float32=float32, form=form)
        known.update({d: n for d, n in zip(names, tensor.shape, strict=True) if isinstance(d, str)})
    if known["B"] == 0:
        raise ValueError("the batch has no images, expected B of at least 1.")
    check_devices(**given)
    return known["B"]


@operator("rasterize")
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
    with_depth: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """image, alpha, depth (empty if not wanted), radii, and a token that stands for the native
    state that the backward reuses. Each tensor has a leading dimension: the images', or 1."""
    scene = [means, quats, scales, opacities, colors, viewmat, K, background]
    image, alpha, depth, radii = _outputs(scene, width, height, with_depth)
    token = _forward(scene, image, alpha, depth if with_depth else None, radii)
    return image, alpha, depth, radii, token


def _outputs(scene: list[Tensor], width: int, height: int, with_depth: bool) -> list[Tensor]:
    images, new = max(len(t) for t in scene), scene[0].new_empty
    return [
        new(images, height, width, 3),
        new(images, height, width),
        new(images, height, width) if with_depth else new(0),
        new(images, scene[0].shape[1]),
    ]


def _forward(
    scene: list[Tensor], image: Tensor, alpha: Tensor, depth: Tensor | None, radii: Tensor
) -> Tensor:
    native_scene = native().Scene(*arrays(scene), *_size(image))
    return native().rasterize(native_scene, *arrays([image, alpha, depth, radii]))


def _size(image: Tensor) -> tuple[int, int, int]:
    """images, width, height"""
    return image.shape[0], image.shape[2], image.shape[1]


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
    with_depth: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    scene = [means, quats, scales, opacities, colors, viewmat, K, background]
    image, alpha, depth, radii = _outputs(scene, width, height, with_depth)
    return image, alpha, depth, radii, means.new_empty(1, dtype=torch.uint8)


@operator("rasterize_backward")
def _rasterize_backward(
    v_image: Tensor,
    v_alpha: Tensor | None,
    v_depth: Tensor | None,
    scene: list[Tensor],
    image: Tensor,
    alpha: Tensor,
    depth: Tensor,
    token: Tensor,
    wanted: list[bool],
) -> list[Tensor]:
    """Gradients of means, quats, scales, opacities, colors; then of viewmat, background and the
    probe, each only if wanted and otherwise empty."""
    images, n = image.shape[0], scene[0].shape[1]
    grads = [t.new_empty(images, *t.shape[1:]) for t in scene[:5]]
    extra = [
        image.new_empty(images, *shape) if want else None
        for shape, want in zip(_extra_shapes(scene, n), wanted, strict=True)
    ]
    native_scene = native().Scene(*arrays(scene), *_size(image))
    given = arrays([v_image, v_alpha, v_depth, image, alpha, depth, *grads, *extra])
    if not native().rasterize_backward(native_scene, token.numpy(), *given):
        # The token is a copy (a saved-tensor hook, say), so its state is gone: make it anew.
        token = _forward(
            scene,
            torch.empty_like(image),
            torch.empty_like(alpha),
            torch.empty_like(depth) if v_depth is not None else None,
            image.new_empty(images, n),
        )
        native().rasterize_backward(native_scene, token.numpy(), *given)
    shared = [*scene[:5], scene[5], scene[7], None]
    return [
        image.new_empty(0) if g is None else _sum_if_shared(g, t)
        for g, t in zip(grads + extra, shared, strict=True)
    ]


def _extra_shapes(scene: list[Tensor], n: int) -> list[tuple[int, ...]]:
    return [(4, 4), tuple(scene[7].shape[1:]), (n, 2)]


def _sum_if_shared(grad: Tensor, tensor: Tensor | None) -> Tensor:
    """The gradient of what all images share is the sum of theirs."""
    if tensor is None or len(tensor) == len(grad):
        return grad
    return grad.sum(0, keepdim=True)


@_rasterize_backward.register_fake
def _(
    v_image: Tensor,
    v_alpha: Tensor | None,
    v_depth: Tensor | None,
    scene: list[Tensor],
    image: Tensor,
    alpha: Tensor,
    depth: Tensor,
    token: Tensor,
    wanted: list[bool],
) -> list[Tensor]:
    shapes = _extra_shapes(scene, scene[0].shape[1])
    leading = (len(scene[5]), len(scene[7]), image.shape[0])
    return [
        *(t.new_empty(t.shape) for t in scene[:5]),
        *(
            image.new_empty((count, *shape) if want else 0)
            for count, shape, want in zip(leading, shapes, wanted, strict=True)
        ),
    ]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    image, alpha, depth, radii, token = output
    ctx.save_for_backward(*inputs[:8], image, alpha, depth, token)
    ctx.mark_non_differentiable(radii, token)
    ctx.set_materialize_grads(False)
    ctx.with_depth = inputs[11]


def _backward(
    ctx: Any, v_image: Tensor | None, v_alpha: Tensor | None, v_depth: Tensor | None, *_: Any
) -> tuple[Tensor | None, ...]:
    need = ctx.needs_input_grad
    *scene, image, alpha, depth, token = ctx.saved_tensors
    if v_image is None:
        v_image = torch.zeros_like(image)
    if not ctx.with_depth:
        v_depth = None
    wanted = [need[5], need[7], need[8]]
    *grads, viewmat, background, probe = _rasterize_backward(
        v_image, v_alpha, v_depth, scene, image, alpha, depth, token, wanted
    )
    arrived = [*grads, viewmat, None, background, probe, None, None, None]
    return tuple(g if wants else None for g, wants in zip(arrived, need, strict=True))


_rasterize.register_autograd(_backward, setup_context=_setup_context)
