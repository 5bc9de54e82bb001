"""Slow, plain torch twins of the native kernels: their oracle (in float64) and the last fallback.

Shapes and meanings are those of `avatar3d.kernels`; arguments are not checked here.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from avatar3d.geometry import matrix_to_quaternion, quaternion_multiply

__all__ = [
    "bind",
    "decode_pixels",
    "encode_pixels",
    "factor_blocks",
    "guided_filter",
    "l1_ssim_loss",
    "multiply_blocks",
    "normal_equations",
    "outer_adamw",
    "project",
    "rasterize",
    "rasterize_mesh",
    "solve_blocks",
    "ssim_map",
]

EPS2D = 0.3
NEAR, FAR = 0.01, 1e10
MIN_ALPHA, MAX_ALPHA = 1.0 / 255.0, 0.999
MIN_TRANSMITTANCE = 1e-4
MAX_VARIANCE = 1e18


def rasterize(
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
    *,
    tile: int = 32,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Dense blending, tile by tile so that memory stays bounded: image, alpha, depth, radii.

    Args:
        probe: (B, N, 2) zeros; its gradient becomes sum over pixels of |gradient at the centre|.
        tile: side in pixels of the squares worked on at a time; does not change the result.
    """
    scene = (means, quats, scales, opacities, colors, viewmat, K, background)
    drawn = []
    for i in range(max(len(t) for t in scene)):
        one = tuple(t[i if len(t) > 1 else 0] for t in scene)
        own_probe = None if probe is None else probe[i]
        drawn.append(_rasterize_one(one, width, height, own_probe, tile))
    image, alpha, depth, radii = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    return image, alpha, depth if with_depth else means.new_empty(0), radii


def _rasterize_one(
    scene: tuple[Tensor, ...], width: int, height: int, probe: Tensor | None, tile: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    means, quats, scales, opacities, colors, viewmat, K, background = scene
    attributes = torch.cat([means, quats, scales, opacities[:, None], colors], dim=-1)
    camera = (viewmat, K, width, height)
    with torch.no_grad():
        finite = attributes.isfinite().all(-1) & (opacities >= MIN_ALPHA)
        index = finite.nonzero()[:, 0]
        _, covs, depths = project(means[index], quats[index], scales[index], *camera)
        wide = covs.diagonal(dim1=-2, dim2=-1).amax(-1)
        index = index[(depths > NEAR) & (depths < FAR) & (wide < MAX_VARIANCE)]
        order = (means[index] @ viewmat[2, :3] + viewmat[2, 3]).argsort(stable=True)
        index = index[order]
    centers, covs, depth = project(means[index], quats[index], scales[index], *camera)
    opacity, color = opacities[index], torch.cat([colors[index], depth[:, None]], dim=-1)
    with torch.no_grad():
        reach = 2 * torch.log(opacity / MIN_ALPHA)
        half = (reach[:, None] * covs.diagonal(dim1=-2, dim2=-1)).sqrt()
        size = means.new_tensor([width, height])
        drawn = ((centers + half > 0) & (centers - half < size)).all(-1)
        radii = means.new_zeros(len(means)).index_put((index,), half.amax(-1) * drawn)
    if background.ndim == 1:
        background = background.expand(height, width, 3)
    rows = []
    for y in range(0, height, tile):
        columns = []
        for x in range(0, width, tile):
            x1, y1 = min(x + tile, width), min(y + tile, height)
            low, high = means.new_tensor([x - 1, y - 1]), means.new_tensor([x1 + 1, y1 + 1])
            near = ((centers + half > low) & (centers - half < high)).all(-1) & drawn
            own = None if probe is None else probe[index[near]]
            columns.append(
                _blend(
                    centers[near], covs[near], opacity[near], color[near],
                    background[y:y1, x:x1], x, y, own,
                )
            )  # fmt: skip
        rows.append(torch.cat(columns, dim=1))
    pixels = torch.cat(rows, dim=0)
    return pixels[..., :3], pixels[..., 4], pixels[..., 3], radii


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """EWA projection: centres (N, 2) pixels, covariances with blur (N, 2, 2), depths (N,)."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rotation = torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        dim=-1,
    ).reshape(-1, 3, 3)  # fmt: skip
    axes = viewmat[:3, :3] @ (rotation * scales[:, None, :])
    points = means @ viewmat[:3, :3].T + viewmat[:3, 3]
    px, py, pz = points.unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    # The linearisation is taken no further than 15 % of the image outside of it.
    slack_x, slack_y = 0.15 * width / fx, 0.15 * height / fy
    tx = pz * (px / pz).clamp(-cx / fx - slack_x, (width - cx) / fx + slack_x)
    ty = pz * (py / pz).clamp(-cy / fy - slack_y, (height - cy) / fy + slack_y)
    zero = torch.zeros_like(pz)
    jacobian = torch.stack(
        [fx / pz, zero, -fx * tx / pz**2, zero, fy / pz, -fy * ty / pz**2], dim=-1
    ).reshape(-1, 2, 3)
    factor = jacobian @ axes
    covariance = factor @ factor.mT + EPS2D * torch.eye(2, dtype=means.dtype, device=means.device)
    centers = torch.stack([fx * px / pz + cx, fy * py / pz + cy], dim=-1)
    return centers, covariance, pz


def _blend(
    centers: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    colors: Tensor,
    background: Tensor,
    x0: int,
    y0: int,
    probe: Tensor | None,
) -> Tensor:
    """One tile, Gaussians front to back: (h, w, 5) colour, depth and alpha."""
    h, w = background.shape[:2]
    options: dict[str, Any] = {"dtype": centers.dtype, "device": centers.device}
    xs = torch.arange(w, **options) + (x0 + 0.5)
    ys = torch.arange(h, **options) + (y0 + 0.5)
    pixels = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1).reshape(-1, 2)
    if probe is None:
        offsets = pixels - centers[:, None]
    else:
        offsets = _OffsetsWithProbe.apply(pixels, centers, probe)
    sigma = 0.5 * (offsets * (offsets @ torch.linalg.inv(covariances))).sum(-1)
    alpha = (opacities[:, None] * torch.exp(-sigma)).clamp(max=MAX_ALPHA)
    with torch.no_grad():
        seen = alpha >= MIN_ALPHA
        after = torch.cumprod(1 - alpha * seen, dim=0)
        # exclusive stop: the Gaussian that would cross the limit is itself not drawn; the product
        # never rises again, so nor is any behind it
        seen &= after > MIN_TRANSMITTANCE
    alpha = alpha * seen
    # Not cumprod, whose derivative torch.compile refuses; nor will it take a sum over what may be a
    # single row, so there are two before the first Gaussian.
    light = torch.cat([alpha.new_zeros(2, h * w), torch.log1p(-alpha)])
    transmittance = torch.exp(torch.cumsum(light, dim=0))
    weights = alpha * transmittance[1:-1]
    left = transmittance[-1][:, None]
    values = weights.T @ colors
    image = values[:, :3] + left * background.reshape(-1, 3)
    return torch.cat([image, values[:, 3:], 1 - left], dim=-1).reshape(h, w, 5)


class _OffsetsWithProbe(torch.autograd.Function):
    """pixels - centers, (N, P, 2), whose backward also sums absolute gradients into a probe."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, centers: Tensor, probe: Tensor) -> Tensor:
        return pixels - centers[:, None]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor]:
        (grad,) = grads
        return None, -grad.sum(1), grad.abs().sum(1)


def ssim_map(image: Tensor, target: Tensor) -> Tensor:
    """(H, W, 3) structural similarity of the 11 x 11 windows, zero padded."""
    k = torch.arange(-5, 6, dtype=image.dtype, device=image.device)
    window = torch.exp(-(k**2) / (2 * 1.5**2))
    window = window / window.sum()
    kernel = (window[:, None] * window[None, :]).expand(3, 1, 11, 11)

    def blur(values: Tensor) -> Tensor:
        return F.conv2d(values.permute(2, 0, 1)[None], kernel, padding=5, groups=3)[0]

    mx, my = blur(image), blur(target)
    xx = blur(image * image) - mx * mx
    yy = blur(target * target) - my * my
    xy = blur(image * target) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mx * my + c1) * (2 * xy + c2) / ((mx * mx + my * my + c1) * (xx + yy + c2))
    return similarity.permute(1, 2, 0)


def l1_ssim_loss(
    image: Tensor, target: Tensor, weight: Tensor | None, ssim_weight: float
) -> Tensor:
    """mean of weight * ((1 - s) |image - target| + s (1 - SSIM)); see `avatar3d.kernels`."""
    target = target.detach()
    terms = (1 - ssim_weight) * (image - target).abs()
    terms = terms + ssim_weight * (1 - ssim_map(image, target))
    if weight is not None:
        terms = terms * weight.detach()[..., None]
    return terms.mean()


def bind(
    position: Tensor,
    quat: Tensor,
    log_scale: Tensor,
    opacity: Tensor,
    color: Tensor,
    basis: Tensor,
    weights: Tensor,
    units: Tensor,
    vertices: Tensor,
    corners: Tensor,
    bary: Tensor,
    torso_weight: Tensor,
    T_head: Tensor,
    T_torso: Tensor,
    probe: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """means, quats, scales, opacities, colors; see `avatar3d.kernels.bind_gaussians`."""
    if len(weights):
        blend = basis @ weights if probe is None else basis @ weights + probe
        delta = F.pad(blend * units, (0, 0, 0, len(position) - len(basis)))
        position, quat = position + delta[:, :3], quat + delta[:, 3:7]
        color = color + delta[:, 7:]
    n = len(corners)
    triangles = vertices[corners.long()]
    with torch.no_grad():
        u = F.normalize(triangles[:, 1] - triangles[:, 0], dim=-1)
        normal = torch.linalg.cross(u, triangles[:, 2] - triangles[:, 0])
        normal = F.normalize(normal, dim=-1)
        frames = torch.stack([u, torch.linalg.cross(normal, u), normal], dim=-1)
        by_torso = torso_weight[:, None] >= 0.5
        turn_head, turn_torso = (matrix_to_quaternion(T[:3, :3]) for T in (T_head, T_torso))
        carrier = torch.where(by_torso, turn_torso, turn_head)
    anchors = (triangles * bary[..., None]).sum(1)
    on_mesh = anchors + (frames @ position[:n, :, None])[..., 0]
    points = torch.cat([on_mesh, position[n:]])
    head = points @ T_head[:3, :3].T + T_head[:3, 3]
    torso = points @ T_torso[:3, :3].T + T_torso[:3, 3]
    means = head + torso_weight[:, None] * (torso - head)
    on_mesh_quat = quaternion_multiply(matrix_to_quaternion(frames), quat[:n])
    quats = quaternion_multiply(carrier, torch.cat([on_mesh_quat, quat[n:]]))
    return means, quats, log_scale.exp(), opacity.sigmoid(), color


def decode_pixels(image: Tensor, matte: Tensor | None, color: Tensor | None) -> Tensor:
    """(H, W, 3) floats; see `avatar3d.kernels.decode_pixels`."""
    values = image.float() / 255
    if matte is None or color is None:
        return values
    return torch.lerp(color.expand_as(values), values, matte.float()[..., None] / 255)


def encode_pixels(image: Tensor) -> Tensor:
    """uint8; see `avatar3d.kernels.encode_pixels`."""
    return (image.nan_to_num(0, 1, 0).clamp(0, 1) * 255).round().to(torch.uint8)


def outer_adamw(
    parameter: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    rows: Tensor,
    weights: Tensor,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """One step in place; see `avatar3d.kernels.outer_adamw_`."""
    with torch.no_grad():
        gradient = torch.einsum("f...,fk->...k", rows, weights)
        exp_avg.lerp_(gradient, 1 - beta1)
        exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        denominator = (exp_avg_sq / (1 - beta2**step)).sqrt() + eps
        parameter.mul_(1 - lr * weight_decay)
        parameter.addcdiv_(exp_avg, denominator, value=-lr / (1 - beta1**step))


def rasterize_mesh(
    points: np.ndarray, faces: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every triangle against every pixel of its bounding box, in float64."""
    face = np.full((height, width), -1, np.int32)
    bary = np.zeros((height, width, 3), np.float32)
    depth = np.full((height, width), np.inf, np.float32)
    for index, corners in enumerate(points[faces].astype(np.float64)):
        if not np.isfinite(corners).all() or (corners[:, 2] <= 0).any():
            continue
        a, b, c = corners[:, :2]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area == 0:
            continue
        low = np.clip(np.floor(corners[:, :2].min(0) - 0.5), 0, [width, height]).astype(int)
        high = np.clip(np.ceil(corners[:, :2].max(0) + 0.5), 0, [width, height]).astype(int)
        y, x = np.mgrid[low[1] : high[1], low[0] : high[0]] + 0.5
        if not x.size:
            continue
        dx, dy = x - a[0], y - a[1]
        second = (dx * (c[1] - a[1]) - dy * (c[0] - a[0])) / area
        third = (dy * (b[0] - a[0]) - dx * (b[1] - a[1])) / area
        weights = np.stack([1 - second - third, second, third], axis=-1)
        inside = (weights >= 0).all(-1)
        weights = weights / corners[:, 2]
        z = 1 / np.where(inside, weights.sum(-1), 1)
        box = np.s_[low[1] : high[1], low[0] : high[0]]
        nearer = inside & (z.astype(np.float32) < depth[box])
        face[box][nearer] = index
        bary[box][nearer] = (weights * z[..., None])[nearer]
        depth[box][nearer] = z[nearer]
    return face, bary, depth


def normal_equations(
    own: Tensor, view: Tensor, basis: Tensor, error: Tensor, strength: Tensor, pairs: Tensor
) -> tuple[Tensor, Tensor]:
    """J of every frame written out, then multiplied."""
    first, second = pairs.long().unbind(1)
    J = torch.cat([own, view @ basis], -1)
    J = torch.cat([J, J[:, first] - J[:, second]], 1)
    weighted = (strength[..., None, None] * J).flatten(1, 2)
    return weighted.mT @ J.flatten(1, 2), (weighted.mT @ error.flatten(1)[..., None])[..., 0]


def factor_blocks(H: Tensor, mask: Tensor, added: Tensor) -> Tensor:
    """Cholesky factors of mask H mask + diag(added), with the inverse of their diagonals."""
    upper = (H * mask[:, :, None] * mask[:, None]).triu()
    blocks = upper + upper.triu(1).mT + torch.diag_embed(added)
    factor, failed = torch.linalg.cholesky_ex(blocks, upper=True)
    if failed.any():
        raise np.linalg.LinAlgError("A block of the normal equations is not positive definite.")
    return _inverse_diagonal(factor)


def solve_blocks(upper: Tensor, b: Tensor) -> Tensor:
    """x with U^T U x = b."""
    factor = _inverse_diagonal(upper.triu())
    return torch.cholesky_solve(b[..., None], factor, upper=True)[..., 0]


def _inverse_diagonal(upper: Tensor) -> Tensor:
    result = upper.clone()
    result.diagonal(dim1=1, dim2=2).reciprocal_()
    return result


def multiply_blocks(H: Tensor, x: Tensor) -> Tensor:
    """Products of blocks, of which the upper triangle is read, and x."""
    return ((H.triu() + H.triu(1).mT) @ x[..., None])[..., 0]


def guided_filter(image: np.ndarray, mask: np.ndarray, radius: int, eps: float) -> np.ndarray:
    """Window by window of the half-sized picture, in float64."""
    height, width = mask.shape
    both = np.concatenate([image / 255, mask[..., None]], -1)
    both = np.pad(both, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    small = (both[::2, ::2] + both[1::2, ::2] + both[::2, 1::2] + both[1::2, 1::2]) / 4
    reach, rows, columns = max(1, radius // 2), small.shape[0], small.shape[1]

    def window(y: int, x: int) -> tuple[slice, slice]:
        return (
            slice(max(0, y - reach), y + reach + 1),
            slice(max(0, x - reach), x + reach + 1),
        )

    fits = np.empty((rows, columns, 4))
    for y, x in np.ndindex(rows, columns):
        seen = small[window(y, x)].reshape(-1, 4)
        covariance = np.cov(seen.T, bias=True)
        slope = np.linalg.solve(covariance[:3, :3] + eps * np.eye(3), covariance[:3, 3])
        fits[y, x] = *slope, seen[:, 3].mean() - slope @ seen[:, :3].mean(0)
    means = np.empty_like(fits)
    for y, x in np.ndindex(rows, columns):
        means[y, x] = fits[window(y, x)].mean((0, 1))
    large = torch.as_tensor(means).permute(2, 0, 1)[None]
    large = F.interpolate(large, scale_factor=2, mode="bilinear", align_corners=False)
    fit = large[0].permute(1, 2, 0).numpy()[:height, :width]
    return ((fit[..., :3] * image / 255).sum(-1) + fit[..., 3]).astype(np.float32)
