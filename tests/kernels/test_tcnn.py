"""Our calls of tiny-cuda-nn, against a stand-in of its documented Python interface.

tiny-cuda-nn's DOCUMENTATION.md and bindings/torch: `Encoding(n_input_dims, encoding_config)` and
`Network(n_input_dims, n_output_dims, network_config)` are modules with one flat tensor `params`;
outputs are half precision; matrices are row-major, their sides padded to multiples of 16.
"""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from avatar3d.kernels import HashGrid, conditioned_mlp, hash_encode, implementation, tcnn

GRID = HashGrid(levels=4, features=2, log2_size=10, base=4, finest=40)


class Encoding(nn.Module):
    def __init__(self, n_input_dims: int, encoding_config: dict) -> None:
        super().__init__()
        assert n_input_dims == 3
        assert encoding_config["otype"] == "HashGrid"
        levels = encoding_config["n_levels"]
        growth = encoding_config["per_level_scale"]
        base = encoding_config["base_resolution"]
        self.grid = HashGrid(
            levels, encoding_config["n_features_per_level"], encoding_config["log2_hashmap_size"],
            base, round(base * growth ** (levels - 1)),
        )  # fmt: skip
        self.params = nn.Parameter(torch.zeros(self.grid.entries * self.grid.features))

    def forward(self, x: Tensor) -> Tensor:
        table = self.params.view(self.grid.entries, self.grid.features)
        return hash_encode(x, table, self.grid, implementation="torch").half()


class Network(nn.Module):
    def __init__(self, n_input_dims: int, n_output_dims: int, network_config: dict) -> None:
        super().__init__()
        assert network_config["otype"] == "FullyFusedMLP"
        assert (network_config["activation"], network_config["output_activation"]) == (
            "ReLU",
            "None",
        )
        width = network_config["n_neurons"]
        assert width in (16, 32, 64, 128)
        self.inputs, self.outputs = n_input_dims, n_output_dims
        padded = [-(-size // 16) * 16 for size in (n_input_dims, n_output_dims)]
        hidden = [width] * network_config["n_hidden_layers"]
        self.sizes = [padded[0], *hidden, padded[1]]
        shapes = zip(self.sizes[1:], self.sizes[:-1], strict=True)
        self.shapes = list(shapes)
        self.params = nn.Parameter(torch.zeros(sum(a * b for a, b in self.shapes)))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.inputs
        x = nn.functional.pad(x, (0, self.sizes[0] - self.inputs), value=1.0)  # as it pads
        used = 0
        for i, (rows, columns) in enumerate(self.shapes):
            weight = self.params[used : used + rows * columns].view(rows, columns)
            used += rows * columns
            x = x @ weight.t()
            x = x.relu() if i < len(self.shapes) - 1 else x
        return x[:, : self.outputs].half()


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    module = ModuleType("tinycudann")
    module.Encoding, module.Network = Encoding, Network
    monkeypatch.setitem(sys.modules, "tinycudann", module)
    monkeypatch.setattr(implementation, "_has_tcnn", lambda: True)
    tcnn._module.cache_clear()
    yield
    tcnn._module.cache_clear()


def test_the_hash_grid_and_its_gradients_are_ours(relative_error):
    g = torch.Generator().manual_seed(0)
    points, table = torch.rand(50, 3, generator=g), torch.randn(GRID.entries, 2, generator=g)
    results = []
    for how in ("tcnn", "native"):
        leaf, moved = table.clone().requires_grad_(), points.clone().requires_grad_()
        features = hash_encode(moved, leaf, GRID, implementation=how)
        features.sum().backward()
        assert features.dtype == torch.float32
        collected = torch.zeros_like(table)
        again = hash_encode(points, table, GRID, gradient=collected, implementation=how)
        again.sum().backward()
        results.append((features.detach(), leaf.grad, moved.grad, collected))
    for found, expected in zip(*results, strict=True):
        assert relative_error(found, expected) < 2e-3  # half precision


@pytest.mark.parametrize("groups", [0, 3])
def test_the_mlp_and_its_gradients_are_ours(groups, relative_error):
    g = torch.Generator().manual_seed(0)
    weights = [torch.randn(*s, generator=g) / s[1] ** 0.5 for s in ((32, 20), (32, 32), (4, 32))]
    biases = [torch.randn(32, generator=g), None, torch.randn(4, generator=g)]
    x = torch.randn(60, 20, generator=g)
    gates = torch.rand(60, groups, generator=g) if groups else None
    vectors = torch.randn(5, groups, 32, generator=g) if groups else None
    rows = torch.randint(5, (60,), generator=g).int() if groups else None
    results = []
    for how in ("tcnn", "native"):
        every = [x, *weights, biases[0], biases[2], gates, vectors]
        leaves = [t.clone().requires_grad_() for t in every if t is not None]
        a, w0, w1, w2, b0, b2, *rest = leaves
        out = conditioned_mlp(
            a, [w0, w1, w2], [b0, None, b2], *(rest or [None, None]), rows, implementation=how
        )
        out.square().sum().backward()
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for found, expected in zip(*results, strict=True):
        assert relative_error(found, expected) < 3e-3  # half precision


def test_a_table_of_another_size_is_refused(monkeypatch):
    monkeypatch.setattr(Encoding, "forward", None)  # never called
    module = tcnn._module("Encoding", (3,), (
        ("otype", "HashGrid"), ("n_levels", 4), ("n_features_per_level", 2),
        ("log2_hashmap_size", 10), ("base_resolution", 4), ("per_level_scale", GRID.growth),
        ("interpolation", "Linear"),
    ), "cpu")  # fmt: skip
    module.params = nn.Parameter(torch.zeros(8))
    with pytest.raises(RuntimeError, match="tiny-cuda-nn's table has 8 numbers"):
        hash_encode(torch.rand(2, 3), GRID.initial_table(), GRID, implementation="tcnn")


def test_what_it_cannot_do_is_said_or_done_by_our_kernels(monkeypatch):
    odd = HashGrid(levels=1, features=3, log2_size=9, base=8, finest=8)
    points = torch.rand(2, 3)
    with pytest.raises(ValueError, match="its hash grids have 1, 2, 4 or 8 features, not 3"):
        hash_encode(points, odd.initial_table(), odd, implementation="tcnn")
    weights = [torch.ones(16, 3), torch.ones(16, 16), torch.ones(2, 16)]
    biases = [torch.ones(16), torch.ones(16), torch.ones(2)]
    with pytest.raises(ValueError, match="hidden layers after the first have no bias"):
        conditioned_mlp(points, weights, biases, implementation="tcnn")
    with pytest.raises(ValueError, match="16, 32, 64 or 128 neurons"):
        conditioned_mlp(points, [torch.ones(48, 3), torch.ones(2, 48)], implementation="tcnn")
    choose = implementation.choose_implementation
    assert choose("auto", points) == "native"  # of the CPU
    monkeypatch.setattr(implementation, "_has_tcnn", lambda: False)
    with pytest.raises(RuntimeError, match="tiny-cuda-nn is not installed"):
        hash_encode(points, GRID.initial_table(), GRID, implementation="tcnn")
