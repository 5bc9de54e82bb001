"""How sure a figure of two series is: circular block bootstrap (Politis and Romano, 1992).

Speech and lips repeat themselves from frame to frame, so frames are drawn in blocks; blocks go
round the end, or pauses at both ends of a recording would be drawn too seldom.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from avatar3d.evaluation.metrics import correlation

__all__ = ["BLOCK_SECONDS", "Estimate", "correlated", "drawn", "estimate"]

BLOCK_SECONDS = 1.0
"""Several syllables: what happens a block later is hardly related."""
_DRAWS, _LEAST_BLOCKS = 300, 5
_SIDE = 0.05  # of the draws on either side of the interval


@dataclass(frozen=True)
class Estimate:
    """A figure, and the bounds of nine in ten of its bootstrap draws; NaN where there is none."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low

    def __truediv__(self, other: "Estimate") -> "Estimate":
        """The ratio of independent estimates, its width to first order (delta method)."""
        ratio = self.value / other.value
        relative = np.hypot(self.width, ratio * other.width) / (2 * abs(other.value))
        return Estimate(ratio, ratio - relative, ratio + relative)


def drawn(count: int, block: int) -> np.ndarray:
    """(300, count) indices of a series of `count` drawn again in blocks, the same in every call.

    Blocks are at most a fifth of the series: one as long as all of it is drawn the same each time,
    and would make a short series look sure.
    """
    rng = np.random.default_rng(0)
    block = max(1, min(block, count // _LEAST_BLOCKS))
    starts = rng.integers(0, count, (_DRAWS, -(-count // block)))
    return ((starts[..., None] + np.arange(block)).reshape(_DRAWS, -1) % count)[:, :count]


def estimate(measure: Callable[[np.ndarray], float], count: int, rate: float) -> Estimate:
    """What `measure` says of a series' indices (count,), and how much that is worth.

    Args:
        measure: from indices to a figure; it is asked for all of them, and for every draw.
        count: length of the series; rate: its samples per second.
    """
    value = measure(np.arange(count))
    draws = [measure(indices) for indices in drawn(count, round(BLOCK_SECONDS * rate))]
    low, high = np.quantile(draws, (_SIDE, 1 - _SIDE))
    return Estimate(float(value), float(low), float(high))


def correlated(first: np.ndarray, second: np.ndarray, rate: float) -> Estimate:
    """Pearson correlation of two series (T,) with `rate` samples per second."""
    return estimate(lambda i: correlation(first[i], second[i]), len(first), rate)
