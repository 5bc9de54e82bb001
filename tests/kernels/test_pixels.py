"""Bytes to floats and back, against numpy."""

import numpy as np
import pytest
import torch

from avatar3d.kernels import decode_pixels, encode_pixels
from avatar3d.kernels.pixels import _decode, _encode


@pytest.mark.parametrize("size", [(1, 1), (33, 7), (70, 65)])
def test_decoding_is_a_division_or_a_blend(size, simd, threads):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    matte = rng.integers(0, 256, size, np.uint8)
    color = np.array([0.2, 0.5, 0.9])
    a = matte[..., None] / 255
    blended = image / 255 * a + color * (1 - a)
    tensors = torch.tensor(image), torch.tensor(matte), torch.tensor(color, dtype=torch.float32)
    for backend in ("native", "reference"):
        plain = decode_pixels(tensors[0], backend=backend).numpy()
        assert np.abs(plain - image / 255).max() < 1e-7
        assert np.abs(decode_pixels(*tensors, backend=backend).numpy() - blended).max() < 2e-7


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_encoding_undoes_decoding_and_clamps(backend, simd, threads):
    every = torch.arange(256, dtype=torch.uint8).repeat(3 * 257).view(257, 256, 3)
    assert torch.equal(encode_pixels(decode_pixels(every), backend=backend), every)
    wild = torch.tensor([-3.0, 2.0, float("nan"), float("inf"), -float("inf"), 0.499 / 255, 1e38])
    expected = torch.tensor([0, 255, 0, 255, 0, 0, 255], dtype=torch.uint8)
    assert torch.equal(encode_pixels(wild, backend=backend), expected)
    strided = torch.rand(3, 40, 50).permute(1, 2, 0)
    truth = np.rint(strided.double().numpy() * 255)
    assert np.abs(encode_pixels(strided, backend=backend).numpy() - truth).max() <= 1


def test_the_operators_obey_torch():
    image = torch.randint(0, 256, (5, 4, 3), dtype=torch.uint8)
    matte = torch.randint(0, 256, (5, 4), dtype=torch.uint8)
    torch.library.opcheck(_decode.overload, (image, None, None))
    torch.library.opcheck(_decode.overload, (image, matte, torch.rand(3)))
    torch.library.opcheck(_encode.overload, (torch.rand(5, 4, 3),))


def test_wrong_arguments_are_named():
    image = torch.zeros(4, 5, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"image is torch\.float32"):
        decode_pixels(image.float())
    with pytest.raises(ValueError, match="given together"):
        decode_pixels(image, image[..., 0])
    with pytest.raises(ValueError, match=r"matte is torch\.uint8 \(4, 4\)"):
        decode_pixels(image, image[:, :4, 0], torch.zeros(3))
    with pytest.raises(ValueError, match=r"image has dtype torch\.uint8"):
        encode_pixels(image)
