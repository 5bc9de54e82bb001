"""What a training run is in the middle of, as the arrays of a checkpoint."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar.deform import SplatParameters
from avatar3d.avatar.gamut import Gamut
from avatar3d.avatar.state import SplatState
from avatar3d.subject import Tracking

__all__ = ["Snapshot", "copied", "refined_tracking", "tracking_arrays"]


@dataclass
class Snapshot:
    """All of a run but its optimiser and its random generator, which `checkpoint` knows.

    Attributes:
        phase, iteration: where it is.
        tracking: as far as it is refined.
        state: the Gaussians at the start of the phase.
        gamut: the colours they may learn.
        parameters, average: learned values and their running mean, by name.
        averaged: how many values the mean is of.
        order: frames still to come before they are shuffled again.
        schedule: what `Schedule.state` returned.
        corrections: of the frames refined so far; None outside of photometric tracking.
    """

    phase: str
    iteration: int
    tracking: Tracking
    state: SplatState
    gamut: Gamut
    parameters: dict[str, Tensor]
    average: dict[str, Tensor]
    averaged: int
    order: np.ndarray
    schedule: dict[str, Any]
    corrections: np.ndarray | None = None

    def tensors(self) -> dict[str, Tensor]:
        """The arrays, by name."""
        named = {f"parameters.{name}": value for name, value in self.parameters.items()}
        named |= {f"average.{name}": value for name, value in self.average.items()}
        arrays = {f"state.{f.name}": getattr(self.state, f.name) for f in fields(SplatState)}
        arrays |= {f"gamut.{f.name}": getattr(self.gamut, f.name) for f in fields(Gamut)}
        if self.corrections is not None:
            arrays["tracking.corrections"] = self.corrections
        arrays |= {
            "order": self.order,
            **tracking_arrays(self.tracking),
        }
        return named | copied(arrays)

    def described(self) -> dict[str, Any]:
        """The rest, as JSON."""
        return {
            "phase": self.phase,
            "iteration": self.iteration,
            "averaged": self.averaged,
            "schedule": self.schedule,
        }

    @classmethod
    def read(
        cls, described: dict[str, Any], tensors: dict[str, Tensor], tracking: Tracking
    ) -> "Snapshot":
        """Inverse of `described` and `tensors`; `tracking` is what was refined."""

        def part(prefix: str) -> dict[str, np.ndarray]:
            return {
                name.removeprefix(prefix): value.numpy()
                for name, value in tensors.items()
                if name.startswith(prefix)
            }

        corrections = tensors.get("tracking.corrections")
        return cls(
            phase=described["phase"],
            iteration=described["iteration"],
            tracking=refined_tracking(tracking, tensors),
            state=SplatState(**part("state.")),
            gamut=Gamut(**part("gamut.")),
            parameters={n: tensors[f"parameters.{n}"] for n in SplatParameters.NAMES},
            average={n: tensors[f"average.{n}"] for n in SplatParameters.NAMES},
            averaged=described["averaged"],
            order=tensors["order"].numpy(),
            schedule=described["schedule"],
            corrections=None if corrections is None else corrections.numpy(),
        )


def copied(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """As tensors of their own: while they are written, training may go on."""
    return {name: torch.as_tensor(np.array(a, order="C")) for name, a in arrays.items()}


def tracking_arrays(tracking: Tracking) -> dict[str, np.ndarray]:
    """What photometric tracking changes, by the names that it has in checkpoints."""
    return {
        "tracking.head": tracking.T_camera_head,
        "tracking.torso": tracking.T_camera_torso,
        "tracking.weights": tracking.weights,
        "tracking.gaze": tracking.gaze,
    }


def refined_tracking(tracking: Tracking, tensors: dict[str, Tensor]) -> Tracking:
    """The tracking with what the tensors of a checkpoint say of it; see `tracking_arrays`."""
    weights = tensors["tracking.weights"].numpy()
    return replace(
        tracking,
        T_camera_head=tensors["tracking.head"].numpy(),
        T_camera_torso=tensors["tracking.torso"].numpy(),
        expression=weights[:, :52],
        residual=weights[:, 52:],
        gaze=tensors["tracking.gaze"].numpy(),
    )
