"""Which of several implementations of the radiance field's operations runs."""

import importlib.util
from functools import cache
from typing import Literal, get_args

from torch import Tensor

from avatar3d.kernels._backend import use_native

__all__ = ["Implementation", "choose_implementation"]

Implementation = Literal["auto", "native", "tcnn", "torch"]


def choose_implementation(
    implementation: Implementation, operand: Tensor, misfit: str = ""
) -> Literal["native", "tcnn", "torch"]:
    """Resolve `implementation` for an operation on `operand`.

    Args:
        misfit: why tiny-cuda-nn cannot do it, "" if it can.

    Raises:
        ValueError: another word, or "tcnn" for what does not fit it.
        RuntimeError: what was asked for is not there.
    """
    if implementation not in get_args(Implementation):
        raise ValueError(
            f"implementation is {implementation!r}, expected 'auto', 'native', 'tcnn' or 'torch'."
        )
    if implementation == "torch":
        return "torch"
    if implementation == "tcnn":
        if misfit:
            raise ValueError(f"tiny-cuda-nn cannot do this: {misfit}.")
        if not _has_tcnn():
            raise RuntimeError("tiny-cuda-nn is not installed; take implementation='auto'.")
        return "tcnn"
    if implementation == "auto" and operand.device.type == "cuda" and not misfit and _has_tcnn():
        return "tcnn"
    return "native" if use_native(implementation, operand) else "torch"


@cache
def _has_tcnn() -> bool:
    return importlib.util.find_spec("tinycudann") is not None
