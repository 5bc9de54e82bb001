"""Marching and compositing of rays, each beside torch doing the same."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from avatar3d import kernels
from avatar3d.kernels import Occupancy, Samples, WarpGrid
from benchmarks.cases import FLOAT, Case, Run

__all__ = ["ray_cases"]

SIDE = 64  # pixels of the picture whose rays are marched
STEP = 0.0025
BOX = ((-0.25, -0.3, -0.2), (0.25, 0.25, 0.2))
# Of a sample. March: trilinear values of 3 numbers in two lattices. Composite: exp 12, sums 20;
# backward: the same again, the slope 25 and the derivative 5.
MARCH, FORWARD, BACKWARD = 2 * 3 * 14, 32, 62


@cache
def _scene() -> tuple[tuple[Tensor, Tensor, Tensor], WarpGrid, Occupancy, Tensor]:
    """A head-sized ellipsoid's shell under a smooth warp, seen by a camera a metre away."""
    box = torch.tensor(BOX)
    occupancy = Occupancy.full(box, 128)
    places = occupancy.points(torch.arange(128**3)) / torch.tensor([0.09, 0.13, 0.1])
    occupancy.update(((places.norm(dim=-1) - 1).abs() < 0.1).float() * 100)
    g = torch.Generator().manual_seed(0)
    coarse = 0.002 * torch.randn(1, 34, 47, 42, 4, generator=g)
    fine_box = torch.tensor([[-0.08, -0.12, 0.0], [0.08, 0.08, 0.12]])
    warp = WarpGrid(box, coarse, fine_box, 0.0005 * torch.randn(1, 31, 51, 41, 4, generator=g))
    y, x = torch.meshgrid(*[(torch.arange(SIDE) + 0.5) / SIDE - 0.5] * 2, indexing="ij")
    ahead = torch.stack([x / 4, -y / 4, -torch.ones_like(x)], -1).reshape(-1, 3)
    origins = torch.tensor([0, 0, 1.1]).repeat(SIDE * SIDE, 1)
    frames = torch.zeros(SIDE * SIDE, dtype=torch.int32)
    rays = (origins, torch.nn.functional.normalize(ahead, dim=-1), frames)
    return rays, warp, occupancy, kernels.posed_mask(occupancy, warp)


@cache
def _samples() -> Samples:
    rays, warp, occupancy, mask = _scene()
    return kernels.march(*rays, warp, occupancy, STEP, mask=mask)


def ray_cases() -> Iterator[Case]:
    """On the CPU. A frame's inverse warp and mask are made once for it, and timed apart."""

    def march(backend: str) -> Callable[[str], Run]:
        def make(device: str) -> Run:
            rays, warp, occupancy, mask = _scene()
            warp.inverse  # noqa: B018

            def run() -> Sequence[Tensor]:
                found = kernels.march(*rays, warp, occupancy, STEP, mask=mask, backend=backend)
                return [found.offsets.float()]

            return run

        return make

    def frame(device: str) -> Run:
        _, warp, occupancy, _ = _scene()

        def run() -> Sequence[Tensor]:
            fresh = WarpGrid(warp.box, warp.coarse, warp.fine_box, warp.fine)
            kernels.posed_mask(occupancy, fresh)
            return [fresh.inverse.coarse]

        return run

    def forward(backend: str) -> Callable[[str], Run]:
        def make(device: str) -> Run:
            density, color = _leaves()
            return torch.no_grad()(
                lambda: kernels.composite(density, color, _samples(), backend=backend)[:3]
            )

        return make

    def training(backend: str) -> Callable[[str], Run]:
        def make(device: str) -> Run:
            leaves = _leaves()

            def run() -> Sequence[Tensor]:
                out = kernels.composite(*leaves, _samples(), backend=backend)
                return torch.autograd.grad(out.color.sum() + out.distortion.sum(), leaves)

            return run

        return make

    count = len(_samples())
    for name, way, flops, numbers in (
        ("march", march, MARCH, 7), ("composite forward", forward, FORWARD, 7),
        ("composite fwd+bwd", training, FORWARD + BACKWARD, 18),
    ):  # fmt: skip
        yield Case(
            f"rays {name}", way("native"), {"torch": way("reference")},
            lambda flops=flops, numbers=numbers: (flops * count, FLOAT * numbers * count),
            samples=count, cpu_only=True,
        )  # fmt: skip
    yield Case("rays warp and mask of a frame", frame, cpu_only=True)


def _leaves() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    n = len(_samples())
    density, color = 300 * torch.rand(n, generator=g), torch.rand(n, 3, generator=g)
    return density.requires_grad_(), color.requires_grad_()
