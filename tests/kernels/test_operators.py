"""torch's view of the operators: schemas, fake tensors, autograd, compilation in one graph."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from avatar3d.kernels import (
    HashGrid,
    Occupancy,
    OuterGradient,
    RasterStats,
    bind_gaussians,
    composite,
    conditioned_mlp,
    decode_pixels,
    detail_difference,
    encode_pixels,
    hash_encode,
    l1_ssim_loss,
    march,
    outer_adamw_,
    rasterize,
    rasterize_with_depth,
    sparse_adam_,
)


class Recorder(TorchDispatchMode):
    """Notes our operators and copies of what they are called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict]] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs = kwargs or {}
        if operator.namespace == "avatar3d":
            learned = not operator._schema.name.endswith("_backward")

            def copy(value: Any) -> Any:
                if not isinstance(value, Tensor):
                    return value
                # there are no second derivatives
                return value.detach().clone().requires_grad_(value.requires_grad and learned)

            self.calls.append((operator, *tree_map(copy, (args, kwargs))))
        return operator(*args, **kwargs)


@pytest.fixture(scope="module")
def recorded(make_scene, make_rig) -> list[tuple[Any, tuple, dict]]:
    """Calls of every operator, forward and backward, with and without what is optional."""
    with Recorder() as recorder:
        for stats in (None, RasterStats()):
            scene = make_scene(12, 20, 18).leaves(torch.float32)
            image, alpha, depth = rasterize_with_depth(*scene.arguments(), stats=stats)
            (image.sum() + alpha.square().sum() + depth.square().sum()).backward()
        scene = make_scene(12, 20, 18).leaves(torch.float32)
        arguments = list(scene.arguments())
        arguments[5] = torch.stack([scene.viewmat, scene.viewmat])  # two cameras
        rasterize(*arguments)[0].square().sum().backward()
        picture = torch.rand(20, 18, 3, requires_grad=True)
        l1_ssim_loss(picture, torch.rand(20, 18, 3), torch.rand(20, 18)).backward()
        l1_ssim_loss(picture.detach(), torch.rand(20, 18, 3))
        rig = make_rig(14, 9, 6, 3).leaves(torch.float32)
        sum(out.square().sum() for out in rig.bind()).backward()
        collected = OuterGradient()
        fixed = replace(rig.attributes, basis=rig.attributes.basis.detach())
        rig = replace(rig, attributes=replace(fixed, basis_gradient=collected))
        sum(out.square().sum() for out in rig.bind()).backward()
        basis = fixed.basis.clone()
        outer_adamw_(
            basis, torch.zeros_like(basis), torch.zeros_like(basis), *collected.factors(),
            step=1, lr=1e-3,
        )  # fmt: skip
        pixels = encode_pixels(torch.rand(6, 5, 3))
        everything = slice(None), slice(None)
        for weight in (None, torch.rand(20, 18) + 0.1):
            detail_difference(picture, picture.detach() + 0.1, everything, weight).backward()
        decode_pixels(pixels)
        decode_pixels(pixels, pixels[..., 0], torch.rand(3))
        _call_those_of_a_field()
    return recorder.calls


def _call_those_of_a_field() -> None:
    layout = HashGrid(levels=2, features=2, log2_size=8, base=4, finest=8)
    table = torch.rand(layout.entries, 2, requires_grad=True)
    points = torch.rand(6, 3, requires_grad=True)
    features = hash_encode(points, table, layout)
    weights = [torch.rand(16, 4, requires_grad=True), torch.rand(4, 16, requires_grad=True)]
    raw = conditioned_mlp(features, weights)
    samples = march(
        torch.tensor([[0.5, 0.5, 2.0]]), torch.tensor([[0.0, 0, -1]]),
        torch.zeros(1, dtype=torch.int32), None,
        Occupancy.full(torch.tensor([[0.0, 0, 0], [1, 1, 1]]), 8), 1 / 6,
    )  # fmt: skip
    assert len(samples) == 6
    composite(raw[:, 0].exp(), raw[:, 1:].sigmoid(), samples).color.sum().backward()
    gradient = torch.zeros_like(table)
    hash_encode(points.detach(), table, layout, gradient=gradient).sum().backward()
    moments = torch.zeros_like(table), torch.zeros_like(table)
    steps = torch.zeros(len(table), dtype=torch.int32)
    sparse_adam_(table.detach(), gradient, *moments, steps, lr=0.1)


def test_no_operator_is_forgotten(recorded):
    """Every operator of ours that has a CPU kernel is among the recorded calls."""
    ours = {
        schema.name
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("avatar3d::")
        and torch._C._dispatch_has_kernel_for_dispatch_key(schema.name, "CPU")
    }
    assert ours == {operator._schema.name for operator, _, _ in recorded}


def test_operators_obey_torch(recorded):
    """Schema (nothing is changed that is not declared), fake tensors, autograd, AOT dispatch."""
    for operator, args, kwargs in recorded:
        torch.library.opcheck(operator, args, kwargs)


def test_outputs_do_not_alias_inputs(recorded):
    """A kernel that handed back its input would corrupt graphs that write to the output."""
    for operator, args, kwargs in recorded:
        if operator._schema.is_mutable:
            continue
        given = {t.data_ptr() for t in flat_tensors((args, kwargs)) if t.numel()}
        results = flat_tensors(operator(*args, **kwargs))
        assert all(t.data_ptr() not in given for t in results if t.numel()), operator


def flat_tensors(values: Any) -> list[Tensor]:
    return [v for v in torch.utils._pytree.tree_leaves(values) if isinstance(v, Tensor)]


class TestCompiled:
    """The reference backend compiles as one graph, and compiled gives what it gives uncompiled."""

    @pytest.fixture(autouse=True)
    def _forget(self) -> None:
        torch._dynamo.reset()

    def agree(self, function: Callable[..., Any], *inputs: Tensor) -> None:
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        results = []
        for call in (function, compiled):
            leaves = [t.detach().clone().requires_grad_() for t in inputs]
            outputs = call(*leaves)
            loss = sum(out.square().sum() for out in outputs)
            results.append([*outputs, *torch.autograd.grad(loss, leaves, allow_unused=True)])
        for value, expected in zip(*results, strict=True):
            assert (value is None) == (expected is None)
            if value is not None:
                assert torch.allclose(value, expected, rtol=1e-5, atol=1e-6)

    def test_rasterize(self, make_scene):
        s = make_scene(12, 16, 12)

        def draw(*tensors: Tensor) -> tuple[Tensor, ...]:
            *gaussians, viewmat, background = tensors
            return rasterize_with_depth(
                *gaussians, viewmat, s.K, 16, 12, background, backend="reference"
            )

        inputs = (s.means, s.quats, s.scales, s.opacities, s.colors, s.viewmat, s.background)
        self.agree(draw, *inputs)

    def test_image_loss(self):
        target, weight = torch.rand(14, 13, 3), torch.rand(14, 13)
        self.agree(
            lambda image: (l1_ssim_loss(image, target, weight, backend="reference"),),
            torch.rand(14, 13, 3),
        )

    def test_binding(self, make_rig):
        rig = make_rig(14, 9, 6, 3)

        def bind(vertices: Tensor, head: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
            return bind_gaussians(
                rig.binding, rig.attributes, vertices, head, rig.torso, weights,
                backend="reference",
            )  # fmt: skip

        self.agree(bind, rig.vertices, rig.head, rig.weights)

    def test_optimizer(self):
        generator = torch.Generator().manual_seed(0)
        shapes = ((6, 10, 4), (6, 10, 4), (6, 10, 4), (2, 6, 10), (2, 4))
        start = [torch.rand(shape, generator=generator) for shape in shapes]

        def step(*tensors: Tensor) -> None:
            outer_adamw_(*tensors, step=3, lr=1e-3, backend="reference")

        expected, found = ([t.clone() for t in start] for _ in range(2))
        step(*expected)
        torch.compile(step, fullgraph=True, backend="aot_eager")(*found)
        assert all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))
