"""What a Gaussian is taken to be as long as no frame says otherwise.

Each prior is far weaker than the gradient of a pixel, but Adam gives a Gaussian that no pixel
speaks for the same step as any other: without priors, unseen regions fill with confetti that
shows as soon as the head turns further than in the clip.
"""

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from avatar3d.avatar.canonical import canonical_cloud
from avatar3d.avatar.deform import SplatParameters
from avatar3d.avatar.state import SplatState
from avatar3d.kernels import Goals, attribute_pull
from avatar3d.training.config import TrainingConfig

__all__ = ["Priors"]

_NEIGHBOURS = 8
_REACH = {"skin": 0.002, "eyes": 0.001, "mouth": 0.003, "hair": 0.006, "torso": 0.01}  # metres
_ON_SURFACE = ("eyes", "mouth")  # others belong where they started, which may be below it
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

        # A row for each choice.
        self.neighbours = torch.from_numpy(_neighbours(state).T.astype(np.int32)).to(device)
        reach = np.array([_REACH[name] for name in SplatState.PARTS])[state.part]
        on_surface = np.isin(state.part, [SplatState.PARTS.index(name) for name in _ON_SURFACE])
        skin = state.part == SplatState.PARTS.index("skin")
        count = len(state)
        self.goals = Goals(
            position=tensor(np.where(on_surface[:, None], 0, state.position)),
            inverse_reach=tensor(1 / reach),
            log_scale=tensor(state.log_scale),
            solid=tensor(skin),
            opacity=_SKIN_OPACITY,
            factors=(
                config.prior_color / (3 * count),
                config.prior_position / (3 * count),
                config.prior_scale / (3 * count),
                config.prior_opacity / max(int(skin.sum()), 1),
            ),
        )

    def __call__(self, parameters: SplatParameters, rng: np.random.Generator) -> Tensor:
        """The weighted sum; a different neighbour of every Gaussian each time."""
        p = parameters
        choice = self.neighbours[int(rng.integers(_NEIGHBOURS))]
        return attribute_pull(p.color, p.position, p.log_scale, p.opacity, self.goals, choice)


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
