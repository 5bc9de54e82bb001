"""LPIPS of two pictures, where it is installed; it does not come with avatar3d."""

from collections.abc import Callable

import numpy as np
import torch

from avatar3d.training.perceptual import perceptual_network

__all__ = ["perceptual_distance"]


def perceptual_distance() -> Callable[[np.ndarray, np.ndarray], float] | None:
    """LPIPS of two pictures (H, W, 3) in [0, 1]: 0 for equal ones; None without the network.

    See `perceptual_network` for where that comes from.
    """
    network = perceptual_network()
    if network is None:
        return None

    @torch.no_grad()
    def distance(image: np.ndarray, target: np.ndarray) -> float:
        first, second = (
            torch.from_numpy(np.asarray(picture, np.float32)).permute(2, 0, 1)[None] * 2 - 1
            for picture in (image, target)
        )
        return float(network(first, second))

    return distance
