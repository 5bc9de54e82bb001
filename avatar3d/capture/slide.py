"""How detected landmarks slide over the skin, as measured on renderings of known heads.

A detector draws what it sees towards the faces it was trained on, so its landmarks follow a turn
of the head only in part. A fit that takes them for fixed points of the skin turns the head too
little. `landmark_slide.npz` was measured by `tools/measure_slide.py` for both of mediapipe's
landmark models. How landmarks answer to expressions was measured too and is left out: it differs
between renderings and real faces, whose re-rendering became worse with it.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
import torch
from torch import Tensor

__all__ = ["DATA", "TURNS", "Slide", "load_slide", "turn_terms"]

DATA = "landmark_slide.npz"
TURNS = 5
"""Number of `turn_terms`."""
_DEFAULT_HEAD = "anny"
_YAW, _PITCH = 0.6, 0.4  # radians, as far as it was measured


@dataclass(frozen=True)
class Slide:
    """Displacements from points of the skin to the landmarks detected there, in the head frame.

    Attributes:
        rest: (478, 3) metres, seen from the front.
        turn: (5, 478, 3) metres for each of `turn_terms`.
    """

    rest: np.ndarray
    turn: np.ndarray


def turn_terms(rotation: Tensor) -> Tensor:
    """(T, 5) of T_camera_head rotations (T, 3, 3): yaw, pitch, their squares and product."""
    yaw = torch.atan2(rotation[:, 0, 2], -rotation[:, 2, 2]).clamp(-_YAW, _YAW)
    pitch = torch.asin((-rotation[:, 1, 2]).clamp(-1, 1)).clamp(-_PITCH, _PITCH)
    return torch.stack([yaw, pitch, yaw * yaw, pitch * pitch, yaw * pitch], 1)


@lru_cache(maxsize=4)
def load_slide(detector: str, head: str) -> Slide | None:
    """What was measured for a detector; None if nothing was.

    Args:
        detector: name of a `DetectorChoice`, whose first word tells.
        head: name of the head model. Where landmarks rest was measured on the default one only;
            those of another were found on itself.
    """
    kind = detector.split()[0]
    source = resources.files("avatar3d.capture").joinpath(DATA)
    with source.open("rb") as handle, np.load(handle, allow_pickle=False) as data:
        if f"{kind}_rest" not in data:
            return None
        rest, turn = (data[f"{kind}_{name}"].astype(np.float32) for name in ("rest", "turn"))
    return Slide(rest if head == _DEFAULT_HEAD else np.zeros_like(rest), turn)
