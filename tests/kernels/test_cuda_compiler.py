"""The CUDA sources: they compile for every architecture we name, and their cache can be trusted."""

import re
import shutil

import pytest
import torch

from avatar3d.kernels.cuda import availability, compiler

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_120")  # Turing, Ampere, Hopper, Blackwell


@pytest.fixture(scope="module", autouse=True)
def _needs_nvrtc():
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    try:
        compiler.nvrtc_version()
    except Exception as error:
        pytest.skip(f"NVRTC is not installed: {error}")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty folder for cubins, and what has been compiled."""
    monkeypatch.setenv("AVATAR3D_CACHE", str(tmp_path))
    compiled = []
    original = compiler.compile_source

    def counted(source, arch):
        compiled.append(source)
        return original(source, arch)

    monkeypatch.setattr(compiler, "compile_source", counted)
    return tmp_path / "cubins", compiled


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("source", compiler.SOURCES)
def test_every_source_compiles_and_stays_in_registers(source, arch):
    cubin, report = compiler.compile_source(source, arch)
    assert cubin.startswith(b"\x7fELF")
    kernels = re.findall(r"Compiling entry function '(\w+)' for '(\w+)'", report)
    assert kernels
    assert {name for _, name in kernels} == {arch}
    spilled = [int(size) for size in re.findall(r"(\d+) bytes spill", report)]
    assert len(spilled) == 2 * len(kernels)
    assert max(spilled) <= 32  # none with NVRTC 13.5; others may choose a little differently
    shared = [int(size) for size in re.findall(r"(\d+) bytes smem", report)]
    assert max(shared, default=0) <= 48 * 1024  # what a block gets on any GPU without asking


def test_the_gpu_understands_every_shared_header(tmp_path, monkeypatch):
    """Also the maths that only CPU kernels use today."""
    include = compiler.source_folder() / "include"
    names = sorted(path.name for path in (include / "avatar3d").glob("*.h"))
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "all.cu").write_text(
        "".join(f'#include "avatar3d/{name}"\n' for name in names)
        + """
using namespace avatar3d;
extern "C" __global__ void all(const PinholeCamera* camera, const Gaussian<float>* g,
                               const float* v, Footprint<float>* f) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  f[i] = project(*camera, g[i]);
  f[i].x += log2_of(v[5]) + (float)make_triangle(v, v + 3, v + 6).lx[0];
}
"""
    )
    shutil.copytree(include, tmp_path / "include")
    monkeypatch.setattr(compiler, "source_folder", lambda: tmp_path)
    cubin, _ = compiler.compile_source("all.cu", "sm_80")
    assert b"all" in cubin


def test_all_sources_are_known():
    folder = compiler.source_folder() / "gpu"
    assert sorted(path.name for path in folder.glob("*.cu")) == sorted(compiler.SOURCES)


def test_an_unknown_architecture_is_one_clear_error():
    with pytest.raises(RuntimeError, match=r"NVRTC cannot compile ssim\.cu for sm_1"):
        compiler.compile_source("ssim.cu", "sm_1")


def test_a_second_run_compiles_nothing(cache):
    folder, compiled = cache
    first = compiler.build("ssim.cu", "sm_80")
    assert compiler.build("ssim.cu", "sm_80") == first
    assert compiled == ["ssim.cu"]
    assert len(list(folder.iterdir())) == 1
    compiler.build("ssim.cu", "sm_75")
    assert compiled == ["ssim.cu"] * 2


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 5000])
def test_a_damaged_entry_is_built_again(cache, damage):
    folder, compiled = cache
    first = compiler.build("ssim.cu", "sm_80")
    (path,) = folder.iterdir()
    good = path.read_bytes()
    path.write_bytes(damage)
    assert compiler.build("ssim.cu", "sm_80") == first
    assert path.read_bytes() == good
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert compiler.build("ssim.cu", "sm_80") == first
    assert len(compiled) == 3


def test_a_changed_header_is_compiled_again(cache, tmp_path, monkeypatch):
    folder, compiled = cache
    copy = tmp_path / "sources"
    shutil.copytree(compiler.source_folder(), copy, ignore=shutil.ignore_patterns("cpu"))
    monkeypatch.setattr(compiler, "source_folder", lambda: copy)
    compiler.build("ssim.cu", "sm_80")
    header = copy / "include" / "avatar3d" / "common.h"
    header.write_text(header.read_text() + "// another version\n")
    compiler.build("ssim.cu", "sm_80")
    assert len(compiled) == len(list(folder.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "cubins").write_text("a file where the folder should be")
    monkeypatch.setenv("AVATAR3D_CACHE", str(tmp_path))
    assert compiler.build("ssim.cu", "sm_80").startswith(b"\x7fELF")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_reason_is_told():
    assert availability.unusable(0)
