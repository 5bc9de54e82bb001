"""Memory: nothing grows over thousands of calls, and scratch is used again."""

import ctypes
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar3d.kernels import l1_ssim_loss, outer_adamw_, rasterize, rasterize_mesh

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.skipif("AVATAR3D_SANITIZED" in os.environ, reason="sanitizers keep freed memory"),
]

CALLS = 10_000
MiB = 1 << 20


def resident() -> int:
    """Bytes of this process that are in memory, without what the allocator could give back."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def rasterizing(make_scene, make_rig) -> Callable[[], None]:
    scene = make_scene(24, 24, 20)
    leaves = scene.leaves(torch.float32)

    def run() -> None:
        image, _ = rasterize(*leaves.arguments())
        torch.autograd.grad(image, leaves.means, torch.ones_like(image))

    return run


def losing(make_scene, make_rig) -> Callable[[], None]:
    image, target = torch.rand(16, 12, 3, requires_grad=True), torch.rand(16, 12, 3)
    return lambda: torch.autograd.grad(l1_ssim_loss(image, target), image) and None


def binding(make_scene, make_rig) -> Callable[[], None]:
    rig = make_rig(14, 9, 6, 3).leaves(torch.float32)
    return lambda: torch.autograd.grad(rig.bind().means.sum(), rig.vertices) and None


def optimizing(make_scene, make_rig) -> Callable[[], None]:
    arrays = [torch.zeros(6, 10, 4) for _ in range(3)]
    rows, weights = torch.rand(1, 6, 10), torch.rand(1, 4)
    return lambda: outer_adamw_(*arrays, rows, weights, step=1, lr=1e-3)


def meshing(make_scene, make_rig) -> Callable[[], None]:
    points = np.array([[0, 0, 2], [9, 0, 2], [0, 9, 2]], np.float32)
    faces = np.array([[0, 1, 2]], np.int32)
    return lambda: rasterize_mesh(points, faces, 8, 8) and None


@pytest.mark.parametrize("make", [rasterizing, losing, binding, optimizing, meshing])
def test_nothing_grows(make, make_scene, make_rig):
    """A leak of 256 bytes a call would show."""
    run = make(make_scene, make_rig)
    for _ in range(500):
        run()
    before = resident()
    for _ in range(CALLS):
        run()
    assert resident() - before < 2 * MiB


def test_failing_calls_leave_nothing_behind(make_scene):
    """An exception half way returns its scratch too."""
    arguments = list(make_scene(24, 24, 20).arguments())
    arguments[3] = torch.rand(23)

    def fail() -> None:
        with pytest.raises(ValueError, match="opacities"):
            rasterize(*arguments)

    for _ in range(200):
        fail()
    before = resident()
    for _ in range(2000):
        fail()
    assert resident() - before < 2 * MiB


def test_scratch_is_used_again(make_scene):
    """Fresh memory is paid for in page faults: a frame needs some megabytes of scratch."""
    scene = make_scene(30_000, 48, 40)
    scene.scales *= 0.02

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        with torch.no_grad():
            rasterize(*scene.arguments())
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    first = faults()
    later = sorted(faults() for _ in range(20))[10]
    scratch_pages = 30_000 * 64 // resource.getpagesize()
    assert later < scratch_pages / 2, (first, later)


def test_memory_of_forwards_that_were_kept_comes_back(make_scene):
    """Every kept graph holds its own state; once dropped, only a few states stay for the next."""
    scene = make_scene(30_000, 48, 40)
    scene.scales *= 0.02
    leaves = scene.leaves(torch.float32)
    rasterize(*leaves.arguments())
    before = resident()
    kept = [rasterize(*leaves.arguments())[0] for _ in range(24)]
    held = resident() - before
    kept.clear()
    assert held > 24 * MiB  # or the test would show nothing
    assert resident() - before < held / 3
