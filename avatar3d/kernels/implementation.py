"""Which of several implementations of the radiance field's operations runs."""

from typing import Literal, get_args

from torch import Tensor

__all__ = ["Implementation", "use_kernels"]

Implementation = Literal["auto", "native", "tcnn", "torch"]


def use_kernels(implementation: Implementation, operand: Tensor) -> str:
    """ "native", "tcnn" or "torch", for an operation on `operand`."""
    if implementation not in get_args(Implementation):
        raise ValueError(
            f"implementation is {implementation!r}, expected 'auto', 'native', 'tcnn' or 'torch'."
        )
    return "torch"
