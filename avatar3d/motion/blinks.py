"""Blinks: found in a captured motion, taken out of it, and made again at the person's own pace."""

from dataclasses import dataclass

import numpy as np

from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion.motion import Motion

__all__ = ["Blink", "BlinkHabit", "find_blinks", "lid_closure", "without_blinks"]

_LIDS = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]
_EYES = [index for index, name in enumerate(ARKIT_52) if name.startswith("eye")]
_LEAST = 0.25  # closure above the lids' level before and after
_APART = 0.12  # seconds between two blinks
_LONGEST = 1.0  # seconds; eyes shut for longer are closed, or look down
_LONG_GAP = 2.0  # times the mean
_MIXED = 8
_USUAL_GAP = 4.0  # seconds, of people who are not watched: about 15 a minute
_SHAPE = (0.09, 0.03, 0.16)  # seconds of an ordinary blink: closing, shut, opening


@dataclass(frozen=True)
class Blink:
    """Frames of one blink.

    Attributes:
        start, stop: first frame in which the lids move, first in which they rest again.
        peak: frame in which they are closest.
        height: closure there, above the lids' level around the blink.
        width: frames (fractional) for which they are at least half as close.
    """

    start: int
    stop: int
    peak: int
    height: float
    width: float


def lid_closure(motion: Motion) -> np.ndarray:
    """(T,) mean closure of both eyes."""
    if motion.expression is None:
        return np.zeros(len(motion))
    return motion.expression[:, _LIDS].mean(1)


def find_blinks(closure: np.ndarray, fps: float) -> list[Blink]:
    """Blinks in a lid closure (T,), in order. Eyes that stay shut for a second are none."""
    from scipy.signal import find_peaks, peak_widths

    padded = np.pad(np.asarray(closure, np.float64), 1, mode="edge")
    longest = round(_LONGEST * fps)
    peaks, _ = find_peaks(
        padded,
        prominence=_LEAST,
        distance=max(1, round(_APART * fps)),
        plateau_size=(1, max(longest, 2)),
    )
    if not len(peaks):
        return []
    reach = 2 * max(longest, 2) + 1
    halves, heights, _, _ = peak_widths(padded, peaks, 0.5, wlen=reach)
    _, _, lows, highs = peak_widths(padded, peaks, 0.9, wlen=reach)
    found: list[Blink] = []
    for peak, half, level, low, high in zip(peaks, halves, heights, lows, highs, strict=True):
        height = 2 * (padded[peak] - level)
        if half > _LONGEST * fps or height < _LEAST:
            continue
        start, stop = max(int(low) - 1, 0), min(int(np.ceil(high)), len(closure))
        if found and start < found[-1].stop:
            start = found[-1].stop
        if start < stop:
            found.append(Blink(start, stop, int(peak) - 1, float(height), float(half)))
    return found


def without_blinks(motion: Motion) -> Motion:
    """The same motion with the eyes left open: lids and gaze bridge every blink in a line."""
    if motion.expression is None:
        return motion
    expression = motion.expression.copy()
    gaze = None if motion.gaze is None else motion.gaze.copy()
    for blink in find_blinks(lid_closure(motion), motion.fps):
        low, high = max(blink.start - 1, 0), min(blink.stop, len(motion) - 1)
        if low == 0 or high == len(motion) - 1:  # cut at an end: the other side goes on
            low, high = (high, high) if low == 0 else (low, low)
        inside = slice(blink.start, blink.stop)
        weight = np.linspace(0, 1, blink.stop - blink.start + 2)[1:-1]
        expression[inside][:, _EYES] = 0
        for column in _EYES:
            a, b = motion.expression[low, column], motion.expression[high, column]
            expression[inside, column] = a + weight * (b - a)
        if gaze is not None:
            w = weight[:, None, None]
            gaze[inside] = (1 - w) * gaze[low] + w * gaze[high]
    return Motion(
        motion.fps, expression, motion.head_pose, gaze, motion.residual, motion.torso_pose,
        motion.source,
    )  # fmt: skip


@dataclass(frozen=True)
class BlinkHabit:
    """How often and how a person blinks.

    Attributes:
        gaps: (G,) seconds from blink to blink.
        shapes: closures above the level of the lids, each (frames,) at `fps`, 0 at both ends.
        fps: of the shapes.
    """

    gaps: np.ndarray
    shapes: tuple[np.ndarray, ...]
    fps: float

    @classmethod
    def of(cls, motion: Motion) -> "BlinkHabit":
        """What a captured motion shows, eked out by people's usual habit below two blinks."""
        closure = lid_closure(motion)
        blinks = find_blinks(closure, motion.fps)
        shapes = []
        for blink in blinks:
            piece = closure[blink.start : blink.stop]
            level = np.linspace(closure[max(blink.start - 1, 0)], piece[-1], len(piece))
            shapes.append(np.r_[0, np.maximum(piece - level, 0), 0])
        if len(blinks) < 2:  # as if one more had come after the usual time
            gap = (motion.duration + _USUAL_GAP) / (len(blinks) + 1)
            return cls(np.array([gap]), tuple(shapes or [_usual_shape(motion.fps)]), motion.fps)
        gaps = np.diff([blink.peak for blink in blinks]) / motion.fps
        # A minute without a blink in a long clip is not to be had again and again.
        gaps = np.minimum(gaps, _LONG_GAP * gaps.mean())
        # The clip may begin and end far from a blink, so its own count sets the mean.
        return cls(gaps / gaps.mean() * motion.duration / len(blinks), tuple(shapes), motion.fps)

    def closure(
        self, count: int, fps: float, rng: np.random.Generator, busy: np.ndarray | None = None
    ) -> np.ndarray:
        """(count,) closure of the lids with blinks like this person's.

        Args:
            busy: (count,) how much is going on, such as the loudness of speech; blinks are put off
                or hurried by up to 0.3 s into a calmer moment.
        """
        time = np.arange(count) / fps
        closed = np.zeros(count)
        order: list[float] = []
        shapes: list[int] = []
        moment = -float(rng.uniform(0, self.gaps.mean()))
        previous = -1.0
        while moment < count / fps:
            if not order:
                order = self._some_gaps(rng)
            moment += max(order.pop(), 0.15)
            if not shapes:  # every one once, in another order, before any comes again
                shapes = list(rng.permutation(len(self.shapes)))
            shape = self.shapes[shapes.pop()]
            at = _calm(moment, busy, fps, previous)
            previous = at + len(shape) / self.fps
            where = (time - at) * self.fps + shape.argmax()
            blink = np.interp(where, np.arange(len(shape)), shape, left=0, right=0)
            closed = np.maximum(closed, blink)
        return np.clip(closed, 0, 1)

    def _some_gaps(self, rng: np.random.Generator) -> list[float]:
        """A few gaps to come, some short and some long, so that the rate soon is the person's."""
        ranks = np.array_split(np.sort(self.gaps), min(_MIXED, len(self.gaps)))
        drawn = np.array([rng.choice(some) for some in ranks]) * rng.uniform(0.8, 1.2, len(ranks))
        drawn *= self.gaps.mean() / np.mean([some.mean() for some in ranks])
        return list(rng.permutation(drawn))


def _calm(moment: float, busy: np.ndarray | None, fps: float, earliest: float) -> float:
    """The calmest time within 0.3 s of `moment`, none before `earliest`."""
    if busy is None:
        return moment
    reach = round(0.3 * fps)
    middle = round(moment * fps)
    low = max(middle - reach, round(earliest * fps), 0)
    high = min(middle + reach + 1, len(busy))
    if low >= high:
        return moment
    away = 0.1 * np.abs(np.arange(low, high) - middle) / max(reach, 1)
    return float(low + np.argmin(busy[low:high] + away)) / fps


def _usual_shape(fps: float) -> np.ndarray:
    closing, shut, opening = _SHAPE
    times = np.arange(round(sum(_SHAPE) * fps) + 2) / fps
    level = np.interp(times, np.cumsum([0, closing, shut, opening]), [0, 1, 1, 0])
    return level * level * (3 - 2 * level)
