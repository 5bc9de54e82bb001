"""Speech features of HuBERT, wav2vec 2.0 and WavLM models, on the times of video frames.

The model is a folder on this machine, in the format of the package transformers: `config.json`,
`model.safetensors` and, where given, `preprocessor_config.json`. Nothing is downloaded, and no
other file of the folder is opened; older weights in pickled files are refused.
"""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.audio.files import SAMPLE_RATE, checked
from avatar3d.errors import UserError

__all__ = ["check_speech_model", "transformer_features"]

_CLASSES = {"hubert": "HubertModel", "wav2vec2": "Wav2Vec2Model", "wavlm": "WavLMModel"}
_CHUNK, _CONTEXT = 20.0, 1.0
"""Seconds whose features are kept of a run, and those heard around them; attention takes memory
with the square of the length."""


def transformer_features(
    samples: np.ndarray, fps: float, count: int, folder: str | os.PathLike[str]
) -> np.ndarray:
    """The last hidden layer around the moment i / fps of every frame i.

    A step of the model (20 ms) refers to the middle of what its convolutions have heard; between
    steps rows are interpolated linearly. Past the end of the sound there is silence.

    Args:
        samples: (N,) mono sound at 16 kHz.
        fps: video frames per second; count: number of frames T.
        folder: the model's.

    Returns:
        (T, C) float32.

    Raises:
        UserError: transformers is not installed, or the folder holds no such model.
    """
    import torch

    model, normalise = _load(Path(folder))
    stride, field = _steps(model.config)
    length = max(len(samples), round(count / fps * SAMPLE_RATE))
    front = stride + field // 2  # so that a step is centred on time 0, and one every 20 ms
    sound = np.zeros(front + length + field, np.float32)
    heard = checked(samples)
    sound[front : front + len(heard)] = _levelled(heard) if normalise else heard
    times = np.arange(count) / fps
    rows = []
    with torch.inference_mode():
        for start in np.arange(0, times[-1] + 1e-9, _CHUNK):
            inside = times[(times >= start) & (times < start + _CHUNK)]
            first = max(round((start - _CONTEXT) * SAMPLE_RATE / stride), -1)
            last = round((start + _CHUNK + _CONTEXT) * SAMPLE_RATE / stride)
            piece = sound[front - field // 2 + first * stride :][: (last - first) * stride + field]
            hidden = model(torch.from_numpy(piece)[None]).last_hidden_state[0].numpy()
            rows.append(_at(inside * SAMPLE_RATE / stride - first, hidden))
    return np.concatenate(rows).astype(np.float32)


def check_speech_model(folder: str | os.PathLike[str]) -> None:
    """Raise a UserError where `transformer_features` could not use the folder; loads nothing."""
    folder = Path(folder)
    config = _json(folder, "config.json")
    kind = config.get("model_type")
    if kind not in _CLASSES:
        raise UserError(
            f"The speech model {folder} is of the kind {kind!r}; give one of {', '.join(_CLASSES)}."
        )
    if not (folder / "model.safetensors").is_file():
        raise UserError(
            f"The speech model {folder} has no model.safetensors; download that file too, or save "
            "the model again with `save_pretrained`."
        )
    if find_spec("transformers") is None:
        raise UserError(
            "HuBERT and wav2vec models need the package transformers; run "
            "`pip install 'avatar3d[speech]'`."
        )


def _load(folder: Path) -> tuple[Any, bool]:
    """The model, and whether it wants sound of zero mean and unit variance."""
    check_speech_model(folder)
    import transformers

    name = _CLASSES[_json(folder, "config.json")["model_type"]]
    shown = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # the heads of other tasks are left out
    transformers.utils.logging.disable_progress_bar()
    try:
        kind = getattr(transformers, name)  # imports its module
        model = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except Exception as error:  # whatever a damaged file makes it raise
        raise UserError(
            f"The speech model {folder} cannot be loaded ({_first_line(error)}); download it again."
        ) from error
    finally:
        transformers.utils.logging.set_verbosity(shown)
    given = (folder / "preprocessor_config.json").is_file()
    options = _json(folder, "preprocessor_config.json") if given else {}
    return model.eval(), bool(options.get("do_normalize", True))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _levelled(samples: np.ndarray) -> np.ndarray:
    """Zero mean, unit variance, as the models' own extractor does it."""
    return (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)


def _steps(config: Any) -> tuple[int, int]:
    """Samples between two steps of the convolutions, and samples that one step hears."""
    stride, field = 1, 1
    for size, step in zip(config.conv_kernel, config.conv_stride, strict=True):
        field += (size - 1) * stride
        stride *= step
    return stride, field


def _at(places: np.ndarray, rows: np.ndarray) -> np.ndarray:
    places = np.clip(places, 0, len(rows) - 1)
    low = np.minimum(places.astype(int), max(len(rows) - 2, 0))
    share = (places - low)[:, None].astype(np.float32)
    return rows[low] * (1 - share) + rows[np.minimum(low + 1, len(rows) - 1)] * share


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{folder} is not the folder of a speech model: its {name} cannot be read."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{folder} is not the folder of a speech model: its {name} holds no names.")
    return content
