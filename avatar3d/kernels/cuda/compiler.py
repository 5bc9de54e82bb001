"""CUDA sources to machine code by NVRTC, without a toolkit or a GPU; cached on disk."""

import hashlib
import io
from functools import cache
from pathlib import Path

from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_write
from avatar3d.io.cache import cache_folder

__all__ = ["SOURCES", "build", "compile_source", "nvrtc_version", "source_folder"]

SOURCES = ("adam.cu", "binding.cu", "hashgrid.cu", "mlp.cu", "rays.cu", "ssim.cu")
_STANDARD = "c++17"
_DIGEST_BYTES = hashlib.sha256().digest_size


@cache
def source_folder() -> Path:
    """The folder with gpu/ and include/. Raises UserError if it was not installed."""
    package = Path(__file__).parents[2]
    for folder in (package / "cuda", package.parent / "cuda"):  # installed, source tree
        if (folder / "gpu" / SOURCES[0]).is_file():
            return folder
    raise UserError(f"The CUDA sources are missing from {package}; install avatar3d again.")


@cache
def nvrtc_version() -> str:
    """Version of the NVRTC library, e.g. "13.0". Raises ImportError or RuntimeError without one."""
    from cuda.bindings import nvrtc

    status, major, minor = nvrtc.nvrtcVersion()
    if int(status) != 0:
        raise RuntimeError(f"NVRTC does not answer ({status}).")
    return f"{major}.{minor}"


def compile_source(source: str, arch: str) -> tuple[bytes, str]:
    """Compile one of SOURCES for an architecture such as "sm_90".

    Returns:
        The cubin and ptxas's report: registers, spills and shared memory of each kernel.

    Raises:
        ImportError: cuda-core or NVRTC is not installed.
        RuntimeError: it does not compile, or this NVRTC does not know the architecture.
    """
    from cuda.core import Program, ProgramOptions

    folder = source_folder()
    options = ProgramOptions(
        name=source,
        arch=arch,
        std=_STANDARD,
        include_path=[str(folder / "include")],
        ptxas_options=["-v"],
    )
    log = io.StringIO()
    text = (folder / "gpu" / source).read_text("utf-8")
    try:
        code = Program(text, "c++", options).compile("cubin", logs=log).code
    except ImportError:
        raise
    except Exception as error:  # cuda-core has its own classes, which change with its version
        raise RuntimeError(f"NVRTC cannot compile {source} for {arch}: {error}") from error
    return bytes(code), log.getvalue()


def build(source: str, arch: str) -> bytes:
    """The cubin of `source`, from the cache if it is there and whole, otherwise compiled into it.

    Raises:
        As `compile_source`. A cache that cannot be written is no error, only slower next time.
    """
    path = cache_folder() / "cubins" / f"{Path(source).stem}-{arch}-{_key(source, arch)}.bin"
    try:
        stored = path.read_bytes()
    except OSError:
        stored = b""
    digest, cubin = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
    if cubin and hashlib.sha256(cubin).digest() == digest:
        return cubin
    cubin, _ = compile_source(source, arch)
    try:
        atomic_write(path, hashlib.sha256(cubin).digest() + cubin)
    except UserError:
        return cubin
    return cubin


def _key(source: str, arch: str) -> str:
    """Hash of everything that the cubin depends on."""
    folder = source_folder()
    digest = hashlib.sha256(f"{source} {arch} {_STANDARD} {nvrtc_version()}".encode())
    for path in (folder / "gpu" / source, *sorted((folder / "include").rglob("*.h"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]
