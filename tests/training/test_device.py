"""Training keeps to the device that is chosen. torch's "meta" device stands for a GPU here: its
tensors have shapes but no numbers, and refuse operations with tensors elsewhere."""

import numpy as np
import pytest
import torch

from avatar3d.errors import UserError
from avatar3d.head import HeadModel
from avatar3d.kernels import Binding, _backend, gsplat_backend, rasterizer
from avatar3d.kernels import device as devices
from avatar3d.training import TrainingConfig, priors
from avatar3d.training.data import FrameStore
from avatar3d.training.loop import SplatTraining
from avatar3d.training.refine import face_parameters

GPU = torch.device("meta")


@pytest.fixture
def on_gpu(tiny_subject, tiny_head_file, tmp_path, monkeypatch):
    """A training whose tensors are on a GPU that is not there, where all kernels run."""
    model = HeadModel.load(tiny_head_file)
    config = TrainingConfig(gaussians=200, basis=4, random_background=0.5)
    training = SplatTraining(tiny_subject, model, config, tmp_path)
    neighbours = priors._neighbours(training.state)
    monkeypatch.setattr(priors, "_neighbours", lambda state: neighbours)
    monkeypatch.setattr(_backend, "_cuda_reason", lambda device: "")
    monkeypatch.setattr(rasterizer, "_method", lambda *arguments: "native", raising=False)
    # It looks at the numbers of its indices.
    monkeypatch.setattr(
        Binding, "__post_init__", lambda self: object.__setattr__(self, "vertex_count", 0)
    )
    training.device = GPU
    training.store = FrameStore(tiny_subject, training.frames, tmp_path, GPU)
    training._set_state(training.state)
    return training


def test_tensors_on_two_devices_do_not_mix():
    with pytest.raises(RuntimeError, match="not on the expected device"):
        torch.ones(2, device=GPU) + torch.ones(2)


def test_a_training_step_keeps_to_the_gpu(on_gpu):
    assert {p.device for p in on_gpu.parameters.parameters()} == {GPU}
    for phase in ("warmup", "final"):
        on_gpu.phase = phase
        for frame in on_gpu.frames[:4]:
            sample = on_gpu._sample(int(frame))
            how = on_gpu._draw, on_gpu._compare
            loss, _ = on_gpu.losses(*how, sample, on_gpu.parameters, on_gpu.rng)
            assert loss.device == GPU
            loss.backward()
    assert {p.grad.device for p in on_gpu.parameters.parameters() if p.grad is not None} == {GPU}


def test_photometric_tracking_keeps_to_the_gpu(on_gpu):
    refiner = on_gpu._make_refiner()
    start = face_parameters(refiner.tracking, np.arange(2), refiner.device)
    change = torch.zeros(2, 12, device=GPU)
    change = torch.cat([change, start.weights, start.gaze.flatten(1)], 1)
    targets = refiner._targets([0, 1])
    assert targets.images.device == targets.weights.device == GPU
    assert refiner._look(start, change, targets)[1].device == GPU
    assert refiner._optimize(start, change, targets, 2).device == GPU


def test_auto_takes_a_gpu_only_if_every_kernel_runs_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    for kernels, rasteriser, expected in (("", "", "cuda"), ("no", "", "cpu"), ("", "no", "cpu")):
        monkeypatch.setattr(devices.cuda, "unusable", lambda index, reason=kernels: reason)
        monkeypatch.setattr(gsplat_backend, "unusable", lambda reason=rasteriser: reason)
        assert devices.pick_device("auto").type == expected
    assert devices.pick_device("cpu").type == "cpu"


def test_a_device_that_is_not_there_is_one_clear_error():
    with pytest.raises(UserError, match="There is no device 'tpu'; take auto, cpu or cuda"):
        devices.pick_device("tpu")
    with pytest.raises(UserError, match="torch sees no GPU for device=cuda:99"):
        devices.pick_device("cuda:99")
