"""The mouth shapes that one person makes: components of lip motion and the weights behind them."""

from dataclasses import dataclass

import numpy as np

from avatar3d.motion.lips import LipSpace

__all__ = ["MouthShapes"]

_VARIANCE = 0.985  # of the lip motion that the components keep
_MOST = 8
_CLOSED = 0.05  # quantile of the lip gap that counts as this person's closed mouth


@dataclass(frozen=True)
class MouthShapes:
    """K components of the motion of P lip points, with M mouth weights.

    Attributes:
        center: (P * 3,) metres, mean displacement; basis: (K, P * 3) orthonormal rows.
        start: (M,) mean weights; blend: (K, M) change of the weights with a component.
        deviation: (M,) standard deviation of the weights.
        rest: (M,) weights of the closed mouth; rest_shape: (P * 3,) metres, its displacement.
        per_gap: (P * 3,) displacement that goes with a metre of lip gap.
    """

    center: np.ndarray
    basis: np.ndarray
    start: np.ndarray
    blend: np.ndarray
    deviation: np.ndarray
    rest: np.ndarray
    rest_shape: np.ndarray
    per_gap: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray, lips: LipSpace) -> "MouthShapes":
        """Learn from mouth weights (T, M) of captured frames."""
        displacement = lips.displacement(weights)
        center = displacement.mean(axis=0)
        moved = displacement - center
        _, singular, axes = np.linalg.svd(moved, full_matrices=False)
        kept = np.cumsum(singular**2) / max(float((singular**2).sum()), 1e-20)
        count = min(_MOST, int(np.searchsorted(kept, _VARIANCE)) + 1, len(axes))
        basis = axes[:count]
        components = moved @ basis.T
        gram = components.T @ components
        gram += 1e-3 * np.trace(gram) / count * np.eye(count) + 1e-20 * np.eye(count)
        start = weights.mean(axis=0)
        blend = np.linalg.solve(gram, components.T @ (weights - start))
        gap = lips.gap(displacement)
        closed = gap <= np.quantile(gap, _CLOSED)
        rest = weights[closed].mean(axis=0)
        # Even the closed frames are a little open on average; the tightest few say how far to go.
        varied = gap - gap.mean()
        per_gap = varied @ moved / max(float(varied @ varied), 1e-12)
        rest_shape = lips.displacement(rest[None])[0]
        surplus = float(lips.gap(rest_shape[None])[0] - np.quantile(gap, 0.005))
        return cls(
            center, basis, start, blend, weights.std(axis=0), rest,
            rest_shape - max(surplus, 0.0) * per_gap, per_gap,
        )  # fmt: skip

    def components(self, displacement: np.ndarray) -> np.ndarray:
        """(T, P * 3) to (T, K) metres."""
        return (displacement - self.center) @ self.basis.T

    def displacement(self, components: np.ndarray) -> np.ndarray:
        """(T, K) to (T, P * 3) metres."""
        return self.center + components @ self.basis

    def weights(self, displacement: np.ndarray, speaking: np.ndarray, lips: LipSpace) -> np.ndarray:
        """Mouth weights (T, M) in [0, 1] for lips (T, P * 3) of which `speaking` (T,) is speech."""
        usual = self.start + self.components(displacement) @ self.blend
        usual = self.rest + speaking[:, None] * (usual - self.rest)
        return lips.weights(displacement, usual, self.deviation)
