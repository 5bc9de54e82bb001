"""An `AudioDriver` from untrusted arrays."""

from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.motion.audio_driver import KNOTS, OFFSETS, AudioDriver
from avatar3d.motion.lips import LipSpace
from avatar3d.motion.mouth_shapes import MouthShapes
from avatar3d.motion.universal import UniversalDriver

__all__ = ["driver_from_arrays"]

_LIMITS = {"C": 4096, "K": 64, "M": 1024, "P": 478, "R": 1024}
_SHAPES: dict[str, tuple[str | int, ...]] = {
    "mean": ("C",), "std": ("C",), "map": ("CT", "K"), "bias": ("K",), "slope": ("K",),
    "middle": ("K",), "gain": ("K",), "spread": ("K",), "gap_predicted": (KNOTS,),
    "gap_wanted": (KNOTS,), "residual_count": (), "lead": (),
    "lips.rows": ("M",), "lips.neutral": ("P", 3), "lips.effect": ("M", "P3"),
    "shapes.center": ("P3",), "shapes.basis": ("K", "P3"), "shapes.read": ("K", "P3"),
    "shapes.start": ("M",), "shapes.blend": ("K", "M"), "shapes.deviation": ("M",),
    "shapes.rest": ("M",), "shapes.rest_shape": ("P3",),
}  # fmt: skip


def driver_from_arrays(arrays: dict[str, np.ndarray]) -> AudioDriver:
    """See `AudioDriver.from_arrays`."""
    sizes = _sizes(arrays)
    values: dict[str, Any] = {}
    for name, symbols in _SHAPES.items():
        shape = tuple(s if isinstance(s, int) else sizes[s] for s in symbols)
        array = arrays.get(name)
        if array is None or array.shape != shape or not np.isfinite(array).all():
            raise _damaged(name)
        values[name] = np.asarray(array, np.float32)
    rows = np.round(values["lips.rows"]).astype(int)
    residual = int(values["residual_count"])
    within = 0 <= residual <= _LIMITS["R"] and rows.min() >= 0 and rows.max() < 52 + residual
    if not within or len(set(rows.tolist())) != len(rows):
        raise _damaged("lips.rows")
    if (np.diff(values["gap_predicted"]) < 0).any() or (values["std"] < 0).any():
        raise _damaged("gap_predicted")
    own = {name: value for name, value in values.items() if "." not in name}
    own |= {"residual_count": residual, "lead": float(values["lead"])}
    if sizes["C"] <= 560 or abs(own["lead"]) > 1:
        raise _damaged("lead")
    return AudioDriver(
        universal=UniversalDriver.from_arrays(_part(arrays, "universal")),
        lips=LipSpace(**{**_part(values, "lips"), "rows": rows}),
        shapes=MouthShapes(**_part(values, "shapes")),
        **own,
    )


def _sizes(arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """C, K, M and P as the arrays claim them, within limits."""
    sizes = {}
    for symbol, name in (("C", "mean"), ("K", "bias"), ("M", "lips.rows"), ("P", "lips.neutral")):
        array = arrays.get(name)
        if array is None or array.ndim < 1 or not 1 <= len(array) <= _LIMITS[symbol]:
            raise _damaged(name)
        sizes[symbol] = len(array)
    return {**sizes, "CT": sizes["C"] * len(OFFSETS), "P3": sizes["P"] * 3}


def _part(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    start = prefix + "."
    return {name[len(start) :]: value for name, value in values.items() if name.startswith(start)}


def _damaged(name: str) -> UserError:
    return UserError(f"The audio driver of this avatar is damaged at {name!r}; train it again.")
