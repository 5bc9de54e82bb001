"""How long the phases of a training last: what the config says, the clock, and convergence."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

from avatar3d.training.config import RunConfig

__all__ = ["CHECK_EVERY", "Schedule"]

CHECK_EVERY = 100
"""Iterations of the final phase between two looks at the frames held back."""
_LOOK_AT_CLOCK = 10  # iterations
_WARM_UP_UNTIL, _REFINE_UNTIL = 0.25, 0.6  # of the time, unless the iterations are done sooner
_FEWEST_STEPS = 2
_GAIN = 0.01  # of the best loss so far, 0.1 dB; less does not count as progress
_SETTLING = 0.3  # of the iterations done so far; the rates then fall to their end


@dataclass
class Schedule:
    """The length of every phase, decided as late as possible.

    With `config.seconds` the clock decides: photometric tracking takes fewer steps a frame, or
    passes a frame's correction on to those after it, so that it ends by three fifths of the time,
    and the final phase ends, its rates decayed, when the time is over. Without, nothing here looks
    at a clock.

    The frames held back decide too: once they have not gained for `config.patience` looks, the
    rates decay quickly and the phase ends.

    Attributes:
        config: what it goes by.
        started: `time.monotonic()` when the work began.
        warmup, total: iterations of the first and the final phase, as far as is known.
        losses: mean loss of the frames held back at every look.
        converged: whether they have stopped to gain; `at` the iteration, `rate` the rate then.
        spent: seconds that earlier, interrupted processes have used.
        prepared: seconds that passed before the first iteration.
    """

    config: RunConfig
    started: float = field(default_factory=lambda: time.monotonic())
    warmup: int = 0
    total: int = 0
    losses: list[float] = field(default_factory=list)
    converged: bool = False
    at: int = 0
    rate_then: float = 1.0
    spent: float = 0.0
    prepared: float = 3.0
    _step_seconds: float = 0.0
    _pace: float = 0.0  # seconds an iteration
    _mark: tuple[str, int, float] = ("", 0, 0.0)

    def __post_init__(self) -> None:
        self.warmup = self.warmup or self.config.warmup_iterations
        self.total = self.total or self.config.iterations

    @property
    def elapsed(self) -> float:
        """Seconds of work so far."""
        return self.spent + time.monotonic() - self.started

    @property
    def score(self) -> float | None:
        """The last mean loss of the frames held back, where there is one."""
        return self.losses[-1] if self.losses else None

    def begin(self) -> None:
        """The first iteration is next."""
        self.prepared = time.monotonic() - self.started

    def length(self, phase: str) -> int:
        """Iterations of a phase, as far as is known."""
        return self.warmup if phase == "warmup" else self.total

    def rate(self, phase: str, iteration: int) -> float:
        """Factor of all learning rates."""
        if phase == "warmup":
            return 1.0
        if self.converged:
            done = (iteration - self.at) / max(self.total - self.at, 1)
            return self.rate_then * (self.config.final_rate / self.rate_then) ** done
        return self.config.final_rate ** (iteration / max(self.total, 1))

    def refine_steps(self, frame: int, frames_left: int) -> int:
        """Optimiser steps of photometric tracking that this frame gets; 0 leaves it out."""
        most = self.config.refine_steps
        if not self.config.seconds or not self._step_seconds:
            return most
        left = max(_REFINE_UNTIL * self.config.seconds - self.elapsed, 1e-3) / max(frames_left, 1)
        steps = int(left / self._step_seconds)
        if steps >= _FEWEST_STEPS:
            return min(steps, most)
        every = math.ceil(_FEWEST_STEPS * self._step_seconds / left)
        return _FEWEST_STEPS if frame % every == 0 else 0

    def refined(self, steps: int, seconds: float) -> None:
        """Take note of how long a frame with so many steps took."""
        if steps:
            measured = seconds / steps
            self._step_seconds += (measured - self._step_seconds) * (
                0.1 if self._step_seconds else 1.0
            )

    def iterated(self, phase: str, iteration: int) -> None:
        """Take note of a finished iteration; with a time limit, see how many more there will be."""
        if not self.config.seconds or iteration % _LOOK_AT_CLOCK:
            return
        before, self._mark = self._mark, (phase, iteration, self.elapsed)
        if before[:2] == (phase, iteration - _LOOK_AT_CLOCK):
            self._pace = (self._mark[2] - before[2]) / _LOOK_AT_CLOCK
        if phase == "warmup":
            if self._mark[2] > _WARM_UP_UNTIL * self.config.seconds:
                self.warmup = iteration
        elif not self.converged:
            self.fit(iteration)

    def fit(self, iteration: int) -> None:
        """With a time limit, as many iterations of the final phase as there is time for."""
        if self.config.seconds and self._pace:
            left = max(self.config.seconds - self._reserve - self.elapsed, 0.0)
            self.total = min(self.config.iterations, max(iteration + int(left / self._pace), 1))

    def looked(self, iteration: int, loss: float) -> bool:
        """Take note of the loss of the frames held back; True when it has just converged."""
        self.losses.append(loss)
        patience = self.config.patience
        if self.converged or not patience or len(self.losses) <= patience:
            return False
        before, recent = min(self.losses[:-patience]), min(self.losses[-patience:])
        if recent < before * (1 - _GAIN):
            return False
        end = iteration + round(_SETTLING * iteration)
        if end >= self.total:
            return False
        self.rate_then = self.rate("final", iteration)
        self.converged, self.at, self.total = True, iteration, end
        return True

    def state(self) -> dict[str, Any]:
        """What a resumed training must know, as JSON."""
        return {
            "warmup": self.warmup,
            "total": self.total,
            "losses": self.losses,
            "converged": self.converged,
            "at": self.at,
            "rate_then": self.rate_then,
            "spent": self.elapsed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        for name, value in state.items():
            setattr(self, name, value)

    @property
    def _reserve(self) -> float:
        """Seconds kept for what follows: previews, the audio driver and the file.

        It takes about as long as what came before the first iteration, and slows with it.
        """
        return min(self.prepared + 1.0, 0.3 * self.config.seconds)
