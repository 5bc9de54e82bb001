"""Colours as (red - green, green, blue - green): what is tinted apart from what is dark.

A box of RGB around a beige skin and its shadows holds saturated reds and greens too; a box in these
coordinates does not.
"""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["from_opponent", "to_opponent"]

Array = TypeVar("Array", np.ndarray, Tensor)


def to_opponent(color: Array) -> Array:
    """(..., 3) RGB to (red - green, green, blue - green); (0.5, 0.4, 0.3) to (0.1, 0.4, -0.1)."""
    red, green, blue = color[..., 0], color[..., 1], color[..., 2]
    return _stack(red - green, green, blue - green)


def from_opponent(color: Array) -> Array:
    """Inverse of `to_opponent`."""
    red, green, blue = color[..., 0], color[..., 1], color[..., 2]
    return _stack(red + green, green, blue + green)


def _stack(*columns: Array) -> Array:
    if isinstance(columns[0], Tensor):
        return torch.stack(columns, -1)
    return np.stack(columns, -1)
