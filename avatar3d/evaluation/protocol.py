"""Self-reconstruction on held-out frames: the protocol of the talking-head literature.

The avatar was trained on the first 10/11 of the clip; the tracked parameters of the rest drive it,
and its pictures are compared with the recording. The whole frame is rendered: our own torso over
our own background plate. The customary variant, in which everything but the head is pasted in from
the recording, is reported beside it only because others publish that number.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.avatar import Avatar, PosedAvatar
from avatar3d.errors import UserError
from avatar3d.evaluation import metrics
from avatar3d.evaluation.novel import novel_views
from avatar3d.evaluation.perceptual import perceptual_distance
from avatar3d.evaluation.regions import (
    contrast,
    error_at_contrast,
    face_interior,
    head_mask,
    seam_band,
)
from avatar3d.evaluation.sheets import Panel, save_poses, save_sheets
from avatar3d.io.atomic import atomic_write
from avatar3d.progress import say, track
from avatar3d.subject import Subject, Tracking
from avatar3d.training.refine import track_photometrically

__all__ = ["TRAIN_FRACTION", "evaluate", "held_out", "is_its_clip"]

TRAIN_FRACTION = 10 / 11
_SHEET_FRAMES = 5
_TRAIN_FRAMES = 20  # of those that training saw, looked at for the gap
_MEANINGS = {
    "psnr": "whole frame PSNR, dB",
    "ssim": "whole frame SSIM",
    "lpips": "whole frame LPIPS (AlexNet), 0 is the recording",
    "face_psnr": "face box PSNR, dB",
    "face_ssim": "face box SSIM",
    "mouth_psnr": "mouth box PSNR, dB",
    "mouth_ssim": "mouth box SSIM",
    "pasted_psnr": "whole frame PSNR with the recording's torso and background, dB",
    "face_sharpness": "face gradient energy, 1 is the recording's",
    "mouth_sharpness": "mouth gradient energy, 1 is the recording's",
    "seam_error": "error in a 12-pixel band along head and neck, 8-bit steps",
    "seam_ratio": "that band's error over the inner face's; a seam shows from about 1.3",
    "seam_contrast_ratio": "that band's error over that of equally contrasted places of the face",
    "person_error": "error on the whole person, 8-bit steps",
    "lmd": "lip landmark distance, pixels",
    "lip_gap_correlation": "lip gap correlation with the recording",
    "jitter": "energy of the landmarks' shaking, 1 is the recording's",
    "train_psnr": "whole frame PSNR on frames of the training, dB",
    "train_face_psnr": "face box PSNR on frames of the training, dB",
    "gap": "by which training frames are better, whole frame, dB",
    "face_gap": "the same in the face box, dB",
    "novel_holes": "share of the turned person (35 degrees) that is see-through",
    "novel_foreign": "share of the turned head in colours not shown there from the front",
}


@dataclass
class _Scores:
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


def held_out(subject: Subject, train_frames: int | None) -> range:
    """Frame numbers that the avatar has not seen.

    Args:
        subject: the clip.
        train_frames: leading frames used in training, None for the field's int(N * 10 / 11).

    Raises:
        UserError: the avatar was trained on the whole clip.
    """
    total = len(subject)
    start = int(total * TRAIN_FRACTION + 1e-9) if train_frames is None else train_frames
    if start >= total:
        raise UserError(
            f"The avatar was trained on all {total} frames of {subject.folder}, so none is left to "
            "test on; train with `train_fraction=0.909091` to keep the last 1/11."
        )
    return range(start, total)


def is_its_clip(avatar: Avatar, subject: Subject) -> bool:
    """Whether the avatar was last trained on this clip; an avatar of unknown origin was."""
    source = avatar.info.get("source_sha256")
    return source is None or source == subject.info.source_sha256


def evaluate(
    avatar: Avatar,
    subject: Subject,
    output: str | Path,
    tracking: Tracking | None = None,
    detect: Callable[[np.ndarray], np.ndarray | None] | None = None,
) -> dict[str, Any]:
    """Score an avatar on the held-out frames of its subject, or on another clip of its person.

    Args:
        avatar: trained on the leading `avatar.info["train_frames"]` frames.
        subject: the clip it was trained on, or another, all of which is compared.
        output: folder for `evaluation.json` and the contact sheets.
        tracking: parameters that drive the test frames; default those of the subject, for another
            clip what `track_photometrically` makes of them.
        detect: (H, W, 3) uint8 to landmarks (478, 2) in pixels or None; without it the landmark
            metrics are left out.

    Returns:
        What was written as JSON: "frames" [first, last], "means" by metric and "per_frame".
    """
    output = Path(output)
    if is_its_clip(avatar, subject):
        tracking = tracking or subject.tracking
        frames = held_out(subject, avatar.info.get("train_frames"))
    else:
        if tracking is None and isinstance(avatar, PosedAvatar):
            tracking = track_photometrically(subject, avatar)
        tracking, frames = tracking or subject.tracking, range(len(subject))
    keep = set(frames[:: max(1, len(frames) // _SHEET_FRAMES)][:_SHEET_FRAMES])
    scores, panels = _Scores(), []
    found: list[tuple[np.ndarray, np.ndarray]] = []
    perceptual = perceptual_distance()
    rendered = _renders(avatar, subject, tracking, frames)
    for index, image in track(zip(frames, rendered, strict=True), "Comparing", len(frames)):
        truth = subject.frame(index)
        landmarks = tracking.landmarks_fit[index]
        scores.add(**_frame_scores(subject, index, image, truth, landmarks))
        scores.add(**_region_errors(image, truth, subject.parsing(index), subject.matte(index)))
        if perceptual is not None:
            scores.add(lpips=perceptual(image / np.float32(255), truth / np.float32(255)))
        if detect is not None:
            pair = detect(image), detect(truth)
            if pair[0] is not None and pair[1] is not None:
                found.append((pair[0], pair[1]))
        if index in keep:
            panels.append(Panel(index, truth, image, landmarks))
    means = scores.means() | _landmark_scores(found)
    means["seam_ratio"] = _ratio(means["seam_error"], means["face_error"])
    means["seam_contrast_ratio"] = _ratio(means["seam_error"], means["seam_expected"])
    means |= _generalisation(avatar, subject, tracking, frames.start, means)
    means |= novel_views(avatar)
    report = {
        "subject": subject.info.source_name,
        "source_sha256": subject.info.source_sha256,
        "size": [subject.info.width, subject.info.height],
        "frames": [frames[0], frames[-1]],
        "means": means,
        "per_frame": {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in scores.values.items()
        },
    }
    atomic_write(output / "evaluation.json", json.dumps(report, indent=1) + "\n")
    save_sheets(panels, output)
    save_poses(avatar, output)
    _print_table(means, frames)
    return report


def _renders(
    avatar: Avatar, subject: Subject, tracking: Tracking, frames: range
) -> Iterator[np.ndarray]:
    motion = tracking.motion(subject.fps).slice(frames.start, frames.stop)
    return iter(avatar.render_motion(motion, camera=tracking.camera))


def _frame_scores(
    subject: Subject, index: int, image: np.ndarray, truth: np.ndarray, landmarks: np.ndarray
) -> dict[str, float]:
    render, target = image.astype(np.float32) / 255, truth.astype(np.float32) / 255
    height, width = target.shape[:2]
    face = metrics.face_box(landmarks, width, height)
    mouth = metrics.mouth_box(landmarks, width, height)
    similarity = metrics.ssim_map(render, target)
    pasted = np.where(head_mask(subject.parsing(index))[..., None], render, target)
    return {
        "psnr": metrics.psnr(render, target),
        "ssim": metrics.ssim(render, target),
        "face_psnr": metrics.psnr(face.crop(render), face.crop(target)),
        "face_ssim": float(face.crop(similarity).mean()),
        "mouth_psnr": metrics.psnr(mouth.crop(render), mouth.crop(target)),
        "mouth_ssim": float(mouth.crop(similarity).mean()),
        "pasted_psnr": metrics.psnr(pasted, target),
        "face_sharpness": metrics.sharpness_ratio(face.crop(render), face.crop(target)),
        "mouth_sharpness": metrics.sharpness_ratio(mouth.crop(render), mouth.crop(target)),
    }


def _region_errors(
    image: np.ndarray, truth: np.ndarray, labels: np.ndarray, matte: np.ndarray
) -> dict[str, float]:
    render, target = image.astype(np.float32) / 255, truth.astype(np.float32) / 255
    seam, face = seam_band(labels), face_interior(labels)
    error = np.abs(render - target).mean(-1) * 255
    return {
        "seam_error": metrics.region_error(render, target, seam),
        "face_error": metrics.region_error(render, target, face),
        "seam_expected": error_at_contrast(error, contrast(target), seam, face & ~seam),
        "person_error": metrics.region_error(render, target, matte > 127),
    }


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _generalisation(
    avatar: Avatar,
    subject: Subject,
    tracking: Tracking,
    stop: int,
    means: dict[str, float | None],
) -> dict[str, float | None]:
    """Scores on frames that training saw, and how much better they are than `means`."""
    usable = np.flatnonzero(tracking.valid[:stop])
    if not len(usable):
        return {}
    some = usable[np.linspace(0, len(usable) - 1, min(_TRAIN_FRAMES, len(usable))).astype(int)]
    motion, scores = tracking.motion(subject.fps), _Scores()
    for index in some:
        now = motion.slice(int(index), int(index) + 1)
        (image,) = avatar.render_motion(now, camera=tracking.camera)
        render, target = image.astype(np.float32) / 255, subject.frame(index) / np.float32(255)
        height, width = target.shape[:2]
        face = metrics.face_box(tracking.landmarks_fit[index], width, height)
        scores.add(
            train_psnr=metrics.psnr(render, target),
            train_face_psnr=metrics.psnr(face.crop(render), face.crop(target)),
        )
    result = scores.means()
    for name, seen, unseen in (
        ("gap", "train_psnr", "psnr"),
        ("face_gap", "train_face_psnr", "face_psnr"),
    ):
        better, worse = result[seen], means[unseen]
        result[name] = None if better is None or worse is None else better - worse
    return result


def _landmark_scores(found: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    if len(found) < 3:
        return {}
    ours, theirs = (np.stack(points) for points in zip(*found, strict=True))
    return {
        "lmd": metrics.landmark_distance(ours, theirs),
        "lip_gap_correlation": metrics.lip_gap_correlation(ours, theirs),
        "jitter": metrics.jitter_ratio(ours, theirs),
    }


def _print_table(means: dict[str, float | None], frames: Iterable[int]) -> None:
    numbers = list(frames)
    say(f"Held-out frames {numbers[0]} to {numbers[-1]}, mean over {len(numbers)}:")
    for name, meaning in _MEANINGS.items():
        value = means.get(name)
        if value is not None:
            say(f"  {value:8.3f}  {meaning}")
