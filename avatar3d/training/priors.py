"""What a Gaussian is taken to be as long as no frame says otherwise.

Each prior is far weaker than the gradient of a pixel, but Adam gives a Gaussian that no pixel
speaks for the same step as any other: without priors, unseen regions fill with confetti that
shows as soon as the head turns further than in the clip.
"""

from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from avatar3d.avatar.canonical import canonical_cloud
from avatar3d.avatar.deform import SplatParameters
from avatar3d.avatar.state import SplatState
from avatar3d.training.config import TrainingConfig

__all__ = ["Priors"]

_NEIGHBOURS = 8
_REACH = {"skin": 0.002, "eyes": 0.001, "mouth": 0.003, "hair": 0.006, "torso": 0.01}  # metres
_SKIN_OPACITY = 4.0  # or the inside of the mouth shines through a cheek that turns


class Priors:
    """Mean squared departures from neighbours' colour, start shape, start place and opacity.

    Args:
        state: the Gaussians at the start of a training phase.
        config: weights `prior_color`, `prior_position`, `prior_scale` and `prior_opacity`.
    """

    def __init__(
        self, state: SplatState, config: TrainingConfig, device: str | torch.device = "cpu"
    ) -> None:
        def tensor(array: np.ndarray) -> Tensor:
            return torch.tensor(array, dtype=torch.float32, device=device)

        self.config = config
        # a row for each choice
        self.neighbours = torch.from_numpy(_neighbours(state).T.copy()).to(device)
        self.numbers = (self.neighbours[..., None] * 3 + torch.arange(3, device=device)).flatten(1)
        reach = np.array([_REACH[name] for name in SplatState.PARTS])[state.part]
        self.inverse_reach = tensor(1 / reach[:, None])
        on_surface = np.isin(
            state.part, [SplatState.PARTS.index(name) for name in ("skin", "eyes", "mouth")]
        )
        anchor = np.where(on_surface[:, None], 0, state.position)
        self.anchor = tensor(anchor)
        self.log_scale = tensor(state.log_scale)
        skin = state.part == SplatState.PARTS.index("skin")
        self.skin = tensor(skin)
        self.skin_count = int(skin.sum())

    def __call__(self, parameters: SplatParameters, rng: np.random.Generator) -> Tensor:
        """The weighted sum; a different neighbour of every Gaussian each time."""
        p = parameters
        choice = int(rng.integers(_NEIGHBOURS))
        return _Pull.apply(p.color, p.position, p.log_scale, p.opacity, self, choice)


class _Pull(torch.autograd.Function):
    """The priors and their gradients in one go: autograd would take three times as long."""

    @staticmethod
    def forward(
        ctx: Any,
        color: Tensor,
        position: Tensor,
        log_scale: Tensor,
        opacity: Tensor,
        priors: Priors,
        choice: int,
    ) -> Tensor:
        config = priors.config
        different = color - color.index_select(0, priors.neighbours[choice])
        moved = (position - priors.anchor) * priors.inverse_reach
        grown = log_scale - priors.log_scale
        faded = (opacity - _SKIN_OPACITY) * priors.skin
        loss = color.new_zeros(())
        gradients = []
        for departure, weight, count in (
            (different, config.prior_color, different.numel()),
            (moved, config.prior_position, moved.numel()),
            (grown, config.prior_scale, grown.numel()),
            (faded, config.prior_opacity, max(priors.skin_count, 1)),
        ):
            factor = weight / count
            loss += factor * torch.dot(departure.flatten(), departure.flatten())
            gradients.append(departure.mul_(2 * factor))
        pulled = gradients[0].clone()
        # One index a number: three times as fast as index_add_ of rows.
        pulled.view(-1).scatter_add_(0, priors.numbers[choice], gradients[0].view(-1).neg())
        ctx.save_for_backward(pulled, gradients[1].mul_(priors.inverse_reach), *gradients[2:])
        return loss

    @staticmethod
    def backward(ctx: Any, v_loss: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradient * v_loss for gradient in ctx.saved_tensors), None, None


def _neighbours(state: SplatState) -> np.ndarray:
    """(N, 8) indices of the nearest Gaussians of the same part, in the neutral head."""
    means = canonical_cloud(state).means
    result = np.empty((len(means), _NEIGHBOURS), np.int64)
    for part in np.unique(state.part):
        members = np.flatnonzero(state.part == part)
        count = min(_NEIGHBOURS + 1, len(members))
        _, nearest = cKDTree(means[members]).query(means[members], count)
        nearest = members[np.asarray(nearest).reshape(len(members), count)]
        others = nearest[:, 1:] if count > 1 else nearest
        result[members] = others[:, np.arange(_NEIGHBOURS) % others.shape[1]]
    return result
