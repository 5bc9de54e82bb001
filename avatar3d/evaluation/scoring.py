"""One system's pictures against the recording, frame by frame, and what follows from all of them.

It does not know who made the pictures: an avatar of ours, or any other program.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from avatar3d.capture.landmarks import Face
from avatar3d.evaluation import faces, metrics
from avatar3d.evaluation.bootstrap import Estimate, drawn, estimate
from avatar3d.evaluation.judges import Judges
from avatar3d.evaluation.landmarks import Detect
from avatar3d.evaluation.quality import cpbd, ms_ssim
from avatar3d.evaluation.regions import (
    contrast,
    error_at_contrast,
    face_interior,
    head_mask,
    seam_band,
)
from avatar3d.evaluation.retrack import retracked
from avatar3d.evaluation.sheets import Panel
from avatar3d.evaluation.speech import lag, offset
from avatar3d.evaluation.tracking import rotation_error
from avatar3d.head.landmarks import inter_ocular, lip_gap
from avatar3d.subject import Subject, Tracking

__all__ = ["Scorer", "Scores", "interval", "over_flat"]

_SHEET_FRAMES, _STRIP_FRAMES, _WORST = 5, 12, 4
_FEW = 3
_LEVELS = {"white": 255, "black": 0}


@dataclass
class Scores:
    """Per-frame values by name; means ignore frames for which a value is not defined."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **scores: float) -> None:
        for name, value in scores.items():
            self.values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float | None]:
        result: dict[str, float | None] = {}
        for name, values in self.values.items():
            finite = [value for value in values if math.isfinite(value)]
            result[name] = float(np.mean(finite)) if finite else None
        return result

    def intervals(self, fps: float) -> dict[str, tuple[float, float]]:
        """Bounds of nine in ten means of the frames drawn again, by name, where there are any."""
        found = {name: interval(values, fps) for name, values in self.values.items()}
        return {name: bounds for name, bounds in found.items() if bounds is not None}


def interval(values: list[float], fps: float) -> tuple[float, float] | None:
    """Block bootstrap (see `bootstrap`) of the mean of per-frame values; None for under three."""
    series = np.array(values, np.float64)
    series[~np.isfinite(series)] = np.nan
    if np.isfinite(series).sum() < _FEW:
        return None
    some = series[drawn(len(series), round(fps))]
    some = some[np.isfinite(some).any(1)]
    low, high = np.quantile(np.nanmean(some, 1), (0.05, 0.95))
    return float(low), float(high)


class Scorer:
    """Takes the pictures of some frames in order and gathers all figures that need no more.

    Args:
        subject: the recording; tracking: whose landmarks place the boxes.
        frames: numbers of the pictures to come.
        detect: finds faces, None leaves the figures that need one out.
        perceptual: LPIPS of two pictures, or None.
        background: "own", or "white" or "black" put behind the recording by its matte.
        judges: networks of others, or None.
    """

    def __init__(
        self,
        subject: Subject,
        tracking: Tracking,
        frames: range,
        detect: Detect | None = None,
        perceptual: Callable[[np.ndarray, np.ndarray], float] | None = None,
        background: str = "own",
        judges: Judges | None = None,
    ) -> None:
        self.subject, self.tracking, self.frames = subject, tracking, frames
        self.detect, self.perceptual, self.background = detect, perceptual, background
        self.judges = judges
        self.scores = Scores()
        self.recorded = Scores()
        self.found: list[tuple[Face, Face] | None] = []
        self.panels: list[Panel] = []
        self.worst: list[tuple[float, Panel]] = []
        self.strip: list[Panel] = []
        self._kept = _spread(frames, _SHEET_FRAMES)
        self._stripped = _spread(frames, _STRIP_FRAMES)
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self._pool = ThreadPoolExecutor(2)  # numpy and scipy leave the interpreter to others

    def truth(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8: the recording, over the background that was asked for."""
        image = self.subject.frame(index)
        if self.background == "own":
            return image
        return over_flat(image, self.subject.matte(index), self.background)

    def add(self, index: int, image: np.ndarray) -> np.ndarray:
        """Score the picture (H, W, 3) uint8 of a frame; returns what it was compared with."""
        truth = self.truth(index)
        landmarks = self.tracking.landmarks_fit[index]
        render, target = image.astype(np.float32) / 255, truth.astype(np.float32) / 255
        labels = self.subject.parsing(index)
        matte = self.subject.matte(index)
        parts = [
            self._pool.submit(_picture_scores, render, target, labels, landmarks),
            self._pool.submit(_region_errors, render, target, labels, matte),
        ]
        sharp, recorded = (self._pool.submit(cpbd, picture) for picture in (render, target))
        if self.detect is not None:  # while the others work
            pair = self.detect(image), self.detect(truth)
            self.found.append(None if pair[0] is None or pair[1] is None else (pair[0], pair[1]))
        scores = parts[0].result() | parts[1].result() | {"cpbd": sharp.result()}
        self.recorded.add(cpbd=recorded.result())
        if self.perceptual is not None:
            scores["lpips"] = self.perceptual(render, target)
        if self.judges is not None:
            scores |= self.judges.add(image, truth, self.found[-1] if self.found else None)
        before, self._before = self._before, (image, truth)
        now = (before[0], image, before[1], truth) if before is not None else None
        scores["flicker"] = faces.flicker(*now) if now is not None else math.nan
        if self.detect is not None:
            scores |= _lip_distances(self.found[-1])
        self.scores.add(**scores)
        self._keep(Panel(index, truth, image, landmarks), scores["face_psnr"])
        return truth

    def figures(self) -> dict[str, Estimate]:
        """Of all frames together: what a detector says of faces over time, and of the sound."""
        pairs = [pair for pair in self.found if pair is not None]
        if len(pairs) < _FEW:
            return {}
        ours, theirs = (
            np.stack([face.points[:, :2] for face in side]).astype(np.float64)
            for side in zip(*pairs, strict=True)
        )
        fps, count = self.subject.fps, len(pairs)

        def over(measure: Callable[[np.ndarray, np.ndarray], float]) -> Estimate:
            return estimate(lambda i: measure(ours[i], theirs[i]), count, fps)

        found = {
            "lip_gap_correlation": over(metrics.lip_gap_correlation),
            "lip_width_correlation": over(faces.lip_width_correlation),
            "jitter": _only(metrics.jitter_ratio(ours, theirs)),
            "shaking": _only(faces.shaking(ours)),
        }
        self.recorded.add(shaking=faces.shaking(theirs))
        opening, true = (lip_gap(points) / inter_ocular(points) for points in (ours, theirs))
        found["lip_lag"] = lag(opening, true, fps)
        found |= self._blinks(pairs, ours, theirs)
        found |= self._actions(pairs, ours, theirs)
        if self.subject.audio_path is not None and count == len(self.frames):
            found |= self._sound(opening, true)
        return {name: value for name, value in found.items() if math.isfinite(value.value)}

    def _actions(
        self, pairs: list[tuple[Face, Face]], ours: np.ndarray, theirs: np.ndarray
    ) -> dict[str, Estimate]:
        """Facial actions by the detector's scores, else by those of tracking again; head pose."""
        fits = [retracked(self.tracking, points) for points in (ours, theirs)]
        scored = [[face.scores for face in side] for side in zip(*pairs, strict=True)]
        if any(scores is None for side in scored for scores in side):
            weights = [fit.weights[:, :52] for fit in fits]
        else:
            weights = [np.stack([s for s in side if s is not None]) for side in scored]
        units, true = (faces.action_units(np.asarray(part)) for part in weights)
        turned = rotation_error(fits[0].poses, fits[1].poses)
        fps = self.subject.fps

        def error(name: str) -> Estimate:
            def measure(i: np.ndarray) -> float:
                some, same = (
                    {unit: values[i] for unit, values in part.items()} for part in (units, true)
                )
                return faces.unit_error(some, same)[name]

            return estimate(measure, len(ours), fps)

        found = {name: error(name) for name in ("aue", "aue_lower", "aue_upper")}
        found["pose_degrees"] = estimate(lambda i: float(turned[i].mean()), len(ours), fps)
        return found

    def _blinks(
        self, pairs: list[tuple[Face, Face]], ours: np.ndarray, theirs: np.ndarray
    ) -> dict[str, Estimate]:
        figures = []
        for side, points in zip(zip(*pairs, strict=True), (ours, theirs), strict=True):
            scores = [face.scores for face in side if face.scores is not None]
            known = np.stack(scores) if len(scores) == len(side) else None
            closure = faces.lid_closure_seen(points, known)
            figures.append(faces.blink_figures(closure, self.subject.fps))
        self.recorded.add(**figures[1])
        return {name: _only(value) for name, value in figures[0].items()}

    def _sound(self, opening: np.ndarray, true: np.ndarray) -> dict[str, Estimate]:
        from avatar3d.audio.files import SAMPLE_RATE

        heard = self.heard()
        if heard is None or len(heard) < SAMPLE_RATE or not np.any(heard):
            return {}
        fps = self.subject.fps
        found = {}
        for name, lips in (("ours", opening), ("recorded", true)):
            agreement = metrics.sound_agreement(lips, fps, heard, SAMPLE_RATE)["correlation"]
            delay = offset(lips, heard, fps)
            if name == "ours":
                found = {"av_offset": delay, "sound_correlation": _only(agreement)}
            else:
                self.recorded.add(av_offset=delay.value, sound_correlation=agreement)
        return found

    def heard(self) -> np.ndarray | None:
        """(N,) sound of the frames at 16 kHz, or None."""
        if self.subject.audio_path is None:
            return None
        from avatar3d.audio.files import SAMPLE_RATE, load_audio

        samples, _ = load_audio(self.subject.audio_path)
        first, last = (
            round(number / self.subject.fps * SAMPLE_RATE)
            for number in (self.frames.start, self.frames.stop)
        )
        return samples[first:last]

    def judged(self) -> dict[str, float]:
        """Of all frames together, by networks of others; the recording's own are kept as such."""
        if self.judges is None:
            return {}
        found, recorded = self.judges.figures(self.heard(), self.frames)
        self.recorded.add(**recorded)
        return found

    def _keep(self, panel: Panel, score: float) -> None:
        if panel.index in self._kept:
            self.panels.append(panel)
        if panel.index in self._stripped:
            self.strip.append(panel)
        self.worst = sorted([*self.worst, (score, panel)], key=lambda item: item[0])[:_WORST]


def over_flat(image: np.ndarray, matte: np.ndarray, color: str) -> np.ndarray:
    """A recorded picture (H, W, 3) uint8 over flat white or black, by its matte (H, W) uint8."""
    alpha = matte.astype(np.float32)[..., None] / 255
    return (image * alpha + _LEVELS[color] * (1 - alpha) + 0.5).astype(np.uint8)


def _spread(frames: range, count: int) -> set[int]:
    return set(frames[:: max(1, len(frames) // count)][:count])


def _only(value: float) -> Estimate:
    return Estimate(float(value), math.nan, math.nan)


def _picture_scores(
    render: np.ndarray, target: np.ndarray, labels: np.ndarray, landmarks: np.ndarray
) -> dict[str, float]:
    height, width = target.shape[:2]
    face = metrics.face_box(landmarks, width, height)
    mouth = metrics.mouth_box(landmarks, width, height)
    luminance, structure = metrics.ssim_parts(render, target)
    similarity = np.einsum("hwc,hwc->hw", luminance, structure) / luminance.shape[-1]
    pasted = np.where(head_mask(labels)[..., None], render, target)
    return {
        "psnr": metrics.psnr(render, target),
        "ssim": metrics.inner_mean(similarity),
        "ms_ssim": ms_ssim(render, target, (luminance, structure)),
        "face_psnr": metrics.psnr(face.crop(render), face.crop(target)),
        "face_ssim": float(face.crop(similarity).mean()),
        "mouth_psnr": metrics.psnr(mouth.crop(render), mouth.crop(target)),
        "mouth_ssim": float(mouth.crop(similarity).mean()),
        "pasted_psnr": metrics.psnr(pasted, target),
        "face_sharpness": metrics.sharpness_ratio(face.crop(render), face.crop(target)),
        "mouth_sharpness": metrics.sharpness_ratio(mouth.crop(render), mouth.crop(target)),
    }


def _region_errors(
    render: np.ndarray, target: np.ndarray, labels: np.ndarray, matte: np.ndarray
) -> dict[str, float]:
    seam, face = seam_band(labels), face_interior(labels)
    error = np.einsum("hwc->hw", np.abs(render - target)) * 85
    return {
        "seam_error": metrics.region_error(render, target, seam),
        "face_error": metrics.region_error(render, target, face),
        "seam_expected": error_at_contrast(error, contrast(target), seam, face & ~seam),
        "person_error": metrics.region_error(render, target, matte > 127),
    }


def _lip_distances(pair: tuple[Face, Face] | None) -> dict[str, float]:
    names = ("lmd", "lmd_68", "lmd_raw", "lmd_eyes")
    if pair is None:
        return dict.fromkeys(names, math.nan)
    ours, theirs = (face.points[None, :, :2].astype(np.float64) for face in pair)
    values = (
        metrics.landmark_distance(ours, theirs),
        faces.mouth_distance(ours, theirs),
        faces.mouth_distance(ours, theirs, centred=False),
        faces.mouth_distance(ours, theirs, relative=True),
    )
    return dict(zip(names, values, strict=True))
