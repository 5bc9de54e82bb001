"""Hard cuts between shots, from thumbnails of every frame."""

import numpy as np

__all__ = ["CutFinder"]

_CUT_DIFFERENCE = 3.0
"""Mean difference in grey levels that a cut has at least."""
_CUT_SHARPNESS = 5.2
"""A cut's difference over the usual one around it, times the same over the largest one around
it. Fast motion has large neighbours; a flash has an equal one when it ends. Jump cuts within
clips of one person measured 5.3 to 80, the fastest motion in them 4.8."""
_CUT_ALONE = 1.5
_AROUND, _CLOSE = 8, 4
_FROZEN = 0.02


class CutFinder:
    """Feed it thumbnails in order; memory is a few bytes a frame."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._places: list[int] = []
        self._differences: list[float] = []

    def add(self, thumb: np.ndarray, index: int, count: int) -> int:
        """Take the thumbnail shown in frames index .. index + count - 1; how many, the last of
        them, stood still."""
        current = thumb.astype(np.int16)
        still = 0
        if self._last is not None:
            difference = float(np.abs(current - self._last).mean())
            still = int(difference < _FROZEN)
            if not still:  # repeated frames would hide that motion goes on
                self._places.append(index)
                self._differences.append(difference)
        self._last = current
        return still + count - 1

    def finish(self) -> list[int]:
        """Numbers of the frames that begin a new shot."""
        d = np.array(self._differences)
        cuts = []
        for i in np.flatnonzero(d >= _CUT_DIFFERENCE):
            before, after = d[max(0, i - _AROUND) : i], d[i + 1 : i + 1 + _AROUND]
            usual = np.median(np.concatenate([before, after, [0.0]]))
            largest = max(before[-_CLOSE:].max(initial=0), after[:_CLOSE].max(initial=0))
            alone = d[i] / (1 + largest)
            if alone >= _CUT_ALONE and alone * d[i] / (1 + usual) >= _CUT_SHARPNESS:
                cuts.append(self._places[i])
        return cuts
