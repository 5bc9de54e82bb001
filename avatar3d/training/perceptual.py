"""LPIPS as a term of training, where the package and its weights are installed."""

import importlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from avatar3d.errors import UserError

__all__ = ["Perceptual", "perceptual_network", "weights_path"]

_WEIGHTS = "alexnet-owt-7be5be79.pth"  # as torchvision names them


def perceptual_network() -> nn.Module | None:
    """LPIPS on AlexNet (Zhang et al. 2018), of NCHW pictures in [-1, 1]; frozen.

    None unless `pip install lpips` was run and torchvision has fetched AlexNet's weights before:
    neither training nor evaluation downloads anything.
    """
    if importlib.util.find_spec("lpips") is None or not weights_path().is_file():
        return None
    network: nn.Module = importlib.import_module("lpips").LPIPS(net="alex", verbose=False)
    return network.eval().requires_grad_(False)


class Perceptual:
    """Perceptual distance of two pictures (H, W, 3) in [0, 1], inside a region. Scalar.

    Raises:
        UserError: LPIPS or the weights of its network are not installed.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        network = perceptual_network()
        if network is None:
            raise UserError(
                "perceptual_weight needs LPIPS, which is not installed: run `pip install lpips` "
                f"and put AlexNet's weights at {weights_path()}, or leave perceptual_weight at 0."
            )
        self._network = network.to(device)

    def __call__(self, image: Tensor, target: Tensor, region: tuple[slice, slice]) -> Tensor:
        first, second = (
            picture[region].permute(2, 0, 1)[None] * 2 - 1 for picture in (image, target)
        )
        distance: Tensor = self._network(first, second)
        return distance.mean()


def weights_path() -> Path:
    """Where torchvision keeps AlexNet's weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / _WEIGHTS
