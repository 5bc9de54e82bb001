"""Reconstruction of a recording: the protocol of the talking-head literature, for any system.

The avatar was trained on the first part of the clip; the tracked parameters of the rest, or its
sound, drive it, and its pictures are compared with the recording. The whole frame is rendered: our
own torso over our own background plate. The customary variant, in which everything but the head is
pasted in from the recording, is reported beside it, labelled, only because others publish that
number. Pictures of another program are scored by the same code on the same frames.
"""

import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.avatar import Avatar, NerfAvatar, PosedAvatar
from avatar3d.capture.parallel import single_threaded
from avatar3d.errors import UserError
from avatar3d.evaluation import metrics
from avatar3d.evaluation.config import EvaluationConfig
from avatar3d.evaluation.foreign import ForeignFrames
from avatar3d.evaluation.judges import Judges
from avatar3d.evaluation.landmarks import Detect
from avatar3d.evaluation.novel import novel_views
from avatar3d.evaluation.perceptual import perceptual_distance
from avatar3d.evaluation.report import Pictures, described, print_table, write_report
from avatar3d.evaluation.scoring import Scorer, Scores
from avatar3d.evaluation.sheets import save_poses, save_sheets, side_by_side
from avatar3d.evaluation.split import frames_to_test, held_out, is_its_clip
from avatar3d.io.video import write_video
from avatar3d.motion import Motion, MotionConfig, compose
from avatar3d.progress import track
from avatar3d.provenance import facts_of
from avatar3d.subject import Subject, Tracking
from avatar3d.training.refine import track_photometrically

__all__ = ["evaluate", "evaluate_frames"]

_TRAIN_FRAMES = 20  # of those that training saw, looked at for the gap
_LEVELS = {"white": 255, "black": 0}
_STRANGER = 18.0  # dB in the face box; another clip of the same person has well above 20
_NO_DETECTOR = "lips, facial actions, blinks, head pose and sound: no face landmark detector here"


@dataclass
class _Run:
    """What one evaluation is about, filled while it runs."""

    subject: Subject
    tracking: Tracking
    frames: range
    config: EvaluationConfig
    output: Path
    name: str
    statements: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)


def evaluate(
    avatar: Avatar,
    subject: Subject,
    output: str | Path,
    tracking: Tracking | None = None,
    detect: Detect | None = None,
    config: EvaluationConfig | None = None,
    name: str = "avatar",
    said: Sequence[str] = (),
) -> dict[str, Any]:
    """Score an avatar on the held-out frames of its subject, or on another clip of its person.

    Args:
        avatar: trained on the leading `avatar.info["train_frames"]` frames.
        subject: the clip it was trained on, or another, all of which is compared.
        output: folder for `evaluation.json`, `.csv`, `report.html` and the contact sheets.
        tracking: parameters that drive the test frames; default those of the subject, for another
            clip what `track_photometrically` makes of them.
        detect: finds faces; without it the figures that need one are left out.
        config: the protocol; `kind` must be "reconstruction".
        name: of the avatar in the report; said: sentences to begin its statements with.

    Returns:
        What was written as JSON: "frames" [first, last], "means" by metric, "intervals" and
        "per_frame"; see `report.described`.

    Raises:
        UserError: no frames are left to test on, or the sound that is to drive is missing.
    """
    config = config or EvaluationConfig()
    if config.mouth != "tracking" and subject.audio_path is None:
        raise UserError(
            f"{subject.folder} has no sound to drive the mouth; take the protocol `default`, which "
            "follows the tracked parameters."
        )
    own = is_its_clip(avatar, subject)
    seen = avatar.info.get("train_frames") if own else None
    statements = [*said]
    if not own:
        statements.append(
            "Another clip than the avatar was trained on: all its frames are compared, placed on "
            "the avatar by photometric tracking; it must show the same person."
        )
        if tracking is None and isinstance(avatar, PosedAvatar):
            tracking = track_photometrically(subject, avatar)
    tracking = tracking or subject.tracking
    if config.last_frames:
        frames, short = frames_to_test(subject, config.last_frames, seen)
        statements += short
    else:
        frames = held_out(subject, seen) if own else range(len(subject))
    motion = _motion(avatar, subject, tracking, config).slice(frames.start, frames.stop)
    plate = _plate(subject, config)
    more = {} if plate is None else {"background": plate}
    run = _Run(subject, tracking, frames, config, Path(output), name, statements)
    run.facts = facts_of(avatar.info)
    statements += _stated(run)
    images = _images(run, avatar, motion, more)
    scorer = _scored(run, images, detect)
    begun = time.perf_counter()
    beyond: dict[str, float | None] = dict(novel_views(avatar))
    if not own and (scorer.scores.means()["face_psnr"] or math.inf) < _STRANGER:
        statements.append("The face is as far off as a stranger's: is this the same person?")
    if own:
        means = scorer.scores.means()
        beyond |= _generalisation(avatar, subject, tracking, frames.start, means, more)
    save_poses(avatar, run.output)
    run.timings["views beyond the test frames"] = time.perf_counter() - begun
    return _finished(run, scorer, beyond)


def evaluate_frames(
    source: str | Path,
    subject: Subject,
    output: str | Path,
    detect: Detect | None = None,
    config: EvaluationConfig | None = None,
    frames: range | None = None,
    tracking: Tracking | None = None,
    name: str = "",
) -> dict[str, Any]:
    """Score another system's pictures like an avatar's.

    Args:
        source: video, or folder of pictures; see `ForeignFrames`.
        frames: which frames of the subject to compare; default those of the protocol.
        tracking: its landmarks place the boxes; default the subject's.
        subject, output, detect, config, name, returns: as `evaluate`.

    Raises:
        UserError: it cannot be matched with the subject's frames.
    """
    config, source = config or EvaluationConfig(), Path(source)
    short: list[str] = []
    if frames is None and config.last_frames:
        frames, short = frames_to_test(subject, config.last_frames, None)
    frames = frames or held_out(subject, None)
    pictures = ForeignFrames.open(source, subject, frames, config.first_frame)
    run = _Run(
        subject, tracking or subject.tracking, pictures.frames, config, Path(output),
        name or source.stem, [*short, *pictures.statements],
    )  # fmt: skip
    run.statements += _stated(run)
    return _finished(run, _scored(run, pictures, detect), {})


def _stated(run: _Run) -> list[str]:
    first, last, count = run.frames[0], run.frames[-1], len(run.frames)
    behind = (
        "the avatar's own torso over its own background against the recording as it is"
        if run.config.background == "own"
        else f"over flat {run.config.background}, put behind the recording by its matte"
    )
    driven = (
        "mouth by the clip's sound; pose, eyes and brows as tracked in these frames"
        if run.config.mouth != "tracking"
        else "driven by the parameters tracked in these frames"
    )
    short = count < 2 * run.subject.fps
    unsure = ["Under two seconds: what lips and sound do over time is unsure, see the intervals."]
    return unsure * short + [
        f"Frames {first} to {last} of {run.subject.info.source_name} ({count} of "
        f"{len(run.subject)}, none seen in training), {driven}.",
        f"Whole frame: {behind}. Boxes are placed by the tracked landmarks of the recording.",
    ]


def _motion(
    avatar: Avatar, subject: Subject, tracking: Tracking, config: EvaluationConfig
) -> Motion:
    motion = tracking.motion(subject.fps)
    if config.mouth != "audio":
        return motion
    from avatar3d.audio.files import load_audio
    from avatar3d.motion.speech import mouth_for_audio

    assert subject.audio_path is not None
    samples, _ = load_audio(subject.audio_path)
    driver = getattr(avatar, "driver", None)
    mouth = mouth_for_audio(driver, samples, subject.fps, MotionConfig())
    # Where the sound ends before the picture, the lips stay as they are.
    mouth = mouth.at(np.minimum(np.arange(len(motion)), len(mouth) - 1.0))
    return compose(mouth=mouth, pose=motion, eyes=motion, fill="hold")


def _images(
    run: _Run, avatar: Avatar, motion: Motion, more: dict[str, np.ndarray]
) -> Iterator[np.ndarray]:
    """Pictures of the test frames, `more` as their background."""
    camera = run.tracking.camera
    if run.config.mouth != "heard":
        return avatar.render_motion(motion, camera=camera, **more)
    if not isinstance(avatar, NerfAvatar):
        raise UserError("Only a NeRF avatar hears sound itself; take mouth=audio for this one.")
    features = run.subject.audio_features
    rows = {name: row[run.frames.start : run.frames.stop] for name, row in features.items()}
    return avatar.render_heard(rows, motion, camera=camera, **more)


def _plate(subject: Subject, config: EvaluationConfig) -> np.ndarray | None:
    if config.background == "own":
        return None
    shape = subject.info.height, subject.info.width, 3
    return np.full(shape, _LEVELS[config.background], np.uint8)


def _scored(run: _Run, images: Iterable[np.ndarray], detect: Detect | None) -> Scorer:
    """Score all frames, and put them into a video while they are at hand."""
    perceptual = perceptual_distance()
    background = run.config.background
    judges = Judges(run.config, run.subject.fps)
    scorer = Scorer(run.subject, run.tracking, run.frames, detect, perceptual, background, judges)
    begun = time.perf_counter()
    drawn = 0.0

    def pairs() -> Iterator[np.ndarray]:
        nonlocal drawn
        waiting = iter(images)
        for index in track(run.frames, "Comparing", len(run.frames)):
            start = time.perf_counter()
            image = next(waiting)
            drawn += time.perf_counter() - start
            yield side_by_side(scorer.add(index, image), image)

    run.output.mkdir(parents=True, exist_ok=True)
    with single_threaded(torch_too=False):
        _drain(run, pairs())
    run.timings["pictures"] = drawn
    run.timings["comparison and video"] = time.perf_counter() - begun - drawn
    return scorer


def _drain(run: _Run, pairs: Iterator[np.ndarray]) -> None:
    """Go through all frames, writing them as a video where one is asked for."""
    if run.config.video:
        with tempfile.TemporaryDirectory(prefix="avatar3d-") as folder:
            sound = _sound(run, Path(folder) / "sound.wav")
            path = run.output / "side_by_side.mp4"
            write_video(path, pairs, run.subject.fps, sound, run.facts)
    else:
        for _ in pairs:
            pass


def _sound(run: _Run, path: Path) -> Path | None:
    if run.subject.audio_path is None:
        return None
    from avatar3d.audio.files import SAMPLE_RATE, load_audio, save_wav

    samples, _ = load_audio(run.subject.audio_path)
    first, last = (
        round(n / run.subject.fps * SAMPLE_RATE) for n in (run.frames.start, run.frames.stop)
    )
    if len(samples[first:last]) < SAMPLE_RATE // 10:
        return None
    save_wav(path, samples[first:last], SAMPLE_RATE)
    return path


def _finished(run: _Run, scorer: Scorer, beyond: dict[str, float | None]) -> dict[str, Any]:
    """Everything into files; returns the report."""
    begun = time.perf_counter()
    means = scorer.scores.means()
    intervals = scorer.scores.intervals(run.subject.fps)
    if scorer.detect is not None:
        for name, found in scorer.figures().items():
            means[name] = found.value
            if math.isfinite(found.low) and math.isfinite(found.high):
                intervals[name] = found.low, found.high
    means |= scorer.judged()
    means["seam_ratio"] = _ratio(means["seam_error"], means["face_error"])
    means["seam_contrast_ratio"] = _ratio(means["seam_error"], means["seam_expected"])
    run.timings["figures over time"] = time.perf_counter() - begun
    skipped = list(_skipped(run, scorer))
    report = described(
        name=run.name,
        subject=run.subject,
        config=asdict(run.config),
        statements=run.statements,
        skipped=skipped,
        means=means | beyond,
        intervals=intervals,
        recorded=scorer.recorded.means(),
        per_frame=scorer.scores.values,
        frames=run.frames,
        timings=run.timings,
    )
    sheets = save_sheets(scorer.panels, run.output)
    pictures = Pictures(sheets, [panel for _, panel in scorer.worst], scorer.strip)
    write_report(report, run.output, pictures, run.facts)
    print_table(report)
    return report


def _skipped(run: _Run, scorer: Scorer) -> Iterator[str]:
    if scorer.detect is None:
        yield _NO_DETECTOR
    elif (lost := sum(pair is None for pair in scorer.found)) > 0:
        yield f"lips and faces in {lost} frames, where none was detected in recording or render"
    if run.subject.audio_path is None:
        yield "lips against sound: the clip has none"
    if scorer.perceptual is None:
        yield "LPIPS: `pip install lpips` and AlexNet's weights, see `perceptual_weight`"
    if scorer.judges is not None:
        yield from scorer.judges.skipped
    yield "WER: a recording's words are not known; the protocol `speech` has it"


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _generalisation(
    avatar: Avatar,
    subject: Subject,
    tracking: Tracking,
    stop: int,
    means: dict[str, float | None],
    more: dict[str, Any],
) -> dict[str, float | None]:
    """Scores on frames that training saw, and how much better they are than `means`."""
    usable = np.flatnonzero(tracking.valid[:stop])
    if not len(usable) or more:
        return {}
    some = usable[np.linspace(0, len(usable) - 1, min(_TRAIN_FRAMES, len(usable))).astype(int)]
    motion, scores = tracking.motion(subject.fps), Scores()
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
