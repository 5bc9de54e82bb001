"""What is timed, what it is compared with, and how many operations and bytes it needs at least.

Operations are counted, not measured: a multiply-add is two, and only work that the result needs
counts (blended pairs, not idle vector lanes; no projection, sorting or tile lists, which are a few
per cent). Bytes are inputs read once plus outputs written once, as if nothing else left the cache.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar3d import kernels
from benchmarks import torch_raster
from benchmarks.scenes import AvatarFace, Scene, head_scene

__all__ = ["Case", "all_cases", "avatar_cases"]

SIZES = (256, 512, 1024)
COUNTS = (10_000, 20_000, 40_000, 100_000)

# Of a blended pair. Forward: offset 2, log2 of alpha 8, exp2 12, next transmittance 2, weight 1,
# colours 6. Backward: the first 25 again, dot product 5, what is behind 2, colours 6, derivative at
# sigma 8, and the sums for centre, conic and opacity 11.
PAIR_FORWARD, PAIR_BACKWARD = 31, 57
# Of a value (pixel and channel). Four moments, windowed down and along (22 + 16 each, the products
# 3), the formula 14, L1 5; and for the gradient its slopes 15, three maps windowed (22 + 16), 9.
SSIM_FORWARD, SSIM_BACKWARD = 174, 138
FLOAT = 4  # bytes

Run = Callable[[], Sequence[Tensor]]


@dataclass
class Case:
    """One row.

    Attributes:
        name: unique; `--rows` matches it.
        make: the function to time, given a device; the tensors that it returns are compared with
            those of `others`.
        others: what it is compared with, by name, made in the same way.
        work: operations and bytes needed at least.
        scene: what is drawn, for its statistics.
        compare: the tensors that are returned must equal those of `others`.
        cpu_only: the operation has no other device.
        quick: part of `--quick`.
        samples: of rays, to tell the time of each; 0 if it has none.
    """

    name: str
    make: Callable[[str], Run]
    others: dict[str, Callable[[str], Run]] = field(default_factory=dict)
    work: Callable[[], tuple[float, float]] | None = None
    scene: Callable[[], Scene] | None = None
    compare: bool = True
    cpu_only: bool = False
    quick: bool = False
    samples: int = 0


def all_cases() -> Iterator[Case]:
    """Everything but the avatar's."""
    for size in SIZES:
        for count in COUNTS:
            headline = (count, size) == (20_000, 512)
            scene = _once(lambda count=count, size=size: head_scene(count, size))
            label = f"rasterize {count // 1000}k {size}"
            reference = count == 20_000 and size < 1024
            yield from _raster_cases(label, scene, reference, headline, headline)
            if headline:
                yield from _batch_cases(label, scene)
    for size in SIZES:
        yield from _loss_cases(size)
    for count in COUNTS:
        yield from _binding_cases(count, 16)
    for count in COUNTS:
        yield _basis_case(count * 3 // 4, 16)
    for size in SIZES:
        yield _mesh_case(size)


def avatar_cases(avatar: AvatarFace) -> Iterator[Case]:
    """A trained avatar's Gaussians: drawn at each size, posed, and drawn as training does."""
    for size in SIZES:
        label = f"avatar {avatar.name} {size}"
        scene = _once(lambda size=size: avatar.scene(size))
        yield from _raster_cases(label, scene, size == 512, size == 512, False)
    yield Case(f"avatar {avatar.name} pose", _posing(avatar), cpu_only=True)
    yield Case(f"avatar {avatar.name} 512 pose+draw fwd+bwd", _face_training(avatar, 512),
               cpu_only=True, quick=True)  # fmt: skip


def _once(make: Callable[[], Any]) -> Callable[[], Any]:
    made: list[Any] = []

    def get() -> Any:
        if not made:
            made.append(make())
        return made[0]

    return get


def _raster_cases(
    label: str, scene: Callable[[], Scene], reference: bool, quick: bool, headline: bool
) -> Iterator[Case]:
    def kernel(gaussians: list[Tensor], s: Scene, background: Tensor) -> Tensor:
        camera = (s.viewmat, s.K, s.width, s.height)
        return kernels.rasterize(*gaussians, *camera, background, backend="native")[0]

    def in_torch(tile: int) -> Callable[[list[Tensor], Scene, Tensor], Tensor]:
        def draw(gaussians: list[Tensor], s: Scene, background: Tensor) -> Tensor:
            size = (s.width, s.height)
            return torch_raster.rasterize(*gaussians, s.viewmat, s.K, background, *size, tile)[0]

        return draw

    def by_gsplat(gaussians: list[Tensor], s: Scene, background: Tensor) -> Tensor:
        from gsplat import rasterization

        pixels, alpha, _ = rasterization(
            *gaussians, s.viewmat[None], s.K[None], s.width, s.height, packed=False
        )
        return pixels[0] + (1 - alpha[0]) * background

    def forward(draw: Any) -> Callable[[str], Run]:
        def make(device: str) -> Run:
            s = scene().to(device)
            background = torch.zeros(3, device=device)
            return torch.no_grad()(lambda: [draw(s.gaussians, s, background)])

        return make

    def training(draw: Any) -> Callable[[str], Run]:
        def make(device: str) -> Run:
            s = scene().to(device)
            leaves = [t.detach().clone().requires_grad_() for t in s.gaussians]
            generator = torch.Generator().manual_seed(1)
            gradient = torch.randn(s.height, s.width, 3, generator=generator).to(device)
            background = torch.rand(s.height, s.width, 3, generator=generator).to(device)

            return lambda: torch.autograd.grad(draw(leaves, s, background), leaves, gradient)

        return make

    for passes, way in (("forward", forward), ("fwd+bwd", training)):
        others: dict[str, Any] = {"gsplat": way(by_gsplat)}
        if reference:
            others["torch"] = way(in_torch(16))
            if headline:
                others["torch, 8 px tiles"] = way(in_torch(8))
                others["torch, 32 px tiles"] = way(in_torch(32))  # as large as the kernel's
        work = partial(_raster_work, scene, passes == "fwd+bwd")
        yield Case(f"{label} {passes}", way(kernel), others, work, scene, quick=quick)


def _batch_cases(label: str, scene: Callable[[], Scene]) -> Iterator[Case]:
    """Four cameras in one call, against one call each; and depth, against none."""

    def cameras(s: Scene, device: str) -> Tensor:
        viewmat = s.viewmat.repeat(4, 1, 1)
        viewmat[:, 0, 3] += 0.01 * torch.arange(4, device=device)
        return viewmat

    def together(device: str) -> Run:
        s = scene().to(device)
        rest = (cameras(s, device), s.K, s.width, s.height)
        return torch.no_grad()(lambda: kernels.rasterize(*s.gaussians, *rest, backend="native"))

    def one_by_one(device: str) -> Run:
        s = scene().to(device)

        @torch.no_grad()
        def run() -> Sequence[Tensor]:
            rest = (s.K, s.width, s.height)
            drawn = [
                kernels.rasterize(*s.gaussians, viewmat, *rest, backend="native")
                for viewmat in cameras(s, device)
            ]
            return [torch.stack(part) for part in zip(*drawn, strict=True)]

        return run

    def with_depth(device: str) -> Run:
        s = scene().to(device)
        rest = (s.viewmat, s.K, s.width, s.height)
        return torch.no_grad()(
            lambda: kernels.rasterize_with_depth(*s.gaussians, *rest, backend="native")[:2]
        )

    def without(device: str) -> Run:
        s = scene().to(device)
        rest = (s.viewmat, s.K, s.width, s.height)
        return torch.no_grad()(lambda: kernels.rasterize(*s.gaussians, *rest, backend="native"))

    yield Case(f"{label} x4 forward", together, {"one by one": one_by_one})
    yield Case(f"{label} forward with depth", with_depth, {"without": without})


def _raster_work(scene: Callable[[], Scene], backward: bool) -> tuple[float, float]:
    pixels, count, counts = scene().width * scene().height, len(scene()), scene().counts
    flops = counts.pairs * (PAIR_FORWARD + backward * PAIR_BACKWARD)
    # 14 numbers in, image and alpha out; then their gradient and themselves in, 14 gradients out
    floats = 14 * count + 4 * pixels + backward * (2 * 14 * count + 7 * pixels)
    return float(flops), float(FLOAT * floats)


def _loss_cases(size: int) -> Iterator[Case]:
    def images(device: str, learned: bool) -> list[Tensor]:
        generator = torch.Generator().manual_seed(2)
        shapes = ((size, size, 3), (size, size, 3), (size, size))
        made = [torch.rand(shape, generator=generator).to(device) for shape in shapes]
        made[0].requires_grad_(learned)
        return made

    def forward(backend: str) -> Callable[[str], Run]:
        def make(device: str) -> Run:
            inputs = images(device, False)
            return lambda: [kernels.l1_ssim_loss(*inputs, backend=backend)]

        return make

    def training(backend: str) -> Callable[[str], Run]:
        def make(device: str) -> Run:
            inputs = images(device, True)

            def run() -> Sequence[Tensor]:
                loss = kernels.l1_ssim_loss(*inputs, backend=backend)
                return torch.autograd.grad(loss, inputs[0])

            return run

        return make

    values = 3.0 * size * size
    for passes, way, flops, floats in (
        ("forward", forward, SSIM_FORWARD, 7 / 3),
        ("fwd+bwd", training, SSIM_FORWARD + SSIM_BACKWARD, 10 / 3),
    ):
        yield Case(
            f"L1+SSIM {size} {passes}", way("native"), {"torch": way("reference")},
            lambda flops=flops, floats=floats: (values * flops, values * floats * FLOAT),
            quick=size == 512,
        )  # fmt: skip


def _binding_cases(count: int, basis: int) -> Iterator[Case]:
    """Gaussians of which three quarters sit on a head mesh with blendshapes."""
    bound, vertices = count * 3 // 4, 9000

    def make(backend: str, backward: bool) -> Callable[[str], Run]:
        def at(device: str) -> Run:
            generator = torch.Generator().manual_seed(3)

            def normal(*shape: int) -> Tensor:
                values = torch.randn(*shape, generator=generator).to(device)
                return values.requires_grad_(backward)

            first = torch.randint(0, vertices, (bound, 1), generator=generator)
            corners = ((first + torch.tensor([0, 1, 7])) % vertices).int()  # never twice the same
            binding = kernels.Binding(
                corners.to(device),
                torch.full((bound, 3), 1 / 3, device=device),
                torch.rand(count, generator=generator).to(device),
            )
            a = kernels.Attributes(
                normal(count, 3), normal(count, 4), normal(count, 3), normal(count),
                normal(count, 3), basis=normal(bound, 10, basis),
            )  # fmt: skip
            mesh = torch.randn(vertices, 3, generator=generator).to(device)
            weights, pose = normal(basis), torch.eye(4, device=device)
            leaves = [a.position, a.quat, a.log_scale, a.opacity, a.color, a.basis, weights]

            def run() -> Sequence[Tensor]:
                out = kernels.bind_gaussians(binding, a, mesh, pose, pose, weights, backend=backend)
                if not backward:
                    return out
                return torch.autograd.grad(out, leaves, [torch.ones_like(v) for v in out])

            return run

        return at

    def work(backward: bool) -> tuple[float, float]:
        # A multiply-add for each entry of the basis, and two more for the gradients of the entry
        # and of its weight. Attributes in and out 14 each, skinning weight 1, corners 6.
        flops = 2 * 10 * basis * bound * (3 if backward else 1)
        floats = count * (14 + 14 + 1) + bound * (6 + 10 * basis) + 3 * vertices
        if backward:
            floats += count * (14 + 14 + 14 + 1) + bound * (6 + 2 * 10 * basis) + 3 * vertices
        return float(flops), float(FLOAT * floats)

    for passes, backward in (("forward", False), ("fwd+bwd", True)):
        yield Case(
            f"bind {count // 1000}k {passes}", make("native", backward),
            {"torch": make("reference", backward)} if count <= 20_000 else {},
            partial(work, backward), quick=count == 20_000,
        )  # fmt: skip


def _basis_case(blended: int, basis: int) -> Case:
    """One AdamW step of a basis (B, 10, K) whose gradient is one outer product."""
    settings = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}

    def data(device: str) -> list[Tensor]:
        generator = torch.Generator().manual_seed(5)
        shapes = ((blended, 10, basis), (1, blended, 10), (1, basis))
        return [torch.randn(shape, generator=generator).to(device) for shape in shapes]

    def kernel(device: str) -> Run:
        parameter, rows, weights = data(device)
        moments = torch.zeros_like(parameter), torch.zeros_like(parameter)

        def run() -> Sequence[Tensor]:
            kernels.outer_adamw_(
                parameter, *moments, rows, weights, step=1, backend="native", **settings
            )
            return [parameter]

        return run

    def in_torch(device: str) -> Run:
        values, rows, weights = data(device)
        parameter = torch.nn.Parameter(values)
        optimizer = torch.optim.AdamW([parameter], fused=True, **settings)

        def run() -> Sequence[Tensor]:
            parameter.grad = rows[0, :, :, None] * weights[0]
            optimizer.step()
            return [parameter]

        return run

    def work() -> tuple[float, float]:
        # gradient 1, moments 7, root and quotient 3, step 2, decay 1; three arrays in and out
        return 14.0 * blended * 10 * basis, 24.0 * blended * 10 * basis

    return Case(
        f"adamw {blended / 1000:g}k x 10 x {basis}", kernel, {"torch": in_torch}, work,
        compare=False, quick=blended == 15_000,
    )  # fmt: skip


def _mesh_case(size: int) -> Case:
    """A sphere of 16k triangles that fills most of the picture."""
    rows, columns = 64, 128
    v, u = np.mgrid[: rows + 1, :columns].reshape(2, -1)
    polar, around = np.pi * v / rows, 2 * np.pi * u / columns
    xyz = np.stack(
        [np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], -1
    )
    z = 3 + xyz[:, 2:]
    points = np.concatenate([size * (0.5 + 1.2 * xyz[:, :2] / z), z], -1).astype(np.float32)
    v, u = np.mgrid[:rows, :columns].reshape(2, -1)
    corner = [(v + down) * columns + (u + right) % columns for down in (0, 1) for right in (0, 1)]
    faces = np.stack([corner[0], corner[1], corner[2], corner[1], corner[3], corner[2]], -1)
    faces = np.ascontiguousarray(faces.reshape(-1, 3), np.int32)

    def make(backend: str) -> Callable[[str], Run]:
        def at(device: str) -> Run:
            def run() -> Sequence[Tensor]:
                found = kernels.rasterize_mesh(points, faces, size, size, backend=backend)
                return [torch.from_numpy(found[1])]

            return run

        return at

    def work() -> tuple[float, float]:
        return 0.0, float(FLOAT * (5 * size * size + points.size + faces.size))

    others = {"numpy": make("reference")} if size == 256 else {}
    return Case(
        f"mesh 16k triangles {size}", make("native"), others, work, cpu_only=True, quick=size == 512
    )


def _posing(avatar: AvatarFace) -> Callable[[str], Run]:
    from avatar3d.avatar.deform import pose_gaussians

    def make(device: str) -> Run:
        return torch.no_grad()(lambda: pose_gaussians(avatar.rig, avatar.parameters, avatar.face))

    return make


def _face_training(avatar: AvatarFace, size: int) -> Callable[[str], Run]:
    from avatar3d.avatar.deform import draw_face

    def make(device: str) -> Run:
        scene = avatar.scene(size)
        camera = avatar.camera.scaled(size / max(avatar.camera.width, avatar.camera.height))
        generator = torch.Generator().manual_seed(4)
        gradient = torch.randn(scene.height, scene.width, 3, generator=generator)
        leaves = list(avatar.parameters.parameters())

        def run() -> Sequence[Tensor]:
            image, _ = draw_face(avatar.rig, avatar.parameters, avatar.face, camera, torch.zeros(3))
            return torch.autograd.grad(image, leaves, gradient)

        return run

    return make
