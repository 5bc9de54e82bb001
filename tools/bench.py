"""Benchmarks. `python tools/bench.py kernels [--json FILE]` times the native kernels."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from avatar3d import kernels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("kernels", help="rasteriser, image losses and binding")
    command.add_argument("--json", type=Path, help="also write the figures to this file")
    command.add_argument("--threads", type=int, default=kernels.get_num_threads())
    command.add_argument("--seconds", type=float, default=1.0, help="time spent on each row")
    command.add_argument("--simd", help="avx512, avx2 or plain; the fastest by default")
    command.add_argument("--no-reference", action="store_true", help="skip the slow torch twins")
    arguments = parser.parse_args()
    bench_kernels(arguments)


def bench_kernels(arguments: argparse.Namespace) -> None:
    """Median, 10th and 90th percentile of each kernel, and the ratio to its torch reference."""
    kernels.set_num_threads(arguments.threads)
    if arguments.simd:
        from avatar3d.kernels._backend import native

        native().set_simd(arguments.simd)
    info = kernels.backend_info()
    rows = []
    cases: list[tuple[str, Callable[[str], Callable[[], Any]], bool]] = []
    for size in (256, 512):
        for count in (10_000, 20_000, 40_000):
            scene = head_scene(count, size)
            label = f"{count // 1000}k {size}x{size}"
            with_reference = count == 20_000
            cases.append((f"rasterize forward {label}", forward_of(scene, size), with_reference))
            cases.append((f"rasterize fwd+bwd {label}", training_of(scene, size), with_reference))
        cases.append((f"L1+SSIM fwd+bwd {size}x{size}", loss_of(size), True))
    cases.append(("bind 25k forward", binding_of(25_000, 16, backward=False), True))
    cases.append(("bind 25k fwd+bwd", binding_of(25_000, 16, backward=True), True))
    for name, make, with_reference in cases:
        row: dict[str, Any] = {"name": name, **percentiles(make("native"), arguments.seconds)}
        if with_reference and not arguments.no_reference:
            row["reference_ms"] = percentiles(make("reference"), 0.0)["median_ms"]
            row["speedup"] = row["reference_ms"] / row["median_ms"]
        rows.append(row)
    show(rows, f"{info['simd']}, {info['threads']} threads, {info['compiler']}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": info, "rows": rows}, indent=1) + "\n")


def head_scene(count: int, size: int) -> list[Tensor]:
    """A head-like shell of flat Gaussians before the camera: about 30 blended per covered pixel."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    means = direction * torch.tensor([0.105, 0.14, 0.11]) + torch.tensor([0.0, 0.0, 0.8])
    # wxyz that turns z onto the shell's normal, so that the thin axis points outwards
    quats = torch.cat(
        [1 + direction[:, 2:], -direction[:, 1:2], direction[:, :1], 0 * direction[:, :1]], dim=-1
    )
    spread = 0.0019 * (20_000 / count) ** 0.5
    scales = spread * torch.exp(0.4 * torch.randn(count, 3, generator=generator))
    scales[:, 2] *= 0.2
    opacities = torch.sigmoid(1.0 + 1.5 * torch.randn(count, generator=generator))
    colors = torch.rand(count, 3, generator=generator)
    K = torch.tensor([[2.4 * size, 0, size / 2], [0, 2.4 * size, size / 2], [0, 0, 1.0]])
    return [means, quats, scales, opacities, colors, torch.eye(4), K]


def forward_of(scene: list[Tensor], size: int) -> Callable[[str], Callable[[], Any]]:
    def make(backend: str) -> Callable[[], Any]:
        @torch.no_grad()
        def run() -> None:
            kernels.rasterize(*scene, size, size, backend=backend)

        return run

    return make


def training_of(scene: list[Tensor], size: int) -> Callable[[str], Callable[[], Any]]:
    leaves = [t.clone().requires_grad_() for t in scene[:5]]
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(size, size, 3, generator=generator)
    background = torch.rand(size, size, 3, generator=generator)

    def make(backend: str) -> Callable[[], Any]:
        def run() -> None:
            image, _ = kernels.rasterize(
                *leaves, *scene[5:], size, size, background, backend=backend
            )
            torch.autograd.grad(image, leaves, gradient)

        return run

    return make


def loss_of(size: int) -> Callable[[str], Callable[[], Any]]:
    generator = torch.Generator().manual_seed(2)
    image = torch.rand(size, size, 3, generator=generator).requires_grad_()
    target = torch.rand(size, size, 3, generator=generator)
    weight = torch.rand(size, size, generator=generator)

    def make(backend: str) -> Callable[[], Any]:
        def run() -> None:
            loss = kernels.l1_ssim_loss(image, target, weight, backend=backend)
            torch.autograd.grad(loss, image)

        return run

    return make


def binding_of(count: int, basis: int, backward: bool) -> Callable[[str], Callable[[], Any]]:
    """Gaussians on a head mesh with blendshapes, all learned."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_(backward)

    bound, vertices = count * 3 // 4, 9000
    corners = torch.randint(0, vertices, (bound, 3), generator=generator, dtype=torch.int32)
    shares = torch.rand(count, generator=generator)
    binding = kernels.Binding(corners, torch.full((bound, 3), 1 / 3), shares)
    attributes = kernels.Attributes(
        normal(count, 3), normal(count, 4), normal(count, 3), normal(count), normal(count, 3),
        basis=normal(bound, 10, basis),
    )  # fmt: skip
    mesh = torch.randn(vertices, 3, generator=generator)
    weights, pose = normal(basis), torch.eye(4)
    a = attributes
    leaves = [a.position, a.quat, a.log_scale, a.opacity, a.color, a.basis, weights]

    def make(backend: str) -> Callable[[], Any]:
        def run() -> None:
            out = kernels.bind_gaussians(
                binding, attributes, mesh, pose, pose, weights, backend=backend
            )
            if backward:
                torch.autograd.grad(out, leaves, [torch.ones_like(v) for v in out])

        return run

    return make


def percentiles(run: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Milliseconds of `run`, called for about `seconds` and at least once after a warm-up."""
    if seconds > 0:
        for _ in range(3):
            run()
    times: list[float] = []
    begin = time.perf_counter()
    while not times or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    times.sort()
    return {
        "median_ms": statistics.median(times),
        "p10_ms": times[len(times) // 10],
        "p90_ms": times[len(times) * 9 // 10],
    }


def show(rows: list[dict[str, Any]], title: str) -> None:
    table = Table(title=f"{title}; milliseconds")
    table.add_column("kernel", no_wrap=True)
    for column in ("median", "p10", "p90", "torch", "ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        reference = f"{row['reference_ms']:.0f}" if "reference_ms" in row else ""
        speedup = f"{row['speedup']:.0f}x" if "speedup" in row else ""
        values = [f"{row[k]:.2f}" for k in ("median_ms", "p10_ms", "p90_ms")]
        table.add_row(row["name"], *values, reference, speedup)
    Console().print(table)


if __name__ == "__main__":
    main()
