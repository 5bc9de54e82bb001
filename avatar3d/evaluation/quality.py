"""MS-SSIM and CPBD sharpness; pictures are (H, W, 3) floats in [0, 1]."""

from functools import lru_cache

import numpy as np
from scipy.ndimage import convolve, gaussian_filter, label, sobel

from avatar3d.evaluation.metrics import SSIM_RADIUS, ssim_parts

__all__ = ["cpbd", "ms_ssim"]

_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_LUMA = (0.299, 0.587, 0.114)
_BLOCK, _EDGE_SHARE = 64, 0.002
_BETA = 3.6
_LOW_CONTRAST, _JUST_NOTICED = 50, (5.0, 3.0)  # steps; edge widths in pixels
_LONGEST = 101
_CANNY = 0.1, 0.2  # 8-bit steps a pixel


def ms_ssim(
    image: np.ndarray,
    target: np.ndarray,
    first: tuple[np.ndarray, np.ndarray] | None = None,
) -> float:
    """Structural similarity over five scales (Wang, Simoncelli and Bovik 2003).

    Contrast and structure at every scale, luminance at the last; the mean of that over the
    channels. NaN where the last scale would be smaller than the window, below 176 pixels.
    `first` saves time where `ssim_parts` of the pictures are known.
    """
    if min(image.shape[:2]) < (2 * SSIM_RADIUS + 1) * 2 ** (len(_SCALES) - 1):
        return float("nan")
    inner = slice(SSIM_RADIUS, -SSIM_RADIUS)
    result = np.ones(image.shape[-1])
    for number, weight in enumerate(_SCALES):
        known = first if number == 0 else None
        luminance, structure = known or ssim_parts(image, target)
        last = number + 1 == len(_SCALES)
        values = (luminance * structure if last else structure)[inner, inner]
        result *= values.mean((0, 1)).clip(0) ** weight
        if not last:
            image, target = _halved(image), _halved(target)
    return float(result.mean())


def cpbd(image: np.ndarray) -> float:
    """Cumulative probability of blur detection (Narvekar and Karam 2011), 1 for a sharp picture.

    The share of edges no wider than what is just noticed as blurred, in blocks of 64 pixels that
    have edges at all; 0 where there are none. No reference: noise looks sharp, a smooth cheek is
    not counted. Settings are those of the authors' program.
    """
    grey = 255 * (np.asarray(image, np.float64) @ np.array(_LUMA))
    rows, columns, widths = _edge_widths(grey)
    edges = _canny(grey)
    high, wide = (size // _BLOCK * _BLOCK for size in grey.shape)

    def blocks(values: np.ndarray) -> np.ndarray:
        cut = values[:high, :wide].reshape(high // _BLOCK, _BLOCK, wide // _BLOCK, _BLOCK)
        return cut.swapaxes(1, 2).reshape(high // _BLOCK, wide // _BLOCK, -1)

    contrast = np.ptp(blocks(grey), axis=-1).astype(int)
    has_edges = blocks(edges).sum(-1) > _EDGE_SHARE * _BLOCK**2
    inside = (rows < high) & (columns < wide)
    where = rows[inside] // _BLOCK, columns[inside] // _BLOCK
    counted = has_edges[where]
    if not counted.any():
        return 0.0
    noticed = np.where(contrast[where] <= _LOW_CONTRAST, *_JUST_NOTICED)
    blurred = 1 - np.exp(-((widths[inside] / noticed) ** _BETA))
    return float((np.round(100 * blurred[counted]) < 64).mean())


def _halved(image: np.ndarray) -> np.ndarray:
    height, width = (size // 2 * 2 for size in image.shape[:2])
    even = image[:height, :width]
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4


def _edge_widths(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and widths (E,) of the upright edges, after Marziliano et al. 2002."""
    weights = np.outer([1, 0, -1], [1, 2, 1]) / 8
    strength = convolve(grey, weights.T) ** 2
    strength[strength <= 2 * np.sqrt(strength.mean())] = 0
    edges = np.zeros(grey.shape, bool)
    padded = np.pad(strength, 1)
    for first, second in (
        (padded[1:-1, :-2], padded[1:-1, 2:]),
        (padded[:-2, 1:-1], padded[2:, 1:-1]),
    ):
        edges |= (strength > first) & (strength > second)
    edges[[0, -1]] = edges[:, [0, -1]] = False
    down, right = np.gradient(grey)
    angle = np.round(np.degrees(np.arctan2(down, right)) / 45)
    # The cases of the authors' program in which a direction is defined at all.
    angle[right == 0] = 0
    rows, columns = np.nonzero(edges & ((angle == 0) | (np.abs(angle) == 4)))
    rising = np.where(angle[rows, columns] == 0, 1.0, -1.0)
    widths = sum(_reach(grey, rows, columns, side, rising * side) for side in (-1, 1))
    return rows, columns, np.asarray(widths)


def _reach(
    grey: np.ndarray, rows: np.ndarray, columns: np.ndarray, side: int, rising: np.ndarray
) -> np.ndarray:
    """(E,) pixels to `side` for which the brightness goes on in the direction `rising` (E,)."""
    width = np.full(len(rows), _LONGEST)
    going = np.arange(len(rows))
    for margin in range(_LONGEST):
        near, far = (columns[going] + side * (margin + step) for step in (1, 2))
        outside = (far < 0) | (far >= grey.shape[1])
        far = far.clip(0, grey.shape[1] - 1)
        row = rows[going]
        change = (grey[row, far] - grey[row, near]) * rising[going]
        ends = outside | (change <= 0)
        width[going[ends]] = margin + 1
        going = going[~ends]
        if not len(going):
            break
    return width


def _canny(grey: np.ndarray) -> np.ndarray:
    """(H, W) bool edges (Canny 1986): the gradient's ridges, interpolated, with hysteresis."""
    smooth = gaussian_filter(grey, 1.0, mode="constant") * _border_gain(grey.shape)
    down, right = sobel(smooth, 0), sobel(smooth, 1)
    strength = np.hypot(down, right)
    inner = np.s_[1:-1, 1:-1]
    rising = (down * right)[inner] > 0
    down, right = np.abs(down[inner]), np.abs(right[inner])
    share = np.minimum(down, right) / np.maximum(np.maximum(down, right), 1e-12)
    steep = down > right

    def beside(row: int, column: int) -> np.ndarray:
        height, width = grey.shape
        return strength[1 + row : height - 1 + row, 1 + column : width - 1 + column]

    is_ridge = np.ones(share.shape, bool)
    for side in (-1, 1):
        ahead = np.where(steep, beside(side, 0), beside(0, side))
        falling = np.where(steep, beside(side, -side), beside(-side, side))
        across = np.where(rising, beside(side, side), falling)
        is_ridge &= ahead + share * (across - ahead) <= strength[inner]
    ridge = np.zeros(grey.shape, bool)
    ridge[inner] = is_ridge
    weak, strong = (ridge & (strength >= threshold) for threshold in _CANNY)
    parts, count = label(weak, np.ones((3, 3)))
    lasting = np.bincount(parts[strong], minlength=count + 1) > 0
    return np.asarray(lasting[parts] & weak)


@lru_cache(maxsize=4)
def _border_gain(shape: tuple[int, int]) -> np.ndarray:
    """(H, W): what makes up for the weights of the smoothing that lie outside the picture."""
    return 1 / gaussian_filter(np.ones(shape), 1.0, mode="constant")
