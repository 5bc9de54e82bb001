"""What the training of a field is in the middle of, as the arrays of a checkpoint."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar.nerf.state import NerfState
from avatar3d.subject import Tracking
from avatar3d.training.nerf.parameters import TrainedField
from avatar3d.training.snapshot import copied, refined_tracking, tracking_arrays

__all__ = ["FieldSnapshot"]


@dataclass
class FieldSnapshot:
    """All of a run but its optimiser and its random generator, which `checkpoint` knows.

    Attributes:
        iteration: where it is.
        tracking: refined.
        state: the field at the start.
        parameters, average: learned values and their running mean, by name.
        averaged: how many values the mean is of.
        occupied: what `Occupied.tensors` returned; errors: of the choice of pixels.
        order: frames still to come before they are shuffled again.
        schedule: what `Schedule.state` returned.
    """

    iteration: int
    tracking: Tracking
    state: NerfState
    parameters: dict[str, Tensor]
    average: dict[str, Tensor]
    averaged: int
    occupied: dict[str, Tensor]
    errors: Tensor
    order: np.ndarray
    schedule: dict[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """The arrays, by name."""
        named = {f"parameters.{name}": value for name, value in self.parameters.items()}
        named |= {f"average.{name}": value for name, value in self.average.items()}
        named |= self.occupied | {"errors": self.errors}
        arrays = {f"state.{f.name}": getattr(self.state, f.name) for f in fields(NerfState)}
        return named | copied(arrays | {"order": self.order} | tracking_arrays(self.tracking))

    def described(self) -> dict[str, Any]:
        """The rest, as JSON."""
        return {
            "phase": "final",
            "iteration": self.iteration,
            "averaged": self.averaged,
            "schedule": self.schedule,
        }

    @classmethod
    def read(
        cls, described: dict[str, Any], tensors: dict[str, Tensor], tracking: Tracking
    ) -> "FieldSnapshot":
        """Inverse of `described` and `tensors`; `tracking` is what was refined."""
        state = {f.name: tensors[f"state.{f.name}"].numpy() for f in fields(NerfState)}
        return cls(
            iteration=described["iteration"],
            tracking=refined_tracking(tracking, tensors),
            state=NerfState(**state),
            parameters={n: tensors[f"parameters.{n}"] for n in TrainedField.NAMES},
            average={n: tensors[f"average.{n}"] for n in TrainedField.NAMES},
            averaged=described["averaged"],
            occupied={n: t for n, t in tensors.items() if n.startswith("occupied.")},
            errors=tensors["errors"],
            order=tensors["order"].numpy(),
            schedule=described["schedule"],
        )

    @torch.no_grad()
    def parameters_into(self, field: TrainedField) -> None:
        """Copy the learned values."""
        for name, value in self.parameters.items():
            getattr(field, name).copy_(value)
