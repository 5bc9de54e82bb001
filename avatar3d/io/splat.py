"""Gaussians as .splat, 32 bytes each, as the first web viewers read them.

Source: https://github.com/antimatter15/splat (`convert.py`): float32 x y z, float32 scales, RGBA
and the quaternion wxyz in a byte each, the largest and most opaque first.
"""

import os

import numpy as np

from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_write
from avatar3d.io.ply import GaussianCloud

__all__ = ["decode_splat", "encode_splat", "write_splat"]

_ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])


def write_splat(path: str | os.PathLike[str], cloud: GaussianCloud) -> None:
    """Write `cloud` in one step."""
    atomic_write(path, encode_splat(cloud))


def encode_splat(cloud: GaussianCloud) -> bytes:
    """`cloud` as the bytes of a .splat file."""
    alpha = 1 / (1 + np.exp(-cloud.opacity.astype(np.float64)))
    quats = cloud.quats / np.linalg.norm(cloud.quats, axis=1, keepdims=True).clip(1e-12)
    table = np.zeros(len(cloud), _ROW)
    table["means"] = cloud.means
    table["scales"] = np.exp(cloud.log_scales)
    colors = np.concatenate([cloud.colors, alpha[:, None]], axis=1)
    table["rgba"] = np.rint(colors * 255).clip(0, 255)
    table["quats"] = np.rint(quats * 128 + 128).clip(0, 255)
    order = np.argsort(-np.exp(cloud.log_scales.sum(1)) * alpha, kind="stable")
    return table[order].tobytes()


def decode_splat(data: bytes, name: str = "splat data") -> GaussianCloud:
    """Inverse of `encode_splat` up to quantisation and order.

    Raises:
        UserError: not whole rows of finite numbers.
    """
    table = np.frombuffer(data[: len(data) // _ROW.itemsize * _ROW.itemsize], _ROW)
    finite = np.isfinite(table["means"]).all() and (table["scales"] > 0).all()
    if len(data) % _ROW.itemsize or not finite:
        raise UserError(f"{name} is not a .splat file, or it is damaged; export it again.")
    quats = (table["quats"].astype(np.float32) - 128) / 128
    alpha = (table["rgba"][:, 3] / 255).clip(0.5 / 255, 1 - 0.5 / 255)
    return GaussianCloud(
        means=table["means"].copy(),
        quats=quats / np.linalg.norm(quats, axis=1, keepdims=True).clip(1e-12),
        log_scales=np.log(table["scales"]),
        opacity=np.log(alpha / (1 - alpha)).astype(np.float32),
        colors=table["rgba"][:, :3].astype(np.float32) / 255,
    )
