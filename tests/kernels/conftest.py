"""Scenes, builds and tolerances shared by the kernel tests."""

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from avatar3d import kernels
from avatar3d.kernels import Attributes, Binding, bind_gaussians, reference
from avatar3d.kernels._backend import Backend
from avatar3d.kernels.cuda import compiler, modules

EMULATION = Path(__file__).parent / "emulation"
GUARD = 64  # values around every tensor that no CUDA kernel may touch


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


_ATTRIBUTES = ("position", "quat", "log_scale", "opacity", "color", "basis")
_FRAME = ("vertices", "head", "torso", "weights")


@dataclass
class Rig:
    """Random Gaussians on a random mesh."""

    binding: Binding
    attributes: Attributes
    vertices: Tensor
    head: Tensor
    torso: Tensor
    weights: Tensor

    def leaves(self, dtype: torch.dtype) -> "Rig":
        def leaf(t: Tensor) -> Tensor:
            return t.detach().to(dtype).clone().requires_grad_()

        a, b = self.attributes, self.binding
        return Rig(
            Binding(b.corners, b.bary.to(dtype), b.torso_weight.to(dtype)),
            replace(
                a, units=a.units.to(dtype), **{name: leaf(getattr(a, name)) for name in _ATTRIBUTES}
            ),
            *(leaf(getattr(self, name)) for name in _FRAME),
        )

    def bind(self, backend: Backend = "auto") -> Any:
        return bind_gaussians(
            self.binding, self.attributes, self.vertices, self.head, self.torso, self.weights,
            backend=backend,
        )  # fmt: skip

    def gradients(self) -> dict[str, Tensor]:
        found = {name: getattr(self.attributes, name).grad for name in _ATTRIBUTES}
        return found | {name: getattr(self, name).grad for name in _FRAME}


def _make_rig(count: int, bound: int, blended: int, size: int, seed: int = 0) -> Rig:
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.tensor(rng.normal(0, scale, shape), dtype=torch.float32)

    def rigid() -> Tensor:
        transform = np.eye(4)
        transform[:3, :3] = Rotation.random(random_state=rng.integers(1 << 30)).as_matrix()
        transform[:3, 3] = rng.normal([0, 0, 0.8], 0.1)
        return torch.tensor(transform, dtype=torch.float32)

    vertices = 30
    corners = np.array([rng.choice(vertices, 3, replace=False) for _ in range(bound)])
    bary = rng.dirichlet(np.ones(3), bound)
    binding = Binding(
        torch.tensor(corners.reshape(bound, 3), dtype=torch.int32),
        torch.tensor(bary.reshape(bound, 3), dtype=torch.float32),
        torch.tensor(rng.random(count), dtype=torch.float32),
    )
    attributes = Attributes(
        position=normal(count, 3, scale=0.01),
        quat=normal(count, 4),
        log_scale=normal(count, 3) - 5,
        opacity=normal(count, scale=2),
        color=normal(count, 3),
        basis=normal(blended, 10, size, scale=0.3),
        units=torch.tensor([0.01] * 3 + [1.0] * 4 + [0.7] * 3),
    )
    return Rig(binding, attributes, normal(vertices, 3, scale=0.1), rigid(), rigid(), normal(size))


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
def make_rig() -> Callable[..., Rig]:
    """`make_rig(count, bound, blended, basis_size, seed=0)`."""
    return _make_rig


def _steady_pixels(scene: Scene) -> Tensor:
    """Pixels where no Gaussian is within rounding of a threshold (1/255, 0.999, 1e-4)."""
    if not len(scene.means):
        return torch.ones(scene.height, scene.width, dtype=torch.bool)
    s = scene.leaves(torch.float64)
    with torch.no_grad():
        centers, covs, depths = reference.project(
            s.means, s.quats, s.scales, s.viewmat, s.K, s.width, s.height
        )
        order = depths.argsort()
        y, x = torch.meshgrid(
            torch.arange(s.height) + 0.5, torch.arange(s.width) + 0.5, indexing="ij"
        )
        d = torch.stack([x, y], -1).double().reshape(-1, 2) - centers[order][:, None]
        sigma = 0.5 * (d * (d @ torch.linalg.inv(covs[order]))).sum(-1)
        alpha = s.opacities[order][:, None] * torch.exp(-sigma) * (depths[order] > 0.01)[:, None]
        close = ((alpha * 255 - 1).abs() < 1e-4) | ((alpha / 0.999 - 1).abs() < 1e-4)
        drawn = torch.where(alpha >= 1 / 255, alpha.clamp(max=0.999), 0)
        transmittance = torch.cumprod(1 - drawn, dim=0)
        close |= (transmittance * 1e4 - 1).abs() < 1e-3
    return ~close.any(0).reshape(s.height, s.width)


@pytest.fixture(scope="session")
def steady_pixels() -> Callable[[Scene], Tensor]:
    """`steady_pixels(scene)`: (H, W), False where rounding may decide about a Gaussian."""
    return _steady_pixels


@pytest.fixture(scope="session")
def relative_error() -> Callable[[Tensor, Tensor], float]:
    """L2 norm of the difference over that of the truth."""

    def measure(value: Tensor, truth: Tensor) -> float:
        difference = torch.linalg.vector_norm(value.double() - truth)
        return float(difference / torch.linalg.vector_norm(truth).clamp(min=1e-12))

    return measure


class Emulated:
    """Stands for modules.Module: the same kernels and arguments, by cuda_emulation.h."""

    def __init__(self, library: Path) -> None:
        self.order = 0  # in which the threads of a block run
        self._library = ctypes.CDLL(str(library))

    def launch(self, kernel: str, grid: tuple[int, int], threads: int, *arguments) -> None:
        guarded = [self._guard(a) if isinstance(a, Tensor) else a for a in arguments]
        values = [self._value(a) for a in guarded]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        run = getattr(self._library, f"run_{kernel}")
        run.restype = ctypes.c_char_p
        error = run(*grid, threads, addresses, self.order)
        assert error is None, f"{kernel}: {error.decode()}"
        for tensor, memory in zip(arguments, guarded, strict=True):
            if isinstance(tensor, Tensor) and tensor.numel():
                words = memory.view(np.uint32)
                around = np.concatenate([words[:GUARD], words[-GUARD:]])
                assert (around == 0xFFFFFFFF).all(), f"{kernel} wrote beyond a tensor"
                tensor.copy_(torch.from_numpy(memory[GUARD:-GUARD]).view(tensor.shape))

    @staticmethod
    def _guard(tensor: Tensor) -> np.ndarray:
        """A copy between NaNs, so that reading beyond it shows too."""
        assert tensor.is_contiguous()
        memory = np.full(tensor.numel() + 2 * GUARD, 0xFFFFFFFF, np.uint32)
        memory = memory.view(tensor.numpy().dtype)
        memory[GUARD:-GUARD] = tensor.numpy().ravel()
        return memory

    @staticmethod
    def _value(argument) -> ctypes._SimpleCData:
        if isinstance(argument, np.ndarray):
            empty = len(argument) == 2 * GUARD  # torch's address of an empty tensor is null
            address = argument.ctypes.data + GUARD * argument.itemsize
            return ctypes.c_void_p(None if empty else address)
        if argument is None:
            return ctypes.c_void_p(None)
        return ctypes.c_int(argument) if isinstance(argument, int) else ctypes.c_float(argument)


@pytest.fixture(scope="session")
def emulated(tmp_path_factory) -> dict[str, Emulated]:
    """Every source file, compiled for this processor."""
    compiler_path = shutil.which("g++") or shutil.which("c++")
    if compiler_path is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("emulation")
    running = []
    for source in compiler.SOURCES:
        path = compiler.source_folder() / "gpu" / source
        kernels = re.findall(r"__launch_bounds__\([^)]*\)\s*(\w+)\(", path.read_text("utf-8"))
        assert kernels
        unit = folder / f"{source}.cpp"
        unit.write_text(
            f'#include "cuda_emulation.h"\n#include "{path}"\n'
            + "".join(
                f'extern "C" const char* run_{name}(unsigned x, unsigned y, int threads, '
                "void** arguments, int order) "
                f"{{ return emulation::start({name}, x, y, threads, arguments, order); }}\n"
                for name in kernels
            )
        )
        command = [
            compiler_path, "-std=c++17", "-O1", "-g", "-shared", "-fPIC", "-Wno-unknown-pragmas",
            f"-I{EMULATION}", f"-I{compiler.source_folder() / 'include'}", str(unit),
            "-o", str(folder / f"{source}.so"),
        ]  # fmt: skip
        running.append(subprocess.Popen(command))
    assert all(process.wait() == 0 for process in running)
    return {source: Emulated(folder / f"{source}.so") for source in compiler.SOURCES}


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request, monkeypatch) -> Iterator[torch.device]:
    """Where to put tensors; on the CPU the kernels are emulated."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU")
        yield torch.device("cuda", 0)
        return
    sources = request.getfixturevalue("emulated")
    monkeypatch.setattr(modules, "load", lambda source, device: sources[source])
    yield torch.device("cpu")
