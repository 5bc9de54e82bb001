"""The figures that the verdict rests on."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.plate import moving_pixels
from avatar3d.capture.preflight.faces import FaceLook
from avatar3d.capture.preflight.people import USABLE, People, background_region
from avatar3d.capture.preflight.scan import Sample, Scan
from avatar3d.capture.preflight.sound import Offset, Sound
from avatar3d.io.video import VideoInfo
from avatar3d.subject import FRAME_REASONS

__all__ = ["Measures"]

_CLOSED_EYES = 0.5


@dataclass(frozen=True)
class Measures:
    """Everything known about a clip; seconds are counted from the start of the captured part."""

    info: VideoInfo
    scan: Scan
    people: People
    sound: Sound
    offset: Offset | None
    config: CaptureConfig

    @property
    def fps(self) -> float:
        return self.scan.fps

    @property
    def seconds(self) -> float:
        return self.scan.frames / self.fps

    @cached_property
    def looks(self) -> list[tuple[Sample, FaceLook]]:
        """The looks that show the main person's face well enough for landmarks, in order."""
        return [(s, f) for s, f in self.people.samples if f.seen]

    @cached_property
    def good_looks(self) -> list[tuple[Sample, FaceLook]]:
        """Those of them whose frames may be used; all of them where none may."""
        usable = [(s, f) for s, f in self.looks if self.people.reasons[s.index] == USABLE]
        return usable or self.looks

    @cached_property
    def usable(self) -> np.ndarray:
        """(T,) bool."""
        return self.people.reasons == USABLE

    @cached_property
    def still(self) -> float:
        """Share of the frames that repeat the one before, of those with somebody in view."""
        shown = self.people.reasons != FRAME_REASONS.index("no face")
        if not shown.any():
            shown = ~shown
        repeated = np.zeros(len(shown), bool)
        repeated[self.scan.frozen] = True
        return float(repeated[shown].mean())

    def time(self, index: int) -> float:
        return round(float(index) / self.fps, 2)

    def share(self, reason: str) -> float:
        """Of all frames, those left out for a reason of `FRAME_REASONS`."""
        return float((self.people.reasons == FRAME_REASONS.index(reason)).mean())

    def first(self, reason: str) -> float | None:
        places = np.flatnonzero(self.people.reasons == FRAME_REASONS.index(reason))
        return self.time(places[0]) if len(places) else None

    def track(self, name: str) -> np.ndarray:
        """(n,) one attribute of `FaceLook` over the good looks."""
        return np.array([getattr(face, name) for _, face in self.good_looks], float)

    def first_where(self, bad: np.ndarray) -> float | None:
        """Seconds of the first good look where `bad` (n,) holds."""
        places = np.flatnonzero(bad)
        return self.time(self.good_looks[places[0]][0].index) if len(places) else None

    @cached_property
    def eyes_apart(self) -> float:
        """Median distance between the eyes in source pixels."""
        return float(np.median(self.track("eyes_apart")))

    @cached_property
    def blinks(self) -> int:
        """Closings of the eyes in the stretches that were looked at frame by frame."""
        apertures = [(s.index, s.faces[0].eye_aperture) for s in self._dense()]
        if len(apertures) < 10:
            return 0
        places, values = np.array(apertures).T
        closed = values < _CLOSED_EYES * np.percentile(values, 80)
        together = np.diff(places) == 1
        return int((closed[1:] & ~closed[:-1] & together).sum())

    @cached_property
    def dense_seconds(self) -> float:
        return len(self._dense()) / self.fps

    def _dense(self) -> list[Sample]:
        return [
            s for s in self.scan.samples
            if s.faces and s.faces[0].seen and self.people.reasons[s.index] == USABLE
            and (s.dense or self._within_dense(s.index))
        ]  # fmt: skip

    def _within_dense(self, index: int) -> bool:
        return index + 1 in self._dense_indices

    @cached_property
    def _dense_indices(self) -> set[int]:
        return {s.index for s in self.scan.samples if s.dense}

    @cached_property
    def background(self) -> tuple[float, float | None]:
        """Share of the background's pixels that move, and when most of them first do."""
        looks = self.good_looks
        if len(looks) < 4:
            return 0.0, None
        step = max(1, len(looks) // 240)
        looks = looks[::step]
        thumbs = np.stack([s.thumb for s, _ in looks]).astype(np.float32).mean(-1)
        crop = self.people.crop
        shown = np.stack([background_region(f.box, s.size, crop) for s, f in looks])
        values = np.where(shown, thumbs, np.nan)
        known = shown.sum(0) >= max(4, 0.3 * len(looks))
        if known.mean() < 0.02:
            return 0.0, None
        departed, moving = moving_pixels(values[:, known])
        crowded = departed[:, moving].mean(1) > 0.3 if moving.any() else np.zeros(len(looks), bool)
        first = self.time(looks[int(crowded.argmax())][0].index) if crowded.any() else None
        return float(moving.mean()), first
