"""The perceptual term: LPIPS in its own terms where it is installed, one sentence where not."""

import pytest
import torch

from avatar3d.errors import UserError
from avatar3d.training.perceptual import Perceptual

REGION = slice(2, 34), slice(4, 44)


class Network(torch.nn.Module):
    """Stands for LPIPS: the mean square difference of NCHW pictures in [-1, 1]."""

    def __init__(self, net: str, verbose: bool) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        assert first.shape == second.shape == (1, 3, 32, 40)
        return self.gain * (first - second).square().mean().view(1, 1, 1, 1)


@pytest.fixture
def package(lpips_package):
    return lpips_package(Network)


def test_without_weights_it_says_what_to_do(package):
    with pytest.raises(UserError, match=r"pip install lpips.*alexnet.*perceptual_weight at 0"):
        Perceptual()


def test_only_the_picture_learns_and_only_inside_the_region(package):
    package.mkdir(parents=True)
    (package / "alexnet-owt-7be5be79.pth").write_bytes(b"")
    perceptual = Perceptual()
    image = torch.rand(40, 48, 3, requires_grad=True)
    target = torch.rand(40, 48, 3)
    distance = perceptual(image, target, REGION)
    distance.backward()
    # Pictures go over in [-1, 1], where differences are twice as large.
    apart = (image - target).detach()
    expected = torch.zeros_like(apart)
    expected[REGION] = 8 * apart[REGION] / apart[REGION].numel()
    assert torch.allclose(distance, 4 * apart[REGION].square().mean())
    assert torch.allclose(image.grad, expected, atol=1e-8)
    assert perceptual._network.gain.grad is None
