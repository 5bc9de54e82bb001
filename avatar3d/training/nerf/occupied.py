"""Keeps the occupancy of a field up to date while it is learned."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from avatar3d.errors import UserError
from avatar3d.kernels import Occupancy

__all__ = ["Occupied"]

_FIRST, _EVERY = 200, 16  # iterations
_SHARE = 8  # of the cells are looked at each time
_AT_FIRST = 20.0  # per metre; where something may be, until the field knows better
_AT_FIRST_SHOWN = 0.02  # so that what stays unseen is hidden after 500 iterations
_DECAY, _THRESHOLD = 0.7, 4.0
_FORGETTING, _SEEN = 0.55, 2e-3  # weights; what was once opaque is hidden after 1400 iterations


class Occupied:
    """The cells of a volume in which there is something.

    Args:
        shell: what may be occupied at all: near what the quick avatar knows to be there.

    Attributes:
        grid: the occupancy as it is; cells: (n,) those of the shell.
        shown: (R^3,) the largest weight that a sample in a cell has had in a picture, decayed.
        visible: (R^3,) bool, where it was not negligible.
    """

    def __init__(self, shell: Occupancy) -> None:
        self.grid = shell
        self.cells = shell.cells().flatten().nonzero()[:, 0]
        if not len(self.cells):
            raise UserError(
                "There is nothing for the field to learn: the quick avatar is empty; run "
                "`avatar3d capture` again and look at its mattes."
            )
        shell.values = torch.zeros_like(shell.values)
        shell.values[self.cells] = _AT_FIRST
        self.shown = torch.full_like(shell.values, _AT_FIRST_SHOWN)
        self.visible = self.shown > 0

    @torch.no_grad()
    def see(self, points: Tensor, weights: Tensor) -> None:
        """Take note of the weights (n,) that samples at canonical points (n, 3) had."""
        low, high = self.grid.box
        side = self.grid.resolution
        place = ((points - low) * (side / (high - low))).long().clamp_(0, side - 1)
        cells = (place[:, 2] * side + place[:, 1]) * side + place[:, 0]
        self.shown.scatter_reduce_(0, cells, weights, "amax")

    def update(
        self,
        iteration: int,
        density: Callable[[Tensor], Tensor],
        rng: np.random.Generator,
    ) -> None:
        """Every now and then, look at some cells of the shell.

        Args:
            density: (n,) per metre at points (n, 3) metres.

        Raises:
            UserError: the field has become empty.
        """
        if iteration < _FIRST or iteration % _EVERY:
            return
        seed = int(rng.integers(1 << 31))
        generator = torch.Generator().manual_seed(seed)
        if iteration % (_EVERY * _SHARE) == 0:
            self._hide()
        chosen = self.cells[int(rng.integers(_SHARE)) :: _SHARE]
        chosen = chosen[self.visible[chosen]]
        found = density(self.grid.points(chosen, generator))
        self.grid.update(found, chosen, decay=_DECAY, threshold=_THRESHOLD)
        if float(self.grid.values.max()) <= _THRESHOLD:
            raise UserError(
                "The field has become empty, as if no frame showed a person; look at the mattes "
                "of the subject."
            )

    def tensors(self) -> dict[str, Tensor]:
        """What `restore` needs, by name."""
        grid = self.grid
        return {
            "occupied.values": grid.values,
            "occupied.bits": grid.bits,
            "occupied.shown": self.shown,
            "occupied.visible": self.visible,
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from the `tensors` of another."""
        for holder, name in (
            (self.grid, "values"), (self.grid, "bits"), (self, "shown"), (self, "visible"),
        ):  # fmt: skip
            # A copy: a file's tensors lie anywhere, and kernels read eight bytes of bits at once.
            setattr(holder, name, tensors[f"occupied.{name}"].clone().to(self.cells.device))

    def _hide(self) -> None:
        """Leave out cells that no ray reaches any more, unless they are beside one that is."""
        self.shown *= _FORGETTING
        side = self.grid.resolution
        near = torch.nn.functional.max_pool3d(self.shown.view(1, side, side, side), 3, 1, 1)
        self.visible = near.flatten() > _SEEN
        self.grid.values[~self.visible] = 0.0
