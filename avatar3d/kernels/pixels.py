"""Pictures between bytes and floats in [0, 1]."""

import torch
from torch import Tensor

from avatar3d.kernels import reference
from avatar3d.kernels._backend import Backend, arrays, check_tensor, native, use_native
from avatar3d.kernels.operators import operator

__all__ = ["decode_pixels", "encode_pixels"]


def decode_pixels(
    image: Tensor,
    matte: Tensor | None = None,
    color: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """`image / 255` or, given a matte, that in front of a colour.

    Args:
        image: (H, W, 3) uint8.
        matte: (H, W) uint8, 255 where the image shows. With `color` or not at all.
        color: (3,) in [0, 1].

    Returns:
        (H, W, 3) float32.

    Raises:
        ValueError: an argument has the wrong shape, dtype or device.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != torch.uint8:
        raise ValueError(f"image is {image.dtype} {tuple(image.shape)}, expected uint8 (H, W, 3).")
    if (matte is None) != (color is None):
        raise ValueError("matte and color are given together or not at all.")
    if matte is not None and color is not None:
        if matte.shape != image.shape[:2] or matte.dtype != torch.uint8:
            raise ValueError(
                f"matte is {matte.dtype} {tuple(matte.shape)}, expected uint8 {image.shape[:2]}."
            )
        check_tensor("color", color, (3,), float32=True, form="(3,)")
    if image.device.type == "cpu" and use_native(backend):
        return _decode(image, matte, color)
    return reference.decode_pixels(image, matte, color)


def encode_pixels(image: Tensor, *, backend: Backend = "auto") -> Tensor:
    """`image` in 255ths as uint8: clamped to [0, 1], rounded, NaN to 0. Not differentiable.

    Args:
        image: float32 of any shape.

    Raises:
        ValueError: `image` is not float32.
    """
    if image.dtype != torch.float32:
        raise ValueError(f"image has dtype {image.dtype}, expected torch.float32.")
    if image.device.type == "cpu" and use_native(backend):
        return _encode(image)
    return reference.encode_pixels(image)


@operator("decode_pixels")
def _decode(image: Tensor, matte: Tensor | None, color: Tensor | None) -> Tensor:
    out = torch.empty(image.shape)
    native().decode_pixels(*arrays([image, matte, color, out]))
    return out


@_decode.register_fake
def _(image: Tensor, matte: Tensor | None, color: Tensor | None) -> Tensor:
    return image.new_empty(image.shape, dtype=torch.float32)


@operator("encode_pixels")
def _encode(image: Tensor) -> Tensor:
    out = torch.empty(image.shape, dtype=torch.uint8)
    native().encode_pixels(*arrays([image, out]))
    return out


@_encode.register_fake
def _(image: Tensor) -> Tensor:
    return image.new_empty(image.shape, dtype=torch.uint8)
