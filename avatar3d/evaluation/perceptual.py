"""LPIPS, where the package and its weights are installed; neither comes with avatar3d."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

__all__ = ["perceptual_distance"]

_WEIGHTS = "alexnet-owt-7be5be79.pth"  # as torchvision names them


def perceptual_distance() -> Callable[[np.ndarray, np.ndarray], float] | None:
    """LPIPS of two pictures (H, W, 3) in [0, 1]: 0 for equal ones (AlexNet, Zhang et al. 2018).

    None unless `pip install lpips` was run and torchvision has fetched AlexNet's weights before:
    an evaluation downloads nothing.
    """
    weights = Path(torch.hub.get_dir()) / "checkpoints" / _WEIGHTS
    if importlib.util.find_spec("lpips") is None or not weights.is_file():
        return None
    network = importlib.import_module("lpips").LPIPS(net="alex", verbose=False).eval()

    @torch.no_grad()
    def distance(image: np.ndarray, target: np.ndarray) -> float:
        first, second = (
            torch.from_numpy(np.asarray(picture, np.float32)).permute(2, 0, 1)[None] * 2 - 1
            for picture in (image, target)
        )
        return float(network(first, second))

    return distance
