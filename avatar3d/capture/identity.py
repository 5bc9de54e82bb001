"""Who a face belongs to: 128 numbers that are alike for pictures of one person.

The network is dlib's face recognition ResNet (CC0; 99.4 % on LFW) in the 8-bit form that the npm
package @vladmandic/face-api carries. Two aligned faces of one person are usually less than 0.6
apart, those of two people more.
"""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from avatar3d import assets
from avatar3d.errors import UserError

__all__ = ["FaceIdentity", "load_identity"]

_SIDE = 150
_MEAN_RGB = (122.782, 117.001, 104.298)
_ANCHORS = (263, 362, 33, 133, 2)
_ANCHOR_PLACES = np.array(
    [(0.8596, 0.2135), (0.6461, 0.2290), (0.1206, 0.2137), (0.3341, 0.2291), (0.4901, 0.6278)]
)
_PADDING = 0.25
_STAGES = (
    "conv32_1", "conv32_2", "conv32_3", "conv64_down", "conv64_1", "conv64_2", "conv64_3",
    "conv128_down", "conv128_1", "conv128_2", "conv256_down", "conv256_1", "conv256_2",
    "conv256_down_out",
)  # fmt: skip


class FaceIdentity:
    """Descriptors (128,) of aligned faces."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self._weights = weights

    def __call__(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Descriptor of the face with landmarks (478, 2+) in a picture (H, W, 3) uint8."""
        chip = torch.from_numpy(aligned(image, points)).to(torch.float32)
        x = ((chip - torch.tensor(_MEAN_RGB)) / 255).permute(2, 0, 1)[None]
        with torch.no_grad():
            return self._forward(x)[0].numpy()

    def _forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self._layer(x, "conv32_down", stride=2, padding=0)), 3, 2)
        for name in _STAGES:
            down = "down" in name
            y = F.relu(self._layer(x, f"{name}/conv1", 1 + down, padding=1 - down))
            y = self._layer(y, f"{name}/conv2")
            if down:
                x = F.avg_pool2d(x, 2, 2)
                y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
                x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            x = F.relu(x + y)
        return x.mean((2, 3)) @ self._weights["fc"]

    def _layer(self, x: Tensor, name: str, stride: int = 1, padding: int = 1) -> Tensor:
        weights = self._weights
        return F.conv2d(
            x, weights[f"{name}/filters"], weights[f"{name}/bias"], stride=stride, padding=padding
        )


def aligned(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The face turned upright, (150, 150, 3) uint8, eyes and nose where the network wants them."""
    import cv2

    places = (_PADDING + _ANCHOR_PLACES) / (2 * _PADDING + 1) * _SIDE
    matrix, _ = cv2.estimateAffinePartial2D(points[list(_ANCHORS), :2], places, method=cv2.LMEDS)
    if matrix is None:
        return np.zeros((_SIDE, _SIDE, 3), np.uint8)
    return cv2.warpAffine(image, matrix, (_SIDE, _SIDE), flags=cv2.INTER_AREA)


@lru_cache(maxsize=1)
def load_identity() -> FaceIdentity | None:
    """The network from the cache or its source; None where it cannot be had."""
    try:
        paths = assets.get("face-identity-layout"), assets.get("face-identity")
    except UserError:
        return None
    return FaceIdentity(_folded(_read(*paths)))


def _read(layout: Path, data: Path) -> dict[str, np.ndarray]:
    """Arrays by name, one after the other: float32, or 8 bits with a scale and an offset."""
    content = data.read_bytes()
    arrays, start = {}, 0
    for entry in json.loads(layout.read_bytes())[0]["weights"]:
        coding, count = entry.get("quantization"), int(np.prod(entry["shape"]))
        kind = np.dtype(np.uint8 if coding else np.float32)
        values = np.frombuffer(content, kind, count, start).astype(np.float32)
        if coding:
            values = values * coding["scale"] + coding["min"]
        arrays[entry["name"]] = values.reshape(entry["shape"])
        start += count * kind.itemsize
    return arrays


def _folded(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Filters (out, in, h, w) and biases with the scale layers multiplied in."""
    weights = {"fc": torch.from_numpy(arrays["fc"])}
    for name in [key.removesuffix("/conv/filters") for key in arrays if key.endswith("filters")]:
        filters = arrays[f"{name}/conv/filters"].transpose(3, 2, 0, 1)
        scale, shift = arrays[f"{name}/scale/weights"], arrays[f"{name}/scale/biases"]
        bias = arrays[f"{name}/conv/bias"] * scale + shift
        folded = np.ascontiguousarray(filters * scale[:, None, None, None])
        weights[f"{name}/filters"] = torch.from_numpy(folded)
        weights[f"{name}/bias"] = torch.from_numpy(bias)
    return weights
