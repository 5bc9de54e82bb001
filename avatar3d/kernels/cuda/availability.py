"""Whether the kernels run on a GPU, found out by running one."""

from functools import cache

import torch

from avatar3d.kernels.cuda import modules
from avatar3d.kernels.cuda.adam import outer_adamw
from avatar3d.kernels.cuda.compiler import SOURCES

__all__ = ["unusable"]


@cache
def unusable(index: int) -> str:
    """Why the kernels cannot run on CUDA device `index`, or "" if they can.

    Compiles and loads all of them, and tries one, since driver, compiler and torch may each be of
    another CUDA version.
    """
    if not torch.cuda.is_available():
        lacks = "is built without CUDA" if torch.version.cuda is None else "sees no GPU"
        return f"torch {torch.__version__} {lacks}"
    device = torch.device("cuda", index)
    try:
        for source in SOURCES:
            modules.load(source, device)
        return "" if computes(device) else "a trial run gave wrong numbers"
    except Exception as error:  # whatever driver, compiler and loader may say
        reason = str(error).strip().splitlines() or [type(error).__name__]
        if isinstance(error, ImportError):
            return f"{reason[0]} (pip install 'avatar3d[gpu]')"
        return reason[0]


def computes(device: torch.device) -> bool:
    """Does a step of AdamW without a memory move every number by the learning rate?"""
    start = torch.arange(300.0, device=device).reshape(3, 100)
    parameter = start.clone()
    moments = torch.zeros_like(start), torch.zeros_like(start)
    rows = torch.tensor([[1.0, -2.0, 3.0]], device=device)
    weights = torch.linspace(1, 2, 100, device=device)[None]
    outer_adamw(parameter, *moments, rows, weights, 1, 0.5, 0.9, 0.99, 0.0, 0.0)
    moved = -0.5 * rows.sign().T.expand(3, 100)
    return bool((parameter - start - moved).abs().max() < 1e-3)
