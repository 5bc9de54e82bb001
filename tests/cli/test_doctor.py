"""What `avatar3d doctor` says of the kernels, here and on machines that we only pretend to be."""

import shutil
import tomllib
from pathlib import Path

import pytest
import torch

from avatar3d.cli import doctor
from avatar3d.cli.doctor import Check, checks
from avatar3d.kernels import backend_info, cuda, gsplat_backend

H100 = {
    "device": "NVIDIA H100", "architecture": "sm_90", "driver": "580.159.04", "nvrtc": "13.0",
    "cuda_core": "1.2.2", "unusable": "",
}  # fmt: skip


@pytest.fixture
def pretend(monkeypatch):
    """`pretend(report, rasterizer_reason)` -> the checks of a machine with a GPU."""

    def run(found: dict, reason: str) -> dict[str, Check]:
        monkeypatch.setattr(cuda, "report", lambda: found)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(found["device"]))
        monkeypatch.setattr(gsplat_backend, "unusable", lambda: reason)
        return {check.name: check for check in checks()}

    return run


def test_the_cpu_kernels_are_named():
    (line,) = (check for check in checks() if check.name == "kernels")
    info = backend_info()
    assert line.state == "good"
    for fact in (info["simd"], f"{info['threads']} threads", info["compiler"]):
        assert fact in line.detail


def test_a_machine_without_a_gpu_lacks_nothing(pretend):
    found = pretend(H100 | {"device": "", "driver": "", "unusable": "torch sees no GPU"}, "")
    assert found["gpu"].state == "good"
    assert "torch sees no GPU" in found["gpu"].detail
    assert not {"gpu kernels", "gpu rasterizer"} & set(found)


def test_a_gpu_that_torch_cannot_use_is_pointed_out(pretend):
    found = pretend(H100 | {"device": "", "unusable": "torch 2.13 is built without CUDA"}, "")
    assert found["gpu"].state == "limited"
    assert "580.159.04" in found["gpu"].detail
    assert "CUDA build of torch" in found["gpu"].remedy


def test_a_gpu_with_everything(pretend):
    found = pretend(H100, "")
    assert {found[f"gpu{part}"].state for part in ("", " kernels", " rasterizer")} == {"good"}
    assert "NVIDIA H100 (sm_90), driver 580.159.04" in found["gpu"].detail
    assert "NVRTC 13.0 through cuda-core 1.2.2" in found["gpu kernels"].detail
    assert "gsplat" in found["gpu rasterizer"].detail


def test_a_gpu_without_the_extra_says_what_is_missing(pretend):
    found = pretend(H100 | {"unusable": "No module named 'cuda'"}, "gsplat is not installed")
    for name, reason in (("gpu kernels", "No module"), ("gpu rasterizer", "gsplat is not")):
        assert found[name].state == "limited"
        assert reason in found[name].detail
        assert "avatar3d[gpu]" in found[name].remedy


def test_every_extra_that_is_missing_has_its_remedy(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.setattr(gsplat_backend, "unusable", lambda: "gsplat is not installed")
    monkeypatch.setattr(cuda, "report", lambda: H100 | {"unusable": "no cuda-core"})
    remedies = " ".join(check.remedy for check in checks())
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    for extra in set(project["project"]["optional-dependencies"]) - {"dev", "all"}:
        assert f"pip install 'avatar3d[{extra}]'" in remedies
    assert "pip install lpips" in remedies
