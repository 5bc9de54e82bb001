"""Arrays as few bytes: rounded to steps nobody sees, in planes of bytes that deflate well.

A float array becomes `NAME.step`, the rounding step (broadcast against the array), and
`NAME.planes`, the rounded integers as unsigned bytes: plane b of (B, *shape) holds byte b, lowest
first, of the B-byte numbers 0, 1, 2, 3, 4 ... that stand for 0, -1, 1, -2, 2 ... Bytes of like
weight resemble each other, and high ones are mostly 0, so that deflate takes a third off. An
integer array has no step. What is not listed in `STEPS` stays as it is.
"""

from collections.abc import Mapping

import numpy as np

from avatar3d.avatar.deform import BASIS_UNITS

__all__ = ["STEPS", "pack", "scaled", "unpack"]

STEPS: dict[str, np.ndarray] = {
    name: np.asarray(step, np.float32)
    for name, step in {
        "vertices": 1e-6,  # metres
        "expression": 1e-5,  # metres at a weight of 1; a fiftieth of a pixel
        "torso_weight": 1e-4,
        "bary": 1e-4,
        "position": 5e-6,
        "quat": 2e-3,
        "log_scale": 1e-2,
        "opacity": 2e-2,
        "color": 1e-3,
        # Times a blendshape weight around 1: 0.1 mm, 0.5 degrees, an 8-bit step of colour.
        "basis": np.array(BASIS_UNITS)[:, None] * 8e-3,
        # Of a field.
        "skin": 4e-3,
        "table": 1e-3,
        "attention": 2e-2,
        # Tracks of a motion.
        "residual": 1e-4,
        "gaze": 1e-4,
        "head_pose": 1e-6,
        "torso_pose": 1e-6,
    }.items()
}
"""Rounding steps by name, in the units of `SplatState`, `NerfState` and `Motion`."""


def pack(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Round the arrays named in `STEPS`, and split these and all 32-bit integers into planes."""
    packed = {}
    for name, array in arrays.items():
        if name in STEPS:
            packed[f"{name}.step"] = STEPS[name]
            packed[f"{name}.planes"] = _planes(np.round(array / STEPS[name]))
        elif array.dtype == np.int32:
            packed[f"{name}.planes"] = _planes(array)
        else:
            packed[name] = np.array(array, order="C")
    return packed


def unpack(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inverse of `pack`, up to half a step; float32 and int32.

    Raises:
        ValueError: planes that no `pack` has written.
    """
    result = {}
    for name, array in arrays.items():
        field, _, kind = name.rpartition(".")
        if kind == "planes":
            whole = _whole(array)
            step = arrays.get(f"{field}.step")
            result[field] = whole if step is None else scaled(whole, step)
        elif kind != "step":
            result[name] = array
    return result


def scaled(whole: np.ndarray, step: np.ndarray) -> np.ndarray:
    """`whole` times `step` in float32; `step` may not make the array any larger."""
    if step.dtype != np.float32 or np.broadcast_shapes(whole.shape, step.shape) != whole.shape:
        raise ValueError(f"steps of shape {step.shape} for an array of {whole.shape}")
    return (whole * step).astype(np.float32)


def _planes(values: np.ndarray) -> np.ndarray:
    if not (np.abs(values.astype(np.float64)) <= 1 << 31).all():  # not-a-numbers too
        raise ValueError("numbers beyond 32 bits cannot be packed")
    signed = values.astype(np.int64)
    folded = (signed << 1) ^ (signed >> 63)
    largest = int(folded.max(initial=0))
    size = 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4
    unsigned = np.array(folded, dtype=f"<u{size}", order="C")
    return np.ascontiguousarray(np.moveaxis(unsigned[..., None].view(np.uint8), -1, 0))


def _whole(planes: np.ndarray) -> np.ndarray:
    if planes.dtype != np.uint8 or planes.ndim < 1 or planes.shape[0] not in (1, 2, 4):
        raise ValueError(f"planes of shape {planes.shape} and type {planes.dtype}")
    unsigned = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view(f"<u{planes.shape[0]}")
    unsigned = unsigned[..., 0].astype(np.uint32)
    return (unsigned >> 1).astype(np.int32) ^ -(unsigned & 1).astype(np.int32)
