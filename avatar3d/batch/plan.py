"""How long, and what, a library of many people takes: costs by stage, and a simulation.

A stage costs something by job and something by minute of video, fitted to what jobs were measured
to take. The simulation runs jobs through their stages on machines that get lost and come back;
stages are resumable, so that a lost machine costs the stage that it was in.
"""

import heapq
import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.batch.record import STAGES
from avatar3d.errors import UserError

__all__ = [
    "MEASURED", "Cluster", "Forecast", "Measured", "StageCost", "fit_costs", "measured_in",
    "simulate",
]  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One stage of one job as it was run: seconds of clock, CPU and GPU, peak GB, MB stored."""

    stage: str
    minutes: float
    seconds: float
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    memory_gb: float = 0.0
    stored_mb: float = 0.0


@dataclass(frozen=True)
class StageCost:
    """Each pair is what a job costs, and what every minute of its video adds."""

    stage: str
    seconds: tuple[float, float]
    cpu_seconds: tuple[float, float] = (0.0, 0.0)
    gpu_seconds: tuple[float, float] = (0.0, 0.0)
    memory_gb: float = 0.0
    stored_mb: tuple[float, float] = (0.0, 0.0)

    def at(self, minutes: float, what: str = "seconds") -> float:
        """Cost for a clip of some minutes."""
        base, slope = getattr(self, what)
        return float(base + slope * minutes)


MEASURED = (
    StageCost("capture", (0.0, 82.5), (0.0, 165.0), memory_gb=1.1, stored_mb=(0.0, 186.0)),
    StageCost("train", (64.0, 0.0), (128.0, 0.0), memory_gb=1.0, stored_mb=(5.0, 0.0)),
)
"""What README.md says of two cores and a 512x512 clip of 20 s: 55 ms a frame at 25 frames a second,
64 s of default training, 62 MB of subject; CPU seconds as if both cores were busy all the time.
Evaluation and export are not in it: fit the costs to jobs of your own that have them."""


@dataclass(frozen=True)
class Cluster:
    """What jobs run on, and what goes wrong.

    Attributes:
        machines: how many.
        slots: jobs at a time on each.
        slowdown: of a stage when all slots are busy, against alone (1: none).
        loss_per_hour: how often a machine is lost, as a Poisson process.
        repair_hours: until a lost machine is back, or another is.
        crash: probability that one run of a stage fails, at its end.
        retries: how often a stage is run again after a crash.
        bad_clips: share of clips that capture refuses, which is not tried again.
    """

    machines: int
    slots: int = 1
    slowdown: float = 1.0
    loss_per_hour: float = 0.0
    repair_hours: float = 0.1
    crash: float = 0.0
    retries: int = 3
    bad_clips: float = 0.0

    def __post_init__(self) -> None:
        rates = (self.crash, self.bad_clips)
        if self.machines < 1 or self.slots < 1 or self.slowdown < 1 or self.retries < 0:
            raise UserError("A plan needs machines and slots of 1 and more, a slowdown from 1 on.")
        if (
            not all(0 <= rate < 1 for rate in rates)
            or min(self.loss_per_hour, self.repair_hours) < 0
        ):
            raise UserError("Shares in a plan lie between 0 and 1, and rates are not negative.")

    def _times(self) -> tuple[float, float]:
        return self.loss_per_hour, self.repair_hours


@dataclass
class Forecast:
    """Hours until everything is done, and what was used; `busy_hours` are of slots."""

    hours: float = 0.0
    finished: int = 0
    refused: int = 0
    failed: int = 0
    lost: int = 0
    busy_hours: float = 0.0
    wasted_hours: float = 0.0
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0
    stored_gb: float = 0.0
    memory_gb: float = 0.0


def fit_costs(rows: Iterable[Measured]) -> tuple[StageCost, ...]:
    """Costs of the stages of measured jobs, by non-negative least squares; stages in their order.

    Raises:
        UserError: there are no rows.
    """
    stages: dict[str, list[Measured]] = {}
    for row in rows:
        stages.setdefault(row.stage, []).append(row)
    if not stages:
        raise UserError("No job was measured yet; run a few before planning from them.")
    return tuple(_fitted(stage, of) for stage, of in stages.items())


def measured_in(library: str | Path) -> list[Measured]:
    """The stages of the finished rows of a library, as their jobs measured them.

    Jobs do not measure GPUs. A job that was killed measured its last run of a stage alone.

    Raises:
        UserError: no row is finished.
    """
    from avatar3d.batch.library import Library
    from avatar3d.subject import Subject

    found = []
    for record in Library(library).records():
        if record.status != "done":
            continue
        info = Subject(Path(library) / record.name / f"{record.name}.subject").info
        minutes = info.frames / info.fps / 60
        for name in STAGES:
            if (cost := record.stages.get(name)) is not None:
                found.append(Measured(
                    name, minutes, cost.seconds, cost.cpu_seconds,
                    memory_gb=cost.peak_memory / 1e9, stored_mb=cost.bytes / 1e6,
                ))  # fmt: skip
    if not found:
        raise UserError(f"{library} has no finished rows to measure; make some first.")
    return found


def simulate(
    identities: int,
    minutes: float | Sequence[float],
    costs: Sequence[StageCost],
    cluster: Cluster,
    seed: int = 0,
) -> Forecast:
    """Run `identities` jobs through the stages on a cluster, by discrete events.

    Args:
        identities: number of jobs.
        minutes: of video each, or lengths to repeat.
        costs: of the stages, in order.
        cluster: where.
        seed: of everything random.
    """
    lengths = [minutes] if isinstance(minutes, int | float) else list(minutes)
    if identities < 1 or not costs or not lengths or min(lengths) < 0:
        raise UserError("A plan needs at least one identity, one stage and lengths from 0 on.")
    return _Simulation(identities, lengths, costs, cluster, random.Random(seed)).run()


def _fitted(stage: str, rows: list[Measured]) -> StageCost:
    from scipy.optimize import nnls

    lengths = np.array([row.minutes for row in rows])
    design = np.c_[np.ones(len(rows)), lengths]
    if stage == "start":  # a process starts as fast for a long clip
        design[:, 1] = 0
    elif np.ptp(lengths) < 0.1 * lengths.mean():  # one length: others in proportion
        design[:, 0] = 0

    def pair(what: str) -> tuple[float, float]:
        base, slope = nnls(design, np.array([getattr(row, what) for row in rows]))[0]
        return float(base), float(slope)

    return StageCost(
        stage, pair("seconds"), pair("cpu_seconds"), pair("gpu_seconds"),
        max(row.memory_gb for row in rows), pair("stored_mb"),
    )  # fmt: skip


@dataclass
class _Simulation:
    identities: int
    lengths: Sequence[float]
    costs: Sequence[StageCost]
    cluster: Cluster
    random: random.Random
    forecast: Forecast = field(default_factory=Forecast)

    def run(self) -> Forecast:
        cluster = self.cluster
        stages = [cost.stage for cost in self.costs]
        self.refusing = stages.index("capture") if "capture" in stages else 0
        self.waiting = deque((job, 0, 0) for job in range(self.identities))
        self.lost_at = [self._next_loss(0.0) for _ in range(cluster.machines)]
        slots = range(cluster.machines * cluster.slots)
        # By time: a slot becomes free, with what it had done (None: nothing) and whether in vain.
        events: list[tuple[float, int, tuple[int, int, int] | None, bool]] = [
            (0.0, slot, None, False) for slot in slots
        ]
        heapq.heapify(events)
        idle: list[int] = []
        while events:
            now, slot, work, lost = heapq.heappop(events)
            if work is not None:
                self.forecast.hours = now / 3600
                self._done(work, lost)
            if lost:
                back = now + cluster.repair_hours * 3600
                heapq.heappush(events, (back, slot, None, False))
            else:
                idle.append(slot)
            while idle and self.waiting:
                self._start(events, now, idle.pop())
        forecast = self.forecast
        forecast.memory_gb = cluster.slots * max(cost.memory_gb for cost in self.costs)
        return forecast

    def _start(self, events: list[Any], now: float, slot: int) -> None:
        machine = slot // self.cluster.slots
        while self.lost_at[machine] <= now:  # lost while idle, or by another slot
            back = self.lost_at[machine] + self.cluster.repair_hours * 3600
            if back > now:
                heapq.heappush(events, (back, slot, None, False))
                return
            self.lost_at[machine] = self._next_loss(back)
        work = self.waiting.popleft()
        cost = self.costs[work[1]].at(self.lengths[work[0] % len(self.lengths)])
        end = now + cost * self.cluster.slowdown
        gone = self.lost_at[machine]
        self.forecast.busy_hours += (min(end, gone) - now) / 3600
        if gone < end:
            self.forecast.wasted_hours += (gone - now) / 3600
        heapq.heappush(events, (min(end, gone), slot, work, gone < end))

    def _done(self, work: tuple[int, int, int], lost: bool) -> None:
        job, stage, tries = work
        forecast, cost = self.forecast, self.costs[stage]
        if lost:
            forecast.lost += 1
            self.waiting.appendleft(work)
            return
        minutes = self.lengths[job % len(self.lengths)]
        forecast.cpu_hours += cost.at(minutes, "cpu_seconds") / 3600
        forecast.gpu_hours += cost.at(minutes, "gpu_seconds") / 3600
        if stage == self.refusing and tries == 0 and self.random.random() < self.cluster.bad_clips:
            forecast.refused += 1
        elif self.cluster.crash and self.random.random() < self.cluster.crash:
            forecast.wasted_hours += cost.at(minutes) * self.cluster.slowdown / 3600
            if tries < self.cluster.retries:
                self.waiting.appendleft((job, stage, tries + 1))
            else:
                forecast.failed += 1
        else:
            forecast.stored_gb += cost.at(minutes, "stored_mb") / 1000
            if stage + 1 < len(self.costs):
                self.waiting.appendleft((job, stage + 1, 0))
            else:
                forecast.finished += 1

    def _next_loss(self, now: float) -> float:
        rate = self.cluster.loss_per_hour
        return now + self.random.expovariate(rate) * 3600 if rate else float("inf")
