"""The optimiser of a splat avatar: rates, decay and bounds of every attribute."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from avatar3d.avatar.deform import SplatParameters
from avatar3d.avatar.gamut import Gamut
from avatar3d.avatar.opponent import from_opponent, to_opponent
from avatar3d.kernels import OuterGradient, outer_adamw_

__all__ = ["Average", "ColorLimits", "SplatAdamW", "keep_in_bounds", "raise_eps", "set_rate"]

# (learning rate, decoupled decay per step at full rate); positions in metres.
_RATES = {
    "position": (1.2e-4, 2.4e-4),
    "quat": (8e-3, 0.0),
    "log_scale": (1.2e-2, 0.0),
    "opacity": (4e-2, 0.0),
    "color": (6e-3, 0.0),
    "basis": (3e-3, 1.5e-4),
    "map": (4e-3, 0.0),
    "bias": (2e-3, 0.0),
}
_SAMPLE = 100_000
_AVERAGE_EVERY, _AVERAGE_DECAY = 5, 0.9  # iterations; of what was before, each time
_SMALLEST, _LARGEST = math.log(8e-5), math.log(8e-3)  # metres


class ColorLimits:
    """A `Gamut` as tensors, and back for checkpoints.

    Attributes:
        low, high: (N, 3); steady: (S,) Gaussians whose colour has no blendshapes.
    """

    def __init__(self, gamut: Gamut, device: str | torch.device = "cpu") -> None:
        self.gamut = gamut
        self.low, self.high = (
            torch.tensor(bound, dtype=torch.float32, device=device)
            for bound in (gamut.low, gamut.high)
        )
        self.steady = torch.tensor(gamut.steady.nonzero()[0], device=device)


class SplatAdamW(torch.optim.AdamW):
    """AdamW with one group per attribute, in the order of `SplatParameters.NAMES`.

    The basis is most of the numbers and its gradient the largest array of a step, so that is never
    made: `parameters.basis` stops requiring one, and its update takes the factors.
    """

    def __init__(self, parameters: SplatParameters) -> None:
        super().__init__(_groups(parameters), betas=(0.9, 0.999), eps=1e-15, fused=True)
        parameters.basis.requires_grad_(False)
        parameters.basis_gradient = OuterGradient()
        self._gradient = parameters.basis_gradient

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self._gradient.clear()

    def outer_gradients(self) -> list[Tensor]:
        """The gradients that are not those of a parameter: of the blended basis."""
        factors = self._gradient.factors()
        return [] if factors is None else [factors[0]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)  # leaves the basis alone, which has no gradient
        factors = self._gradient.factors()
        if factors is None:
            return
        group = next(group for group in self.param_groups if group["name"] == "basis")
        (basis,) = group["params"]
        state = self.state[basis]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(basis)
            state["exp_avg_sq"] = torch.zeros_like(basis)
        state["step"] += 1
        outer_adamw_(
            basis,
            state["exp_avg"],
            state["exp_avg_sq"],
            *factors,
            step=int(state["step"]),
            lr=group["lr"],
            betas=group["betas"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
        )


class Average:
    """A running mean of the parameters over the last fifty iterations or so.

    One frame at a time pulls them about; their mean is as good as a much longer training.

    Attributes:
        values: by name; count: how often `update` took them in.
    """

    def __init__(self, parameters: nn.Module, names: Iterable[str] = SplatParameters.NAMES) -> None:
        self._parameters = parameters
        self.values = {name: getattr(parameters, name).detach().clone() for name in names}
        self.count = 0

    def due(self, iteration: int) -> bool:
        """Whether the parameters are to be taken in after so many iterations: every few."""
        return iteration % _AVERAGE_EVERY == 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters in."""
        self.count += 1
        share = max(1 - _AVERAGE_DECAY, 1 / self.count)
        for name, value in self.values.items():
            value.lerp_(getattr(self._parameters, name), share)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The parameters are their mean for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def settle(self) -> None:
        """Make the mean the parameters."""
        if not self.count:
            return
        for name, value in self.values.items():
            getattr(self._parameters, name).copy_(value)

    def restore(self, values: dict[str, Tensor], count: int) -> None:
        """Go on from the `values` and `count` of another."""
        for name, value in self.values.items():
            value.copy_(values[name])
        self.count = count

    def _swap(self) -> None:
        for name, value in self.values.items():
            parameter = getattr(self._parameters, name)
            self.values[name], parameter.data = parameter.data, value


def _groups(parameters: SplatParameters) -> list[dict[str, Any]]:
    return [
        {
            "params": [getattr(parameters, name)],
            "name": name,
            "lr": rate,
            "full_rate": rate,
            "weight_decay": decay / rate,
        }
        for name, (rate, decay) in _RATES.items()
    ]


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to `factor` times its full rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["full_rate"] * factor


def raise_eps(optimizer: torch.optim.Optimizer, quantile: float = 0.2) -> None:
    """Set each group's eps near a low quantile of its gradients' root mean square.

    Adam would otherwise move a Gaussian that hardly any frame sees as fast as one that all see;
    unseen regions then fill with confetti.
    """
    for group in optimizer.param_groups:
        state = optimizer.state.get(group["params"][0])
        if not state:
            continue
        squares = state["exp_avg_sq"].flatten()
        # Of millions, some tell as much; an odd stride does not keep in step with the columns.
        squares = squares[:: len(squares) // _SAMPLE | 1]
        seen = squares[squares > 0]
        if len(seen):
            count = max(1, math.ceil(quantile * len(seen)))
            square = float(torch.kthvalue(seen, count).values)
            group["eps"] = math.sqrt(square / (1 - 0.999 ** float(state["step"])))


@torch.no_grad()
def keep_in_bounds(parameters: SplatParameters, limits: ColorLimits) -> None:
    """Clamp sizes to 0.08-8 mm, colours to `limits`, opacities to where gradients are alive.

    Blendshapes do not move eyeballs, nor change the colours that `limits` calls steady.
    """
    parameters.log_scale.clamp_(_SMALLEST, _LARGEST)
    parameters.opacity.clamp_(-6.0, 7.0)
    color = from_opponent(to_opponent(parameters.color).clamp_(limits.low, limits.high))
    parameters.color.copy_(color.clamp_(0.0, 1.0))
    if parameters.basis.shape[-1]:
        parameters.basis[:, 7:].index_fill_(0, limits.steady, 0.0)
        parameters.basis[:, :3].index_fill_(0, parameters.eyes, 0.0)
