"""An invisible mark in pictures that survives re-encoding, scaling and cropping.

A tile of band-limited noise, the same for every file of avatar3d, is added over and over to the
brightness. The detector folds a picture onto one tile and correlates it, by phase alone, with the
noise at every shift; only a marked picture has a peak. It says that a picture was made by this
program, not by whom, and who knows the noise can remove it.

Source: phase-only correlation, Kuglin and Hines 1975; spread-spectrum marks, Cox et al. 1997.
"""

from functools import cache

import numpy as np
from scipy import fft, ndimage

__all__ = ["THRESHOLD", "detect", "watermarked"]

_TILE = 256  # pixels
_BAND = 8.0, 44.0  # cycles a tile: coarse enough for a codec, too fine to be seen as blotches
_SEED = 20_240_601
_STRENGTH = 2.3  # grey levels, root mean square, where the picture has texture
_CALM = 0.7  # of that where it has none
_TEXTURE = 6.0  # grey levels of local deviation that hide the whole strength
_SCALES = (1.0, 2.0, 1.5, 4 / 3, 0.5, 2 / 3, 0.75)  # by which the picture may have been reduced
_CLIP = 6.0  # grey levels; edges must not outvote the rest
THRESHOLD = 7.5  # standard deviations; chance reaches 6.5 once in a thousand pictures


def watermarked(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with the mark added to its brightness."""
    height, width = image.shape[:2]
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    tile = np.tile(_noise(), (rows, columns))[:height, :width]
    luma = _luma(image)
    mean = ndimage.uniform_filter(luma, 9)
    deviation = np.sqrt(np.maximum(ndimage.uniform_filter(luma**2, 9) - mean**2, 0))
    strength = _STRENGTH * (_CALM + (1 - _CALM) * np.minimum(deviation / _TEXTURE, 1))
    added = image + (strength * tile)[..., None]
    return added.clip(0, 255).round().astype(np.uint8)


def detect(image: np.ndarray) -> tuple[bool, float]:
    """Whether a picture (H, W, 3) uint8 has the mark, and the height of the peak in deviations."""
    luma = _luma(image)
    score = max(_peak(luma, scale) for scale in _SCALES)
    return score > THRESHOLD, score


def _peak(luma: np.ndarray, scale: float) -> float:
    if scale != 1:
        luma = ndimage.zoom(luma, scale, order=1, grid_mode=True, mode="nearest")
    if min(luma.shape) < _TILE // 2:
        return 0.0
    detail = (luma - ndimage.gaussian_filter(luma, 4)).clip(-_CLIP, _CLIP)
    rows, columns = (-(-side // _TILE) for side in luma.shape)
    padded = np.zeros((rows * _TILE, columns * _TILE), np.float32)
    padded[: luma.shape[0], : luma.shape[1]] = detail
    folded = padded.reshape(rows, _TILE, columns, _TILE).sum((0, 2))
    spectrum = fft.rfft2(folded) * _phases()
    spectrum /= np.maximum(np.abs(spectrum), 1e-9)
    response = fft.irfft2(spectrum * _band(), s=(_TILE, _TILE))
    return float((response.max() - response.mean()) / max(response.std(), 1e-12))


@cache
def _noise() -> np.ndarray:
    """(_TILE, _TILE) float32, mean 0, deviation 1."""
    rng = np.random.default_rng(_SEED)
    white = fft.rfft2(rng.normal(size=(_TILE, _TILE)))
    noise = fft.irfft2(white * _band(), s=(_TILE, _TILE))
    return (noise / noise.std()).astype(np.float32)


@cache
def _phases() -> np.ndarray:
    spectrum = np.conj(fft.rfft2(_noise()))
    return spectrum / np.maximum(np.abs(spectrum), 1e-9)


@cache
def _band() -> np.ndarray:
    """1 inside the band, 0 outside, in the layout of `rfft2`."""
    radius = np.hypot(np.fft.fftfreq(_TILE)[:, None] * _TILE, np.fft.rfftfreq(_TILE)[None] * _TILE)
    return ((radius >= _BAND[0]) & (radius <= _BAND[1])).astype(np.float32)


def _luma(image: np.ndarray) -> np.ndarray:
    return image[..., :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
