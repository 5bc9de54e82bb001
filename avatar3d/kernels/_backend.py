"""Which implementation runs, on how many threads; and the checks that all operations share."""

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from avatar3d.kernels import cuda

__all__ = [
    "Backend",
    "arrays",
    "backend_info",
    "check_devices",
    "check_tensor",
    "get_num_threads",
    "native",
    "set_num_threads",
    "torch_on_one_thread",
    "use_native",
    "warn_once",
]

Backend = Literal["auto", "native", "reference"]


@cache
def _load() -> tuple[ModuleType | None, str]:
    try:
        module = importlib.import_module("avatar3d.kernels._native")
    except ImportError as error:
        return None, str(error)
    module.set_threads(torch.get_num_threads())
    return module, ""


@cache
def warn_once(message: str) -> None:
    """Warn of a slower way taken, the first time that it is."""
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def native() -> Any:
    """The compiled module. Raises RuntimeError if it was not built."""
    module, reason = _load()
    if module is None:
        raise RuntimeError(f"avatar3d's native kernels are not available: {reason}.")
    return module


def use_native(backend: Backend, operand: Any = None) -> bool:
    """Resolve `backend` where `operand`, the first tensor of an operation, is; None: on the CPU.

    Raises:
        ValueError: another word.
        RuntimeError: "native", but the kernels cannot run there.
    """
    if backend not in ("auto", "native", "reference"):
        raise ValueError(f"backend is {backend!r}, expected 'auto', 'native' or 'reference'.")
    if backend == "reference":
        return False
    device = operand.device if isinstance(operand, Tensor) else torch.device("cpu")
    if device.type == "cpu":
        kernels, reason = "native kernels", _load()[1]
        remedy = "hundreds of times slower. Reinstall avatar3d with a C++ compiler present."
    else:
        kernels, reason = "CUDA kernels", _cuda_reason(device)
        remedy = "several times slower; `avatar3d doctor` says more."
    if not reason:
        return True
    if backend == "native":
        raise RuntimeError(f"avatar3d's {kernels} are not available: {reason}.")
    warn_once(
        f"avatar3d's {kernels} are not available ({reason}); the torch reference runs instead, "
        + remedy
    )
    return False


def _cuda_reason(device: torch.device) -> str:
    if device.type != "cuda":
        return f"there are none for {device.type!r}"
    return cuda.unusable(torch.cuda.current_device() if device.index is None else device.index)


def arrays(tensors: Sequence[Tensor | None]) -> list[np.ndarray | None]:
    """What the native module takes: contiguous views of CPU tensors. As tensors they would cost
    five times as long to pass, some 0.2 ms of a training step."""
    return [None if t is None else t.detach().contiguous().numpy() for t in tensors]


def set_num_threads(threads: int) -> None:
    """Threads of the native kernels (at least 1). Starts as torch.get_num_threads()."""
    if threads < 1:
        raise ValueError(f"threads is {threads}, expected at least 1.")
    if (module := _load()[0]) is not None:
        module.set_threads(threads)


def get_num_threads() -> int:
    """Threads of the native kernels; 1 where they are missing."""
    module = _load()[0]
    return int(module.threads()) if module is not None else 1


@contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """Let torch work alone between native kernels, which keep their threads.

    Around them torch is left with small operations; waking a second thread for one takes longer
    than the thread saves.
    """
    get_num_threads()  # the kernels take their number from torch when first used
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def backend_info() -> dict[str, Any]:
    """What the kernels run on, for `avatar3d doctor`.

    Returns:
        native (bool), reason (why not, or ""), simd ("avx512", "avx2", "plain" or ""),
        simd_available (list, fastest first), threads, compiler; all of the CPU's kernels.
    """
    module, reason = _load()
    if module is None:
        return {
            "native": False, "reason": reason, "simd": "", "simd_available": [], "threads": 1,
            "compiler": "",
        }  # fmt: skip
    return {
        "native": True,
        "reason": "",
        "simd": module.simd(),
        "simd_available": module.simd_levels(),
        "threads": module.threads(),
        "compiler": module.compiler(),
    }


def check_tensor(
    name: str, value: Any, shape: tuple[int | None, ...], *, float32: bool, form: str
) -> None:
    """Raise ValueError unless `value` is a tensor of `shape` (None: any length).

    Args:
        name: the argument's name, for the message.
        float32: also require float32, which the native kernels need; otherwise any floating dtype
            will do.
        form: the expected shape in words, e.g. "(N, 3)".
    """
    if not isinstance(value, Tensor):
        kind = "a numpy array" if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{name} is {kind}, expected a torch tensor of shape {form}.")
    sizes = tuple(value.shape)
    if len(sizes) != len(shape) or any(
        want is not None and have != want for have, want in zip(sizes, shape, strict=True)
    ):
        raise ValueError(f"{name} has shape {sizes}, expected {form}.")
    if float32 and value.dtype != torch.float32:
        raise ValueError(f"{name} has dtype {value.dtype}, expected torch.float32 {form}.")
    if not value.dtype.is_floating_point:
        raise ValueError(f"{name} has dtype {value.dtype}, expected floating point {form}.")


def check_devices(**tensors: Tensor | None) -> None:
    """Raise ValueError unless all tensors are where the first one is."""
    first, *others = ((name, t) for name, t in tensors.items() if t is not None)
    for name, tensor in others:
        if tensor.device != first[1].device:
            raise ValueError(
                f"{name} is on {tensor.device}, expected {first[1].device}, where {first[0]} is."
            )
