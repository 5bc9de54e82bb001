"""When training ends: by the clock, by frames held back, or by the number of iterations."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar3d.head import HeadModel
from avatar3d.subject import Subject
from avatar3d.training import TrainingConfig, loop, schedule
from avatar3d.training.data import hold_back
from avatar3d.training.events import Done, HeldBack, Said, Step
from avatar3d.training.loop import SplatTraining
from avatar3d.training.schedule import CHECK_EVERY, Schedule


class Clock:
    """A clock that only work moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(schedule.time, "monotonic", lambda: self.now)


def _work(clock: Clock, config: TrainingConfig, frames: int, step: float, refine: float) -> float:
    """A training whose iterations and refinement steps take so long; when it ends."""
    plan = Schedule(config)
    iteration = 0
    while iteration < plan.length("warmup"):
        clock.now += step
        iteration += 1
        plan.iterated("warmup", iteration)
    for frame in range(frames):
        steps = plan.refine_steps(frame, frames - frame)
        clock.now += steps * refine
        plan.refined(steps, steps * refine)
    plan.fit(0)
    iteration = 0
    while iteration < plan.length("final"):
        clock.now += step
        iteration += 1
        plan.iterated("final", iteration)
    assert plan.rate("final", iteration) == pytest.approx(config.final_rate, rel=0.1)
    return clock.now


@pytest.mark.parametrize(
    ("step", "refine"),
    [(0.01, 0.004), (0.03, 0.012), (0.02, 0.06), (0.3, 0.1)],
    ids=["fast", "slow", "long", "stuck"],
)
def test_a_time_limit_is_met_on_any_machine(monkeypatch, step, refine):
    config = TrainingConfig(seconds=60, warmup_iterations=300, iterations=100_000)
    end = _work(Clock(monkeypatch), config, 500, step, refine)
    assert 50 < end <= 60


def test_enough_time_changes_nothing(monkeypatch):
    config = TrainingConfig(seconds=1000, warmup_iterations=100, iterations=300, refine_steps=8)
    end = _work(Clock(monkeypatch), config, 50, 0.01, 0.004)
    assert end == pytest.approx(100 * 0.01 + 50 * 8 * 0.004 + 300 * 0.01)


def test_without_a_limit_no_clock_is_asked(monkeypatch):
    ticks = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(schedule.time, "monotonic", lambda: next(ticks))
    plan = Schedule(TrainingConfig(iterations=500))
    for iteration in range(0, 500, 20):
        plan.iterated("final", iteration)
        assert plan.refine_steps(iteration, 500) == plan.config.refine_steps
    assert plan.length("final") == 500


def test_frames_held_back_that_stop_gaining_end_the_training():
    plan = Schedule(TrainingConfig(iterations=10_000, patience=3))
    losses = [1.0, 0.8, 0.7, 0.65, 0.6499, 0.65, 0.66, 0.65]
    said = [plan.looked(CHECK_EVERY * (n + 1), loss) for n, loss in enumerate(losses)]
    assert said == [False] * 6 + [True, False]
    end = plan.length("final")
    assert 700 < end < 1000
    rates = [plan.rate("final", iteration) for iteration in range(end + 1)]
    assert np.all(np.diff(rates) < 0)
    assert rates[-1] == pytest.approx(plan.config.final_rate)


def test_frames_that_still_gain_do_not(monkeypatch):
    plan = Schedule(TrainingConfig(iterations=10_000, patience=3))
    assert not any(plan.looked(CHECK_EVERY * n, 0.99**n) for n in range(1, 90))


def test_frames_held_back_are_one_stretch_and_never_trained_on():
    frames = np.arange(100, 300, 2)
    kept, held = hold_back(frames, 8)
    assert not set(kept) & set(held)
    assert len(held) == 8
    assert np.ptp(held) == 14
    assert len(hold_back(frames[:40], 8)[1]) == 0


LOOKING = TrainingConfig(
    gaussians=200, basis=2, warmup_iterations=5, iterations=60, refine_steps=0, held_back=1,
    patience=1, preview_iterations=10**9,
)  # fmt: skip


@pytest.fixture
def looking(tiny_subject: Subject, tiny_head_file: Path, tmp_path: Path, monkeypatch):
    """Make or go on with a training that looks every ten steps and takes no gain for enough."""
    monkeypatch.setattr(loop, "CHECK_EVERY", 10)
    monkeypatch.setattr(schedule, "_GAIN", 0.9)
    head = HeadModel.load(tiny_head_file)

    def make(name: str) -> SplatTraining:
        (tmp_path / name).mkdir(exist_ok=True)
        return SplatTraining(tiny_subject, head, LOOKING, tmp_path / name)

    return make


def test_a_training_looks_at_them_and_ends_the_same_when_interrupted(looking):
    whole = looking("whole")
    assert len(whole.held_back) == 1
    events = list(whole.events())
    looks = [event.iteration for event in events if isinstance(event, HeldBack)]
    steps = [event for event in events if isinstance(event, Step) and event.phase == "final"]
    assert looks == list(range(10, len(steps) + 1, 10))
    assert any(isinstance(event, Said) for event in events)
    assert 20 < len(steps) < 40
    assert all(sum(step.terms.values()) == pytest.approx(step.loss, rel=1e-5) for step in steps)

    part = looking("part")
    for event in part.events():
        # Right after a step that is followed by a look.
        part.stopping |= isinstance(event, Step) and event.iteration == 20
    resumed = looking("part")
    assert isinstance(list(resumed.events())[-1], Done)
    assert resumed.schedule.losses == whole.schedule.losses
    for name, value in whole.parameters.named_parameters():
        assert torch.equal(value, dict(resumed.parameters.named_parameters())[name]), name


def test_a_time_limit_holds_in_earnest(tiny_subject: Subject, tiny_head_file: Path, tmp_path: Path):
    config = replace(
        TrainingConfig(gaussians=200, basis=2, warmup_iterations=20, refine_steps=2, patience=0),
        iterations=10**6,
        seconds=4,
    )
    begun = time.monotonic()
    training = SplatTraining(tiny_subject, HeadModel.load(tiny_head_file), config, tmp_path)
    assert isinstance(list(training.events())[-1], Done)
    assert time.monotonic() - begun < 6
