"""NeRSemble's benchmark, task "Mono FLAME Avatar": own figures, and the videos to submit.

The test's pictures are secret, so what can be measured here is what training did not see of the
recorded sequences, driven as the test is: by the benchmark's FLAME parameters.
"""

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.avatar import Avatar
from avatar3d.capture.nersemble import (
    FPS,
    HOLD_OUT_CAMERAS,
    PEOPLE,
    SIZE,
    TEST_SEQUENCES,
    TRAIN_CAMERA,
    FlameTrack,
    Participant,
    read_participant,
)
from avatar3d.errors import UserError
from avatar3d.evaluation.config import EvaluationConfig
from avatar3d.evaluation.flame import FlameConversion
from avatar3d.evaluation.landmarks import Detect
from avatar3d.evaluation.protocol import evaluate
from avatar3d.evaluation.report import Pictures, described, print_table, write_report
from avatar3d.evaluation.split import is_its_clip
from avatar3d.geometry import Camera
from avatar3d.io.atomic import atomic_path
from avatar3d.io.video import write_video
from avatar3d.progress import say, track
from avatar3d.provenance import facts_of
from avatar3d.subject import Subject, Tracking

__all__ = ["add_to_submission", "evaluate_benchmark", "missing_videos"]

_CRF = 14  # as the benchmark's own writer
_LEVELS = {"white": 255, "black": 0}


def evaluate_benchmark(
    avatar: Avatar,
    subject: Subject,
    output: str | Path,
    config: EvaluationConfig,
    tracking: Tracking | None = None,
    detect: Detect | None = None,
    name: str = "avatar",
) -> dict[str, Any]:
    """Score an avatar of one of the benchmark's people, and add their test to `submission.zip`.

    Args:
        avatar: trained on `subject`; subject: the imported folder of `config.benchmark`.
        output, detect, name: as `evaluate`; `submission.zip` there keeps what it has of others.
        config: `benchmark` is the person's folder; background: behind the renders.
        tracking: of the subject, refined.

    Returns:
        The report of the recorded frames that training did not see, without figures where there
        are none.

    Raises:
        UserError: no such folder, or the subject was not made from it.
    """
    person = read_participant(config.benchmark)
    tracking = tracking or subject.tracking
    flame = _recorded(person, subject)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    seen = avatar.info.get("train_frames") if is_its_clip(avatar, subject) else None
    seen = len(subject) if seen is None else int(seen)
    usable = np.flatnonzero(tracking.valid[:seen])
    camera = person.T_camera_world[TRAIN_CAMERA]
    conversion = FlameConversion.fit(flame, tracking, usable, camera)
    submitted = _submit(avatar, person, conversion, tracking, output, config)
    statements = [
        f"Person {person.number} of NeRSemble's benchmark, driven by its FLAME parameters, which "
        f"were related to the avatar's on {len(usable)} training frames; on some left out, "
        f"{100 * conversion.error:.0f} % of the variance of the expressions is not explained.",
        submitted,
    ]
    if seen >= len(subject):
        statements.append("Trained on all recorded frames, so none is left to score.")
        report = described(
            name=name, subject=subject, config=asdict(config), statements=statements,
            skipped=["everything; train another avatar with train_fraction=0.909091 for that"],
            means={}, intervals={}, recorded={}, per_frame={}, frames=[], timings={},
        )  # fmt: skip
        write_report(report, output, Pictures(), facts_of(avatar.info))
        print_table(report)
        return report
    return evaluate(
        avatar, subject, output, conversion.apply(flame, tracking), detect,
        replace(config, kind="reconstruction"), name, statements,
    )  # fmt: skip


def add_to_submission(path: str | Path, videos: Mapping[str, Path]) -> None:
    """Put videos into a ZIP under their names, keeping what else there is; atomically."""
    path = Path(path)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        if path.is_file():
            with zipfile.ZipFile(path) as before:
                for entry in before.infolist():
                    if entry.filename not in videos:
                        archive.writestr(entry, before.read(entry))
        for name, video in videos.items():
            archive.write(video, name)


def missing_videos(path: str | Path) -> list[str]:
    """Names of the videos that the benchmark asks for and the ZIP lacks."""
    with zipfile.ZipFile(path) as archive:
        there = set(archive.namelist())
    wanted = [
        _entry(person, sequence, camera)
        for person in PEOPLE
        for sequence in TEST_SEQUENCES
        for camera in (TRAIN_CAMERA, *HOLD_OUT_CAMERAS)
    ]
    return [name for name in wanted if name not in there]


def _entry(person: int, sequence: str, camera: str) -> str:
    return f"{person:03d}/{sequence}/cam_{camera}.mp4"


def _recorded(person: Participant, subject: Subject) -> FlameTrack:
    """FLAME of the subject's frames, which are the recorded sequences one after the other."""
    tracks = [person.flame(sequence) for sequence in person.recorded]
    count = sum(map(len, tracks))
    if count != len(subject):
        raise UserError(
            f"{person.folder} has FLAME parameters of {count} recorded frames, but "
            f"{subject.folder} has {len(subject)} frames; make it with `avatar3d import "
            f"{person.folder}`."
        )
    return FlameTrack(
        np.concatenate([track.values for track in tracks]),
        np.concatenate([track.T_world_model for track in tracks]),
    )


def _submit(
    avatar: Avatar, person: Participant, conversion: FlameConversion, tracking: Tracking,
    output: Path, config: EvaluationConfig,
) -> str:  # fmt: skip
    """Render every test sequence from every camera; says what is in the ZIP then."""
    if not person.tested:
        return "No submission was made: the folder has no tracking of the test sequences."
    cameras = [name for name in (TRAIN_CAMERA, *HOLD_OUT_CAMERAS) if name in person.K]
    level = _LEVELS.get(config.background, 255)
    plate = np.full((SIZE, SIZE, 3), level, np.uint8)
    archive = output / "submission.zip"
    with tempfile.TemporaryDirectory(prefix="avatar3d-") as folder:
        videos: dict[str, Path] = {}
        for sequence in person.tested:
            driven = conversion.apply(person.flame(sequence), tracking)
            for name in cameras:
                seen = conversion.seen_from(driven, person.T_camera_world[name])
                motion = seen.motion(FPS)
                camera = Camera(person.K[name], SIZE, SIZE)
                pictures = avatar.render_motion(motion, camera, background=plate)
                path = Path(folder) / f"{len(videos)}.mp4"
                shown = _tracked(pictures, f"{sequence}, camera {name}", len(motion))
                write_video(path, shown, FPS, facts=facts_of(avatar.info), crf=_CRF)
                videos[_entry(person.number, sequence, name)] = path
        add_to_submission(archive, videos)
    missing = missing_videos(archive)
    say(f"{archive}: {len(videos)} videos of person {person.number}.")
    left = f"{len(missing)} videos of others are still missing" if missing else "complete"
    return (
        f"submission.zip: {len(videos)} videos of this person, {len(cameras)} cameras, over flat "
        f"{config.background if config.background in _LEVELS else 'white'}, H.264 at crf {_CRF} "
        f"and {FPS} frames a second; {left}."
    )


def _tracked(pictures: Iterator[np.ndarray], what: str, count: int) -> Iterator[np.ndarray]:
    yield from track(pictures, f"Rendering {what}", count)
