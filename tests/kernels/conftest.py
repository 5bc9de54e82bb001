"""Scenes, builds and tolerances shared by the kernel tests."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from avatar3d import kernels


@dataclass
class Scene:
    """Random Gaussians before a slightly turned camera."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmat: Tensor
    K: Tensor
    background: Tensor
    width: int
    height: int

    NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmat", "background")

    def arguments(self) -> tuple:
        return (
            self.means, self.quats, self.scales, self.opacities, self.colors,
            self.viewmat, self.K, self.width, self.height, self.background,
        )  # fmt: skip

    def leaves(self, dtype: torch.dtype) -> "Scene":
        """A copy of another dtype whose differentiable tensors ask for gradients."""
        tensors = {
            name: getattr(self, name).detach().to(dtype).clone().requires_grad_()
            for name in self.NAMES
        }
        return replace(self, K=self.K.to(dtype), **tensors)

    def gradients(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).grad for name in self.NAMES}


def _make_scene(
    count: int, width: int, height: int, seed: int = 0, *, image_background: bool = False
) -> Scene:
    g = torch.Generator().manual_seed(seed)
    z = 2 + 2 * torch.rand(count, generator=g)
    xy = 1.2 * (torch.rand(count, 2, generator=g) - 0.5) * z[:, None]
    turn = torch.tensor(0.1)
    viewmat = torch.eye(4)
    viewmat[0, 0] = viewmat[2, 2] = turn.cos()
    viewmat[0, 2], viewmat[2, 0] = turn.sin(), -turn.sin()
    viewmat[:3, 3] = torch.tensor([0.05, -0.03, 0.1])
    focal = float(max(width, height))
    shape = (height, width, 3) if image_background else (3,)
    return Scene(
        means=torch.cat([xy, z[:, None]], dim=-1),
        quats=torch.randn(count, 4, generator=g),
        scales=torch.exp(2 * torch.rand(count, 3, generator=g) - 3.5),
        opacities=torch.rand(count, generator=g),
        colors=torch.rand(count, 3, generator=g),
        viewmat=viewmat,
        K=torch.tensor([[focal, 0, 0.48 * width], [0, 1.1 * focal, 0.53 * height], [0, 0, 1]]),
        background=torch.rand(shape, generator=g),
        width=width,
        height=height,
    )


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """The oracles work on small tensors, where torch's second thread only gets in the way."""
    kernels.get_num_threads()  # the kernels take their own number from torch when first used
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=kernels.backend_info()["simd_available"])
def simd(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set that this processor can run."""
    from avatar3d.kernels._backend import native

    before = native().simd()
    native().set_simd(request.param)
    yield request.param
    native().set_simd(before)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = kernels.get_num_threads()
    kernels.set_num_threads(request.param)
    yield request.param
    kernels.set_num_threads(before)


@pytest.fixture(scope="session")
def make_scene() -> Callable[..., Scene]:
    """`make_scene(count, width, height, seed=0, image_background=False)`."""
    return _make_scene


@pytest.fixture(scope="session")
def relative_error() -> Callable[[Tensor, Tensor], float]:
    """L2 norm of the difference over that of the truth."""

    def measure(value: Tensor, truth: Tensor) -> float:
        difference = torch.linalg.vector_norm(value.double() - truth)
        return float(difference / torch.linalg.vector_norm(truth).clamp(min=1e-12))

    return measure
