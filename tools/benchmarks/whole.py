"""What a user waits for: loading an avatar, its pictures and videos, training and tracking."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.avatar import SplatAvatar, load
from avatar3d.head.library import load_head
from avatar3d.kernels import torch_on_one_thread
from avatar3d.rendering.video import render
from avatar3d.subject import Subject
from avatar3d.training import TrainingConfig
from avatar3d.training.events import Step
from avatar3d.training.loop import SplatTraining
from avatar3d.training.refine import Refiner
from avatar3d.training.schedule import Schedule

__all__ = ["Row", "avatar_rows", "subject_rows"]

_FRAMES = 150  # of a motion
_WARM, _STEPS = 30, 120  # iterations
_WARM_ROUNDS, _ROUNDS = 2, 8  # of photometric tracking
_FEW_FRAMES = 40  # decoded for a few iterations


@dataclass(frozen=True)
class Row:
    """A figure, and what it should be: at least or, with `least` false, at most `must`."""

    name: str
    value: float
    unit: str
    must: float
    goal: float
    least: bool = True


def avatar_rows(path: Path) -> Iterator[Row]:
    """Of an avatar file alone."""
    load(path)
    seconds = statistics.median(_seconds(lambda: load(path)) for _ in range(5))
    yield Row("the file loads in", seconds, "s", 0.3, 0.3, least=False)
    avatar = load(path)
    idle = avatar.idle_motion.slice(0, _FRAMES)
    list(islice(avatar.render_motion(idle), 16))
    seconds = _seconds(lambda: [None for _ in avatar.render_motion(idle)])
    yield Row("motion to RGB", len(idle) / seconds, "frames/s", 200, 300)
    with tempfile.TemporaryDirectory() as folder:
        seconds = _seconds(lambda: render(avatar, idle, Path(folder) / "idle.mp4", device="cpu"))
    yield Row("motion to mp4", len(idle) / seconds, "frames/s", 60, 60)


def subject_rows(path: Path, subject: Subject) -> Iterator[Row]:
    """Of training on a subject, and of tracking it with an avatar of the same person."""
    with tempfile.TemporaryDirectory() as folder:
        yield _training(subject, Path(folder))
    yield _tracking(load(path), subject)


def _training(subject: Subject, run: Path) -> Row:
    """The median, as a stutter of the machine is no property of the code."""
    config = TrainingConfig(
        max_frames=_FEW_FRAMES, warmup_iterations=1, refine_steps=0, patience=0, device="cpu",
        iterations=_WARM + _STEPS, preview_iterations=10**9, checkpoint_seconds=1e9,
    )  # fmt: skip
    training = SplatTraining(subject, load_head(subject.tracking.head_model), config, run)
    times = []
    for event in training.events():
        if isinstance(event, Step) and event.phase == "final":
            times.append(time.perf_counter())
            if event.iteration == _WARM + _STEPS:
                break
    pace = 1 / float(np.median(np.diff(times[_WARM:])))
    return Row(f"training with {len(training.state)} Gaussians", pace, "iterations/s", 60, 80)


def _tracking(avatar: SplatAvatar, subject: Subject) -> Row:
    refiner = Refiner(
        subject, subject.tracking, avatar._rig, avatar._parameters, TrainingConfig.refine_scale
    )
    rounds = refiner.run(Schedule(TrainingConfig()))
    with torch_on_one_thread():
        for _ in range(_WARM_ROUNDS):  # the first take more steps
            next(rounds)
        begun = time.perf_counter()
        frames = sum(len(some) for some in islice(rounds, _ROUNDS))
        seconds = time.perf_counter() - begun
    name = f"photometric tracking, {TrainingConfig.refine_steps} steps"
    return Row(name, 1e3 * seconds / max(frames, 1), "ms/frame", 60, 40, least=False)


def _seconds(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
