"""LPIPS is asked in its own terms, and left out rather than downloaded."""

import numpy as np
import pytest
import torch

from avatar3d.evaluation.perceptual import perceptual_distance


class Network(torch.nn.Module):
    """Stands for LPIPS: half the mean difference of NCHW pictures in [-1, 1]."""

    def __init__(self, net: str, verbose: bool) -> None:
        super().__init__()
        assert net == "alex"

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        assert first.shape[:2] == second.shape[:2] == (1, 3)
        assert torch.stack([first, second]).abs().max() <= 1
        return (first - second).abs().mean().view(1, 1, 1, 1) / 2


@pytest.fixture
def package(lpips_package):
    return lpips_package(Network)


def test_without_weights_there_is_no_lpips(package):
    assert perceptual_distance() is None


def test_pictures_are_handed_over_in_the_range_of_the_network(package):
    package.mkdir(parents=True)
    (package / "alexnet-owt-7be5be79.pth").write_bytes(b"")
    distance = perceptual_distance()
    black, white = np.zeros((64, 80, 3)), np.ones((64, 80, 3))
    assert distance(white, white) == 0
    assert distance(black, white) == pytest.approx(1)
    assert distance(black, 0.25 * white) == pytest.approx(0.25)
