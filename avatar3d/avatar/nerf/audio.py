"""From sound to the mouth of a field: rows for its warp, and what its code is made of."""

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar.nerf.groups import mouth_rows
from avatar3d.avatar.nerf.state import NerfState
from avatar3d.errors import UserError
from avatar3d.motion.audio_training import restored_amplitude

__all__ = ["FEATURES", "heard", "learn_to_hear", "silent", "spoken_weights"]

FEATURES = ("speech", "mel")
"""Names of the feature sets that may be heard, the best first."""
_TAPS = (-2, 0, 2)  # frames around each
_KNOWN = 16  # Z
_RIDGES = (3e1, 1e2, 3e2, 1e3, 3e3, 1e4)
_FOLDS = 5
_HIDDEN = 32


def learn_to_hear(
    features: dict[str, np.ndarray],
    weights: np.ndarray,
    frames: np.ndarray,
    code: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """The `audio_` arrays of a state from the sound of a clip, empty where it has none.

    A ridge regression to the mouth's rows, as strong as five blocks of the clip, each left out
    once, ask for. Of what it finds the strongest directions are kept, as wide as the mouth moves in
    them as far as they are known on the blocks left out.

    Args:
        features: of the clip's frames, see `avatar3d.audio.features`.
        weights: (T, E) expression weights of the frames.
        frames: indices of those that may be learnt from.
        code: C.

    Raises:
        UserError: features that are not finite.
    """
    name = next((name for name in FEATURES if name in features), None)
    rows = weights[:, mouth_rows(weights.shape[1])]
    if name is None or len(frames) < 2 * _FOLDS * _KNOWN:
        return silent(code, rows.shape[1])
    if not np.isfinite(features[name]).all():
        raise UserError(
            f"The audio features {name!r} have values that are not finite; run `avatar3d capture` "
            "again."
        )
    windows = _windows(features[name])
    mean = windows[frames].mean(0)
    spread = windows[frames].std(0) + 1e-3
    x, y = (windows[frames] - mean) / spread, rows[frames] - rows[frames].mean(0, dtype=np.float64)
    left_out = {ridge: _left_out(x, y, ridge) for ridge in _RIDGES}
    best = min(_RIDGES, key=lambda ridge: np.square(left_out[ridge] - y).sum())
    found = _ridge(x, y, best)
    _, _, directions = np.linalg.svd(x @ found, full_matrices=False)
    known = min(_KNOWN, len(directions))
    map_ = found @ directions[:known].T
    scale = (x @ map_).std(0) + 1e-6
    map_ = map_ / scale
    directions = directions[:known]
    gain = restored_amplitude(left_out[best] @ directions.T, y @ directions.T)
    back = np.concatenate([directions * (gain * scale)[:, None], rows[frames].mean(0)[None]])
    arrays = {
        "audio_map": map_ / spread[:, None],
        "audio_mean": mean,
        "audio_rows": back,
        "audio_0": rng.normal(0, (2 / known) ** 0.5, (_HIDDEN, known)),
        "audio_bias_0": np.zeros(_HIDDEN),
        "audio_1": rng.normal(0, 0.3 * _HIDDEN**-0.5, (code, _HIDDEN)),
        "audio_bias_1": np.zeros(code),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def silent(code: int, rows: int) -> dict[str, np.ndarray]:
    """The `audio_` arrays of a state that hears nothing."""
    shapes = {
        "audio_map": (0, 0), "audio_mean": (0,), "audio_rows": (1, rows), "audio_0": (0, 0),
        "audio_bias_0": (0,), "audio_1": (code, 0), "audio_bias_1": (code,),
    }  # fmt: skip
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def heard(state: NerfState, features: dict[str, np.ndarray]) -> np.ndarray:
    """(T, Z) what a state knows of sound, from the features of its frames.

    Raises:
        UserError: the state hears nothing, or the features are not those it learnt from.
    """
    if not state.hears:
        raise UserError(
            "This avatar was trained on a clip without speech, so sound cannot drive its field."
        )
    for name in FEATURES:
        if name in features and features[name].shape[1] * len(_TAPS) == len(state.audio_map):
            rows = features[name]
            if not np.isfinite(rows).all():
                raise UserError(f"The audio features {name!r} have values that are not finite.")
            return ((_windows(rows) - state.audio_mean) @ state.audio_map).astype(np.float32)
    raise UserError("The sound's features are not those that this avatar's field learnt from.")


def spoken_weights(state: NerfState, known: Tensor, weights: Tensor) -> Tensor:
    """Expression weights (..., E), the mouth's replaced by what the sound (..., Z) says of them."""
    map_ = torch.as_tensor(state.audio_rows, dtype=torch.float32, device=weights.device)
    rows = torch.as_tensor(mouth_rows(weights.shape[-1]), device=weights.device)
    said = (known @ map_[:-1] + map_[-1]).clamp(0, 1)
    return weights.index_copy(-1, rows, said)


def _windows(rows: np.ndarray) -> np.ndarray:
    """(T, C * taps) rows around each frame, side by side."""
    place = np.arange(len(rows))
    blocks = [rows[(place + tap).clip(0, len(rows) - 1)] for tap in _TAPS]
    return np.concatenate(blocks, 1).astype(np.float64)


def _ridge(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """(C, M) in the dual, as there are more columns than rows."""
    gram = x @ x.T
    solved = torch.linalg.solve(
        torch.from_numpy(gram + ridge * np.eye(len(gram))), torch.from_numpy(y)
    )
    return x.T @ solved.numpy()


def _left_out(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """(T, M) what is found for each fifth, learnt from the others."""
    found = np.empty_like(y, np.float64)
    for part in np.array_split(np.arange(len(x)), _FOLDS):
        others = np.setdiff1d(np.arange(len(x)), part)
        found[part] = x[part] @ _ridge(x[others], y[others], ridge)
    return found
