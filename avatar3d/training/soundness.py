"""Steps of an optimiser that cannot ruin the parameters."""

from collections.abc import Iterator

import torch
from torch import Tensor

from avatar3d.errors import UserError
from avatar3d.training.events import Said

__all__ = ["StepGuard"]

_TOLD = 3  # times that a step left out is told of
_IN_A_ROW = 25


class StepGuard:
    """Takes the steps whose loss and gradients are numbers, and leaves out the others.

    Attributes:
        skipped: how many were left out.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._in_a_row = 0

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor, what: str) -> Iterator[Said]:
        """Let `optimizer` step, or say that it does not.

        Args:
            loss: what was differentiated.
            what: names the step, e.g. "iteration 7 of the final phase, frame 3".

        Raises:
            UserError: many steps in a row are none.
        """
        wrong = _not_finite(optimizer, loss)
        if wrong is None:
            self._in_a_row = 0
            optimizer.step()
            return
        optimizer.zero_grad(set_to_none=True)
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= _IN_A_ROW:
            raise UserError(
                f"Training has come apart: {wrong} {_IN_A_ROW} times in a row, last at {what}; the "
                "last checkpoint is sound: report this with the run folder's config.yaml."
            )
        if self.skipped <= _TOLD:
            yield Said(f"Left out {what}: {wrong}.")


def _not_finite(optimizer: torch.optim.Optimizer, loss: Tensor) -> str | None:
    """What is not a number; a sum tells, as it is one only if all its terms are."""
    if not bool(torch.isfinite(loss.detach())):
        return "the loss is not a number"
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
    more = getattr(optimizer, "outer_gradients", None)
    gradients += more() if more is not None else []
    sums = [gradient.detach().sum().float() for gradient in gradients if gradient is not None]
    if sums and not bool(torch.isfinite(torch.stack([s.cpu() for s in sums])).all()):
        return "a gradient is not a number"
    return None
