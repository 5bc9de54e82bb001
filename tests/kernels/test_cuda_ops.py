"""The public operations on a GPU against the same ones on the CPU; `bash tools/gpu_check.sh`."""

import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from avatar3d import kernels
from avatar3d.kernels import Attributes, Binding, bind_gaussians, cuda, gsplat_backend

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]


@pytest.fixture(scope="module", autouse=True)
def _kernels_run():
    assert cuda.unusable(torch.cuda.current_device()) == ""


def images(height: int, width: int, device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    target = torch.rand(height, width, 3, generator=g)
    image = (target + 0.1 * torch.randn(target.shape, generator=g)).clamp(0, 1)
    weight = torch.rand(height, width, generator=g)
    image, target, weight = (t.to(device, dtype) for t in (image, target, weight))
    return image.requires_grad_(), target, weight


@pytest.mark.parametrize("size", [(512, 512), (1080, 1920), (37, 53), (1, 1)])
def test_loss_and_gradient_are_those_of_the_oracle(size, relative_error):
    here, there = images(*size, "cuda", torch.float32), images(*size, "cuda", torch.float64)
    loss = kernels.l1_ssim_loss(*here, backend="native")
    truth = kernels.l1_ssim_loss(*there, backend="reference")
    assert loss.device.type == "cuda"
    (3 * loss).backward()
    (3 * truth).backward()
    assert float(loss.detach()) == pytest.approx(float(truth.detach()), rel=3e-6, abs=1e-7)
    assert relative_error(here[0].grad, there[0].grad) < 1e-4


def test_planar_images_are_understood(relative_error):
    image, target, weight = images(40, 60, "cuda", torch.float32)
    planar = image.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    expected = kernels.l1_ssim_loss(image, target, weight)
    found = kernels.l1_ssim_loss(planar, target, weight)
    assert torch.equal(found, expected)
    expected.backward()
    found.backward()
    assert torch.equal(planar.grad, image.grad)


def rig(device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """20,000 Gaussians, 16,000 of them on triangles with 16 blendshapes."""
    g = torch.Generator().manual_seed(0)
    n, bound, vertices = 20_000, 16_000, 5_000

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, generator=g)).to(device, dtype).requires_grad_()

    steps = torch.tensor([0, 1, 2500]) + torch.randint(0, 2000, (bound, 3), generator=g)
    steps[:, 0] = 0  # so that the corners differ
    corners = (torch.randint(0, vertices, (bound, 1), generator=g) + steps) % vertices
    turn = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64)).Q
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = turn * torch.linalg.det(turn)
    pose[2, 3] = 0.7
    return {
        "position": normal(n, 3, scale=0.01), "quat": normal(n, 4), "log_scale": normal(n, 3),
        "opacity": normal(n), "color": normal(n, 3), "basis": normal(bound, 10, 16, scale=0.3),
        "weights": normal(16), "vertices": normal(vertices, 3, scale=0.1),
        "head": pose.to(device, dtype, copy=True).requires_grad_(),
        "torso": pose.mT.contiguous().to(device, dtype, copy=True).requires_grad_(),
        "corners": corners.int().to(device),
        "bary": torch.rand(bound, 3, generator=g).to(device, dtype),
        "torso_weight": torch.rand(n, generator=g).to(device, dtype),
    }  # fmt: skip


def bind(r: dict[str, Tensor], backend: str):
    attributes = Attributes(*(r[n] for n in list(r)[:6]))
    binding = Binding(r["corners"], r["bary"], r["torso_weight"])
    pose = (r["vertices"], r["head"], r["torso"], r["weights"])
    return bind_gaussians(binding, attributes, *pose, backend=backend)


def test_binding_is_that_of_the_oracle(relative_error):
    here, there = rig("cuda", torch.float32), rig("cuda", torch.float64)
    out, truth = bind(here, "native"), bind(there, "reference")
    g = torch.Generator().manual_seed(1)
    v = [torch.randn(t.shape, generator=g).cuda() for t in truth]
    # A triangle turned by nearly half a circle may give q or -q, which rounding decides.
    turned = ((out.quats * truth.quats).sum(-1) < 0).nonzero()[:, 0]
    assert len(turned) < 10
    out.quats.data[turned] *= -1
    v[1][turned] = 0
    torch.autograd.backward(out, v)
    torch.autograd.backward(truth, [t.double() for t in v])
    for value, expected in zip(out, truth, strict=True):
        assert relative_error(value.detach(), expected.detach()) < 1e-5
    for name in list(here)[:10]:
        assert relative_error(here[name].grad, there[name].grad) < 1e-4, name


def test_gradients_but_the_vertices_are_the_same_bits_every_time():
    results = []
    for _ in range(3):
        r = rig("cuda", torch.float32)
        sum(t.sum() for t in bind(r, "native")).backward()
        image, target, weight = images(200, 300, "cuda", torch.float32)
        kernels.l1_ssim_loss(image, target, weight).backward()
        results.append([r[n].grad for n in list(r)[:10] if n != "vertices"] + [image.grad])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_adamw_of_a_basis_is_torchs():
    g = torch.Generator().manual_seed(0)
    start = torch.randn(5000, 10, 16, generator=g).cuda()
    truth = start.double().requires_grad_()
    optimizer = torch.optim.AdamW([truth], lr=3e-3, eps=1e-6, weight_decay=0.1)
    moments = torch.zeros_like(start), torch.zeros_like(start)
    for step in (1, 2):
        rows = torch.randn(2, 5000, 10, generator=g).cuda()
        weights = torch.randn(2, 16, generator=g).cuda()
        truth.grad = torch.einsum("frc,fk->rck", rows.double(), weights.double())
        optimizer.step()
        kernels.outer_adamw_(
            start, *moments, rows, weights, step=step, lr=3e-3, eps=1e-6, weight_decay=0.1,
            backend="native",
        )  # fmt: skip
    assert (start - truth.detach()).abs().max() < 1e-5


@pytest.mark.parametrize("image_background", [False, True])
def test_rasterizer_draws_what_the_cpu_draws(make_scene, relative_error, image_background):
    """By gsplat, or where it is missing by the CPU and copies."""
    scene = make_scene(2000, 160, 120, image_background=image_background)
    here, there = scene.leaves(torch.float32), scene.leaves(torch.float64)
    moved = {name: getattr(here, name).detach().cuda().requires_grad_() for name in scene.NAMES}
    here = replace(here, K=here.K.cuda(), **moved)
    if gsplat_backend.unusable():
        with pytest.warns(RuntimeWarning, match="gsplat"):
            image, alpha = kernels.rasterize(*here.arguments())
    else:
        image, alpha = kernels.rasterize(*here.arguments(), backend="native")
    assert image.device.type == alpha.device.type == "cuda"
    true_image, true_alpha = kernels.rasterize(*there.arguments(), backend="reference")
    v = torch.randn(true_image.shape, generator=torch.Generator().manual_seed(0))
    torch.autograd.backward([image, alpha], [v.cuda(), v[..., 0].cuda()])
    torch.autograd.backward([true_image, true_alpha], [v.double(), v[..., 0].double()])
    assert relative_error(image.detach().cpu(), true_image.detach()) < 1e-3
    assert relative_error(alpha.detach().cpu(), true_alpha.detach()) < 1e-3
    for name, gradient in there.gradients().items():
        assert relative_error(here.gradients()[name].cpu(), gradient) < 2e-2, name


def test_kernels_wait_for_torchs_stream():
    """On a side stream behind a long copy, the old contents would be read from any other."""
    image, target, weight = images(256, 256, "cuda", torch.float32)
    expected = kernels.l1_ssim_loss(image, target, weight).detach()
    late = torch.zeros_like(target)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # cycles, about a tenth of a second
        late.copy_(target)
        found = kernels.l1_ssim_loss(image, late, weight).detach()
    stream.synchronize()
    assert torch.equal(found, expected)


def test_a_thread_new_to_cuda_can_launch():
    image, target, weight = images(64, 64, "cuda", torch.float32)
    expected = kernels.l1_ssim_loss(image, target, weight).detach()
    found = []
    worker = threading.Thread(
        target=lambda: found.append(kernels.l1_ssim_loss(image, target, weight).detach())
    )
    worker.start()
    worker.join()
    assert torch.equal(found[0], expected)


def test_the_second_process_compiles_nothing(tmp_path):
    program = """
import sys
from avatar3d.kernels import cuda
from avatar3d.kernels.cuda import compiler
if sys.argv[1] == "second":
    def compile_source(source, arch):
        raise AssertionError(f"{source} is compiled again")
    compiler.compile_source = compile_source
print(cuda.unusable(0))
"""
    environment = os.environ | {"AVATAR3D_CACHE": str(tmp_path)}
    for turn in ("first", "second"):
        done = subprocess.run(
            [sys.executable, "-c", program, turn], env=environment, capture_output=True, text=True
        )
        assert done.stdout.strip() == "", done.stderr
    assert len(list((tmp_path / "cubins").iterdir())) == len(cuda.compiler.SOURCES)


def test_operators_obey_torch():
    from avatar3d.kernels.adam import _outer_adamw
    from avatar3d.kernels.ssim import _l1_ssim

    image, target, weight = images(20, 18, "cuda", torch.float32)
    torch.library.opcheck(_l1_ssim.overload, (image, target, weight, 0.2, True))
    parameter = torch.randn(6, 10, 4, device="cuda")
    moments = torch.zeros_like(parameter), torch.ones_like(parameter)
    rows, weights = torch.randn(2, 6, 10, device="cuda"), torch.randn(2, 4, device="cuda")
    torch.library.opcheck(
        _outer_adamw.overload, (parameter, *moments, rows, weights, 1, 1e-3, 0.9, 0.99, 1e-8, 0.1)
    )


def test_tensors_on_two_devices_are_named():
    image, target, weight = images(8, 6, "cuda", torch.float32)
    with pytest.raises(ValueError, match="target is on cpu, expected cuda"):
        kernels.l1_ssim_loss(image, target.cpu(), weight)
