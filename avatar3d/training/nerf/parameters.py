"""What is learned of a field, and the optimiser that learns it."""

from typing import Any

import torch
from torch import Tensor, nn

from avatar3d.avatar.nerf.field import Field
from avatar3d.avatar.nerf.state import NerfState
from avatar3d.kernels import sparse_adam_
from avatar3d.training.nerf.config import NerfConfig

__all__ = ["FieldAdam", "TrainedField"]

_BETAS = 0.9, 0.99
_EPS = 1e-12
_TABLES = ("table", "attention")


class TrainedField(Field):
    """A field with what belongs to the frames it learns from.

    Attributes:
        appearances: (n, C) codes of the frames; the avatar has their mean.
        poses: (n, 6) by which the head is turned and moved in each, rotation vector and metres.
    """

    NAMES = (*Field.NAMES, "appearances", "poses")

    appearances: Tensor
    poses: Tensor

    def __init__(self, state: NerfState, frames: int, device: str | torch.device = "cpu") -> None:
        super().__init__(state, device)
        code = len(state.appearance)
        self.appearances = nn.Parameter(torch.zeros(frames, code, device=device))
        self.poses = nn.Parameter(torch.zeros(frames, 6, device=device))

    def write_to(self, state: NerfState) -> None:
        with torch.no_grad():
            self.appearance.copy_(self.appearances.mean(0))
        super().write_to(state)


class FieldAdam(torch.optim.Adam):
    """Adam with one group per parameter, in the order of `TrainedField.NAMES`.

    Of the tables, only the entries that an iteration has touched learn from it. Their gradients are
    collected by the field, and never made anew.
    """

    def __init__(self, field: TrainedField, config: NerfConfig) -> None:
        groups: list[dict[str, Any]] = []
        for name in TrainedField.NAMES:
            rate = _rate(name, config)
            groups.append(
                {"params": [getattr(field, name)], "name": name, "lr": rate, "full_rate": rate}
            )
        super().__init__(groups, betas=_BETAS, eps=_EPS, fused=True)
        self._field = field
        for name in _TABLES:
            table = getattr(field, name).requires_grad_(False)
            field.gradients[name] = torch.zeros_like(table)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)  # leaves the tables alone, which have no gradients of their own
        for group in self.param_groups:
            if group["name"] not in _TABLES:
                continue
            (table,) = group["params"]
            state = self.state[table]
            if not state:
                state["step"] = torch.tensor(0.0)  # torch looks for one
                state["steps"] = torch.zeros(len(table), dtype=torch.int32, device=table.device)
                state["exp_avg"] = torch.zeros_like(table)
                state["exp_avg_sq"] = torch.zeros_like(table)
            state["steps"] = state["steps"].to(torch.int32)  # torch restores them as floats
            sparse_adam_(
                table,
                self._field.gradients[group["name"]],
                state["exp_avg"],
                state["exp_avg_sq"],
                state["steps"],
                lr=group["lr"],
                betas=group["betas"],
                eps=group["eps"],
            )


def _rate(name: str, config: NerfConfig) -> float:
    if name == "table":
        return config.table_rate
    if name == "attention":
        return config.attention_rate
    if name == "poses":
        return config.pose_rate
    return config.network_rate
