"""The compact form of a splat avatar that travels inside the HTML viewer.

A JSON header describes named arrays inside one gzipped block of bytes. Every array is stored as it
is or quantised with a step per last-axis column: `value = stored * scale[column] + zero[column]`.
`viewer/web/data.js` is the reader that counts; `decode_state` is its twin in Python.
"""

import gzip
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from avatar3d.avatar.state import SplatState
from avatar3d.avatar.torso import predict_torso, rigid_to_vectors
from avatar3d.errors import UserError
from avatar3d.motion.motion import Motion

__all__ = ["VERSION", "Payload", "decode_state", "encode_motion", "encode_state"]

VERSION = 2
BASIS_GROUPS = (slice(0, 3), slice(3, 7), slice(7, 10))
"""Rows of the blendshape basis that share a step per Gaussian: position, quat, color."""

_INVISIBLE = 2e-6
"""Metres; smaller displacements of a vertex by an expression are dropped."""
_AS_IS = (
    "vertices", "torso_weight", "eye", "eye_centers", "face", "part", "position", "map", "mean",
    "bias", "torso_map", "torso_limit", "signal_min", "signal_max",
)  # fmt: skip
_QUANTISED = ("bary", "quat", "log_scale", "opacity", "color")


@dataclass
class Payload:
    """Named arrays on their way into a page.

    Attributes:
        arrays: name to {dtype, shape, start, scale?, zero?}; `start` counts bytes.
        blocks: the bytes of the arrays, each padded to four.
    """

    arrays: dict[str, dict[str, Any]] = field(default_factory=dict)
    blocks: list[bytes] = field(default_factory=list)
    _size: int = 0

    def add(self, name: str, array: np.ndarray) -> None:
        """Store an array in single precision or as the integers it holds."""
        if array.dtype.kind == "f":
            array = array.astype("<f4")
        self._append(name, array)

    def add_quantised(self, name: str, array: np.ndarray, dtype: str = "<u2") -> None:
        """Store floats as unsigned integers between the extremes of each last-axis column."""
        columns = array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1).astype(np.float64)
        low = columns.min(0, initial=np.inf) if len(columns) else np.zeros(columns.shape[1])
        high = columns.max(0, initial=-np.inf) if len(columns) else low
        steps = np.iinfo(dtype).max
        scale = np.where(high > low, (high - low) / steps, 1.0)
        stored = np.rint((columns - low) / scale).astype(dtype).reshape(array.shape)
        self.add_steps(name, stored, scale, low)

    def add_steps(self, name: str, stored: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> None:
        """Store integers whose column c means `stored * scale[c] + zero[c]`."""
        self._append(name, stored, scale=scale.tolist(), zero=zero.tolist())

    def compressed(self) -> bytes:
        """All blocks, gzipped; the same input gives the same bytes."""
        return gzip.compress(b"".join(self.blocks), compresslevel=9, mtime=0)

    @property
    def size(self) -> int:
        """Bytes before compression."""
        return self._size

    def _append(self, name: str, array: np.ndarray, **extra: Any) -> None:
        array = np.ascontiguousarray(array)
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        data += bytes(-len(data) % 4)
        self.arrays[name] = {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "start": self._size,
            **extra,
        }
        self.blocks.append(data)
        self._size += len(data)


def encode_state(state: SplatState, payload: Payload) -> dict[str, Any]:
    """Put `state` into `payload`; return what the header says about it."""
    for name in _AS_IS:
        array = getattr(state, name)
        payload.add(name, array.astype(np.int32) if name == "face" else array)
    for name in _QUANTISED:
        payload.add_quantised(name, getattr(state, name))
    small = len(state.vertices) <= np.iinfo(np.uint16).max
    payload.add("faces", state.faces.astype(np.uint16 if small else np.int32))
    _encode_expression(state.expression, payload)
    _encode_basis(state.basis, payload)
    return {
        "limit": float(state.limit),
        "camera": {
            "width": int(state.size[0]),
            "height": int(state.size[1]),
            "K": np.asarray(state.K_matrix, float).tolist(),
            "T_camera_rest": np.asarray(state.T_camera_rest, float).tolist(),
        },
    }


def encode_motion(motion: Motion, state: SplatState, payload: Payload) -> dict[str, Any]:
    """Put `motion` into `payload` with every track filled in; return its part of the header.

    Poses are stored as (T, 6) vectors: rotation vector in radians, translation in metres.
    """
    frames, rows = len(motion), len(state.expression)
    weights = np.zeros((frames, rows), np.float32)
    if motion.expression is not None:
        weights[:, :52] = motion.expression
    if motion.residual is not None and motion.residual.shape[1] == rows - 52:
        weights[:, 52:] = motion.residual
    head = _identity_if_none(motion.head_pose, frames)
    if motion.torso_pose is None:
        torso = predict_torso(head, state.torso_map, state.torso_limit, motion.fps)
    else:
        torso = motion.torso_pose
    gaze = np.zeros((frames, 2, 2)) if motion.gaze is None else motion.gaze
    payload.add_quantised("motion_weights", weights)
    payload.add("motion_head", rigid_to_vectors(head))
    payload.add("motion_torso", rigid_to_vectors(torso))
    payload.add("motion_gaze", gaze.reshape(frames, 4))
    return {"fps": motion.fps, "frames": frames}


def decode_state(header: dict[str, Any], compressed: bytes) -> SplatState:
    """Inverse of `encode_state` up to quantisation. `header` also holds `arrays`."""
    data = gzip.decompress(compressed)
    arrays = {name: _read(entry, data) for name, entry in header["arrays"].items()}
    fields = {name: arrays[name] for name in (*_AS_IS, *_QUANTISED)}
    starts, rows = arrays["expression_start"], len(arrays["expression_scale"])
    expression = np.zeros((rows, len(arrays["vertices"]), 3), np.float32)
    for row in range(rows):
        span = slice(starts[row], starts[row + 1])
        moved = arrays["expression_value"][span] * arrays["expression_scale"][row]
        expression[row, arrays["expression_index"][span]] = moved
    basis = arrays["basis"].astype(np.float32)
    for group, rows_of_group in enumerate(BASIS_GROUPS):
        basis[:, rows_of_group] *= arrays["basis_scale"][:, group, None, None]
    camera = header["camera"]
    return SplatState(
        **fields,
        faces=arrays["faces"].astype(np.int32),
        expression=expression,
        basis=basis,
        limit=np.array(header["limit"], np.float32),
        T_camera_rest=np.array(camera["T_camera_rest"]),
        K_matrix=np.array(camera["K"]),
        size=np.array([camera["width"], camera["height"]]),
    )


def _encode_expression(expression: np.ndarray, payload: Payload) -> None:
    """Sparse rows: the vertices that move, and their displacement in steps of the row's scale."""
    moving = [np.flatnonzero(np.abs(row).max(1) > _INVISIBLE) for row in expression]
    scales = np.array([np.abs(row).max(initial=0) / 32767 or 1.0 for row in expression])
    values = [np.rint(r[m] / s) for r, m, s in zip(expression, moving, scales, strict=True)]
    starts = np.cumsum([0, *map(len, moving)]).astype(np.uint32)
    index = np.concatenate([np.zeros(0, int), *moving])
    small = expression.shape[1] <= np.iinfo(np.uint16).max
    payload.add("expression_start", starts)
    payload.add("expression_index", index.astype(np.uint16 if small else np.uint32))
    stored = np.concatenate([np.zeros((0, 3)), *values])
    payload.add("expression_value", stored.astype(np.int16))
    payload.add("expression_scale", scales)


def _encode_basis(basis: np.ndarray, payload: Payload) -> None:
    """Eight bits with a step per Gaussian and group of attributes."""
    steps = [np.abs(basis[:, rows]).max((1, 2), initial=0) / 127 for rows in BASIS_GROUPS]
    scale = np.stack(steps, axis=1)
    # Rounded up to what the reader will see, so that no value leaves the eight bits.
    top = scale.max(initial=0) / 65535 or 1.0
    scale = np.ceil(scale / top)
    stored = np.zeros(basis.shape, np.int8)
    for group, rows in enumerate(BASIS_GROUPS):
        step = np.maximum(scale[:, group], 1)[:, None, None] * top
        stored[:, rows] = np.rint(basis[:, rows] / step)
    payload.add("basis", stored)
    payload.add_steps("basis_scale", scale.astype(np.uint16), np.full(3, top), np.zeros(3))


def _read(entry: dict[str, Any], data: bytes) -> np.ndarray:
    dtype, shape = np.dtype(entry["dtype"]), entry["shape"]
    count = int(np.prod(shape))
    if entry["start"] + count * dtype.itemsize > len(data):
        raise UserError("The viewer file is damaged: an array ends outside its data; export again.")
    array = np.frombuffer(data, dtype, count, entry["start"]).reshape(shape)
    if "scale" not in entry:
        return array
    return (array * np.array(entry["scale"]) + np.array(entry["zero"])).astype(np.float32)


def _identity_if_none(pose: np.ndarray | None, frames: int) -> np.ndarray:
    return np.tile(np.eye(4), (frames, 1, 1)) if pose is None else pose
