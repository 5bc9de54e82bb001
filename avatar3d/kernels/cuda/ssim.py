"""The L1 + SSIM loss on a GPU; cuda/gpu/ssim.cu."""

import torch
from torch import Tensor

from avatar3d.kernels.cuda import modules

__all__ = ["l1_ssim"]

_THREADS = 256
_TILE_COLUMNS, _TILE_ROWS = 48, 16  # floats and rows of a block


def l1_ssim(
    image: Tensor, target: Tensor, weight: Tensor | None, ssim_weight: float, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """As `avatar3d.kernels.ssim._l1_ssim`: the loss, its gradient at `image` or none."""
    image, target = image.detach().contiguous(), target.detach().contiguous()
    weight = None if weight is None else weight.detach().contiguous()
    height, width, _ = image.shape
    grid = (-(-3 * width // _TILE_COLUMNS), -(-height // _TILE_ROWS))
    l1_factor, ssim_factor = (1.0 - ssim_weight) / image.numel(), ssim_weight / image.numel()
    module = modules.load("ssim.cu", image.device)
    partial = image.new_empty(grid[1], grid[0])
    maps = image.new_empty(3, height, width, 3) if with_gradient else None
    module.launch(
        "ssim_forward", grid, _THREADS,
        image, target, weight, partial, maps, height, width, l1_factor, ssim_factor,
    )  # fmt: skip
    loss = partial.sum(dtype=torch.float64).float()
    if maps is None:
        return loss, image.new_empty(0)
    gradient = torch.empty_like(image)
    module.launch(
        "ssim_backward", grid, _THREADS,
        image, target, weight, maps, gradient, height, width, l1_factor,
    )  # fmt: skip
    return loss, gradient
