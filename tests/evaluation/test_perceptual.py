"""LPIPS is asked in its own terms, and left out rather than downloaded."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

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


@pytest.fixture
def random_backbone(monkeypatch, tmp_path):
    """AlexNet's layers with random weights, in place of torchvision's and of its file."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for taken, given in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(taken, given, 3, padding=1), nn.ReLU()]
    features = nn.Sequential(*layers, nn.MaxPool2d(3, 2))
    module = ModuleType("torchvision")
    module.__dict__["models"] = SimpleNamespace(
        alexnet=lambda **_: SimpleNamespace(features=features)
    )
    monkeypatch.setitem(sys.modules, "torchvision", module)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    weights.parent.mkdir(parents=True)
    weights.touch()
    yield features
    for name in [name for name in sys.modules if name.split(".")[0] == "lpips"]:
        del sys.modules[name]  # it holds that torchvision


def test_lpips_equals_that_of_torchmetrics(monkeypatch, request):
    """On a random AlexNet, each with its own copy of the published linear weights."""
    theirs = pytest.importorskip("torchmetrics.functional.image.lpips")
    features = request.getfixturevalue("random_backbone")
    pytest.importorskip("lpips")
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_, **__: features)
    network = theirs._LPIPS(pretrained=True, net="alex", pnet_rand=True).eval()
    distance = perceptual_distance()
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 1, (96, 80, 3)).astype(np.float32)
    for second in (first, first[::-1].copy(), 0.5 * first, np.roll(first, 1, 1)):
        a, b = (torch.from_numpy(x).permute(2, 0, 1)[None] for x in (first, second))
        expected = float(network(a, b, normalize=True))
        assert distance(first, second) == pytest.approx(expected, rel=1e-4, abs=1e-7)
        assert (expected > 1e-3) == (second is not first)
