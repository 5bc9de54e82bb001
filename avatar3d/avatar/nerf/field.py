"""The radiance field as a torch module."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from avatar3d.avatar.nerf.groups import group_rows
from avatar3d.avatar.nerf.state import NerfState
from avatar3d.kernels import FieldWeights, conditioned_mlp, hash_encode

__all__ = ["Field", "FieldSamples"]

_LOG_DENSITY = 3.4  # of a field that knows nothing: an e-fold in 33 mm
_LEAST, _MOST = -8.0, 10.0  # of the logarithm of density


class FieldSamples(NamedTuple):
    """Density (N,) per metre, colour (N, 3) sRGB and gates (N, G) of N points."""

    density: Tensor
    color: Tensor
    gates: Tensor


class Field(nn.Module):
    """The learned part of a `NerfState`; names and shapes are those of the state.

    Where `gradients` has a tensor for a table, that collects the table's gradient.
    """

    NAMES: tuple[str, ...] = (
        "table", "attention", "layer_0", "layer_1", "layer_2", "bias_0", "bias_1", "bias_2",
        "inject", "code_map", "code_bias", "appearance", "audio_0", "audio_bias_0", "audio_1",
        "audio_bias_1",
    )  # fmt: skip

    table: Tensor
    attention: Tensor
    layer_0: Tensor
    layer_1: Tensor
    layer_2: Tensor
    bias_0: Tensor
    bias_1: Tensor
    bias_2: Tensor
    inject: Tensor
    code_map: Tensor
    code_bias: Tensor
    appearance: Tensor
    audio_0: Tensor
    audio_bias_0: Tensor
    audio_1: Tensor
    audio_bias_1: Tensor
    origin: Tensor
    heard: Tensor
    mean: Tensor

    def __init__(self, state: NerfState, device: str | torch.device = "cpu") -> None:
        super().__init__()

        def tensor(array: np.ndarray) -> Tensor:
            return torch.tensor(np.asarray(array), dtype=torch.float32, device=device)

        for name in Field.NAMES:
            self.register_parameter(name, nn.Parameter(tensor(getattr(state, name))))
        self.gradients: dict[str, Tensor] = {}
        self.grid, self.attention_grid = state.grid, state.attention_grid
        self.side = float((state.box[1] - state.box[0]).max())
        self.limit = float(state.limit)
        self.register_buffer("origin", tensor(state.box[0]))
        self.register_buffer("heard", tensor(group_rows(len(state.expression)))[:, None])
        self.register_buffer("mean", tensor(state.mean))

    def forward(self, points: Tensor, rows: Tensor, vectors: Tensor) -> FieldSamples:
        """The field at canonical points.

        Args:
            points: (N, 3) metres; rows: (N,) int32 frame of each; vectors: (F, G, H).
        """
        unit = (points - self.origin) * (1 / self.side)
        features = hash_encode(unit, self.table, self.grid, gradient=self._gradient("table"))
        collected = self._gradient("attention")
        logits = hash_encode(unit, self.attention, self.attention_grid, gradient=collected)
        gates = logits.sigmoid()
        weights = [self.layer_0, self.layer_1, self.layer_2]
        biases = [self.bias_0, self.bias_1, self.bias_2]
        raw = conditioned_mlp(features, weights, biases, gates, vectors, rows)
        log_density = raw[:, 0] + _LOG_DENSITY
        # Clamped for the value only: what has become too dense must be able to thin out again.
        bounded = log_density + (log_density.clamp(_LEAST, _MOST) - log_density).detach()
        return FieldSamples(bounded.exp(), raw[:, 1:].sigmoid(), gates)

    def _gradient(self, name: str) -> Tensor | None:
        return self.gradients.get(name) if torch.is_grad_enabled() else None

    def weights(self) -> FieldWeights:
        """The field as `kernels.render_rays` takes it."""
        return FieldWeights(
            origin=self.origin,
            side=self.side,
            grid=self.grid,
            table=self.table.detach(),
            attention_grid=self.attention_grid,
            attention=self.attention.detach(),
            weights=[layer.detach() for layer in (self.layer_0, self.layer_1, self.layer_2)],
            biases=[bias.detach() for bias in (self.bias_0, self.bias_1, self.bias_2)],
            log_density=_LOG_DENSITY,
            least=_LEAST,
            most=_MOST,
        )

    def codes(self, signal: Tensor) -> Tensor:
        """(F, G - 1, C) of the clamped expression weights and gaze (F, E + 4) of frames."""
        moved = torch.einsum("gcs,fs->fgc", self.code_map * self.heard, signal - self.mean)
        return self.limit * torch.tanh((moved + self.code_bias) / self.limit)

    def heard_code(self, known: Tensor) -> Tensor:
        """(F, C) the mouth's code of what is known of the sound, (F, Z)."""
        hidden = torch.relu(known @ self.audio_0.T + self.audio_bias_0)
        raw = hidden @ self.audio_1.T + self.audio_bias_1
        return self.limit * torch.tanh(raw / self.limit)

    def vectors(self, codes: Tensor, appearance: Tensor | None = None) -> Tensor:
        """(F, G, H) as the network takes them.

        Args:
            codes: (F, G - 1, C); appearance: (F, C), default that of all frames together.
        """
        if appearance is None:
            appearance = self.appearance.expand(len(codes), -1)
        everything = torch.cat([codes, appearance[:, None]], 1)
        return torch.einsum("ghc,fgc->fgh", self.inject, everything)

    def write_to(self, state: NerfState) -> None:
        """Copy the parameters back into `state`."""
        for name in Field.NAMES:
            setattr(state, name, getattr(self, name).detach().clone().cpu().numpy())
