"""Which pixels an iteration looks at: where the picture errs, lips and eyes most."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["PixelChoice", "widened"]

_CELLS = 32  # a side, of the map of errors
_MEMORY = 0.98  # of it, an iteration
_EVERYWHERE = 0.3  # of the mean error is added, so that no place is forgotten
_EMPTY = 0.1  # weight of pixels far from the person, who may be there in other frames
_NEAR = 9  # pixels around the matte that count as the person's


def widened(matte: Tensor) -> Tensor:
    """(H, W) the largest of a matte around each pixel: where the person is, or nearly."""
    return torch.nn.functional.max_pool2d(matte[None], _NEAR, 1, _NEAR // 2)[0]


class PixelChoice:
    """Chooses pixels of frames of one size in proportion to weight and error.

    Args:
        height, width: of the frames.

    Attributes:
        errors: (32, 32) running mean of the errors in each part of the frames.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.errors = torch.ones(_CELLS, _CELLS)
        rows = torch.arange(height) * _CELLS // height
        columns = torch.arange(width) * _CELLS // width
        self._cell = rows[:, None] * _CELLS + columns  # (H, W)

    def chances(self, matte: Tensor, weight: Tensor) -> Tensor:
        """(H W,) of the pixels of a frame, up to a factor.

        Args:
            matte: (H, W) in [0, 1], see `widened`; weight: (H, W), larger where pixels matter more.
        """
        errors = (self.errors + _EVERYWHERE * self.errors.mean()).flatten()[self._cell]
        return (weight * (_EMPTY + matte) * errors).flatten()

    def pixels(self, chances: Tensor, count: int, rng: np.random.Generator) -> Tensor:
        """(count,) numbers of pixels, spread as evenly as the chances (H W,) allow."""
        total = chances.double().cumsum(0)
        places = (torch.arange(count) + torch.from_numpy(rng.random(count))) / count
        found = torch.searchsorted(total, places * total[-1])
        return found.clamp_(max=len(chances) - 1)

    def square(self, chances: Tensor, side: int, rng: np.random.Generator) -> Tensor:
        """(side^2,) pixels of a square around a chosen pixel, inside of the frame."""
        side = min(side, self.height, self.width)
        middle = int(self.pixels(chances, 1, rng)[0])
        top = min(max(middle // self.width - side // 2, 0), self.height - side)
        left = min(max(middle % self.width - side // 2, 0), self.width - side)
        rows, columns = torch.arange(top, top + side), torch.arange(left, left + side)
        return (rows[:, None] * self.width + columns).flatten()

    def learn(self, pixels: Tensor, errors: Tensor) -> None:
        """Take in the errors (n,) at pixels (n,)."""
        cells = self._cell.flatten()[pixels]
        count = torch.bincount(cells, minlength=_CELLS**2)
        total = torch.bincount(cells, weights=errors.double(), minlength=_CELLS**2)
        mean = (total / count.clamp_min(1)).float().view(_CELLS, _CELLS)
        seen = (count > 0).view(_CELLS, _CELLS)
        self.errors = torch.where(seen, self.errors * _MEMORY + mean * (1 - _MEMORY), self.errors)
