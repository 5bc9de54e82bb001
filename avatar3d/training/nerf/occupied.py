"""Keeps the occupancy of a field up to date while it is learned."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from avatar3d.errors import UserError
from avatar3d.kernels import Occupancy

__all__ = ["Occupied"]

_FIRST, _EVERY = 200, 16  # iterations
_SHARE = 8  # of the cells are looked at each time
_AT_FIRST = 100.0  # per metre; where something may be, until the field knows better
_DECAY, _THRESHOLD = 0.8, 4.0


class Occupied:
    """The cells of a volume in which there is something.

    Args:
        shell: what may be occupied at all: near what the quick avatar knows to be there.

    Attributes:
        grid: the occupancy as it is; cells: (n,) those of the shell.
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
        chosen = self.cells[int(rng.integers(_SHARE)) :: _SHARE]
        found = density(self.grid.points(chosen, generator))
        self.grid.update(found, chosen, decay=_DECAY, threshold=_THRESHOLD)
        if float(self.grid.values.max()) <= _THRESHOLD:
            raise UserError(
                "The field has become empty, as if no frame showed a person; look at the mattes "
                "of the subject."
            )
