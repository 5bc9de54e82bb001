"""FLAME 2020 and 2023 (licence of the user, https://flame.is.tue.mpg.de) as a `HeadModel`.

The file is the user's own `generic_model.pkl` or `flame2023.pkl`; it is read without unpickling.
FLAME has no teeth, tongue or texture coordinates: the inside of the mouth is that of the default
head.
"""

from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.model import HeadModel
from avatar3d.head.sources.foreign import Embed, ForeignHead, adapt
from avatar3d.head.sources.pickled import read_pickled_arrays

__all__ = ["from_pickle"]

_SHAPES, _IDENTITY, _EXPRESSIONS = 300, 100, 100
_NECK, _JAW, _LEFT_EYE, _RIGHT_EYE = 1, 2, 3, 4
_JOINTS = 5
_OPEN, _SIDEWAYS = 0.25, 0.10  # radians


def from_pickle(path: str | Path, default: HeadModel, embed: Embed) -> HeadModel:
    """Build the head from a FLAME file.

    Args:
        path: a pickled dictionary of `v_template` (5023, 3) metres, `f` (9976, 3), `shapedirs`
            (5023, 3, 300 shapes + 100 expressions), `posedirs` (5023, 3, 36), `J_regressor`
            (5, 5023), `weights` (5023, 5) and `kintree_table` (2, 5).
        default: the head that shows what the ARKit names mean; embed: finds landmarks.

    Raises:
        UserError: not such a file.
    """
    data = read_pickled_arrays(path)
    try:
        return adapt(_head(data), default, embed)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} is not a FLAME model ({error}); give generic_model.pkl of FLAME 2020 or 2023."
        ) from error


def _head(data: dict[str, Any]) -> ForeignHead:
    template, faces = _floats(data, "v_template"), _floats(data, "f").astype(int)
    shapes, joints = _floats(data, "shapedirs"), _floats(data, "J_regressor")
    weights, correctives = _floats(data, "weights"), _floats(data, "posedirs")
    count = len(template)
    expected = {
        "v_template": (template, (count, 3)), "f": (faces, (len(faces), 3)),
        "J_regressor": (joints, (_JOINTS, count)), "weights": (weights, (count, _JOINTS)),
        "posedirs": (correctives, (count, 3, 9 * (_JOINTS - 1))),
        "shapedirs": (shapes, (count, 3, shapes.shape[-1])),
    }  # fmt: skip
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    if shapes.shape[-1] <= _SHAPES or not 0 <= faces.min() <= faces.max() < count:
        raise ValueError("shapedirs or f are not FLAME's")
    modes = shapes.transpose(2, 0, 1)
    identity = modes[:_IDENTITY]
    owner = weights.argmax(1)
    left, right = _LEFT_EYE, _RIGHT_EYE
    centers = joints @ template
    if centers[left, 0] < centers[right, 0]:
        left, right = right, left
    eye = np.where(owner == left, 1, np.where(owner == right, 2, 0))
    parents = _floats(data, "kintree_table").astype(np.int64)[0] if "kintree_table" in data else []
    turned = [
        _posed(template, centers, weights, correctives, parents, angles) - template
        for angles in ((_OPEN, 0, 0), (0, _SIDEWAYS, 0), (0, -_SIDEWAYS, 0))
    ]
    return ForeignHead(
        name="flame",
        vertices=template,
        faces=faces,
        identity=identity,
        expression=modes[_SHAPES : _SHAPES + _EXPRESSIONS],
        poses=np.stack(turned),
        torso_weight=np.clip(weights[:, 0], 0, 1),
        eye=eye,
        eye_centers=centers[[left, right]],
        eye_centers_identity=np.einsum("jv,ivk->ijk", joints[[left, right]], identity),
        uv=None,
        uv_faces=None,
        part=np.full(count, 255, np.uint8),
    )


def _posed(
    template: np.ndarray, centers: np.ndarray, weights: np.ndarray, correctives: np.ndarray,
    parents: Any, angles: tuple[float, float, float],
) -> np.ndarray:  # fmt: skip
    """(V, 3) with the jaw turned: pose correctives, then linear blend skinning."""
    from scipy.spatial.transform import Rotation

    if len(parents) == _JOINTS and parents[_JAW] != _NECK:
        raise ValueError("the jaw does not hang on the neck")
    turn = Rotation.from_rotvec(angles).as_matrix()
    features = np.zeros((_JOINTS - 1, 9))
    features[_JAW - 1] = (turn - np.eye(3)).ravel()
    shaped = template + correctives @ features.ravel()
    about_jaw = (shaped - centers[_JAW]) @ turn.T + centers[_JAW]
    share = weights[:, _JAW, None]
    return (1 - share) * shaped + share * about_jaw


def _floats(data: dict[str, Any], name: str) -> np.ndarray:
    array = data[name]
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is no array")
    result = np.asarray(array, np.float64)
    if not np.isfinite(result).all():
        raise ValueError(f"{name} has values that are not finite")
    return result
