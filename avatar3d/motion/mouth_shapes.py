"""The mouth shapes that one person makes: components of lip motion and the weights behind them."""

from dataclasses import dataclass

import numpy as np

from avatar3d.motion.lips import LipSpace

__all__ = ["MouthShapes"]

_VARIANCE = 0.97  # of the lip motion besides gap and width that the components keep
_MOST = 6
_CLOSED = 0.05  # quantile of the lip gap that counts as this person's closed mouth


@dataclass(frozen=True)
class MouthShapes:
    """K components of the motion of P lip points, with M mouth weights.

    The first component is the gap between the lips and the second the width of the mouth, because
    these are what one sees; the others are principal components of what they leave over.

    Attributes:
        center: (P * 3,) metres, mean displacement.
        basis: (K, P * 3) displacement per component; read: (K, P * 3) rows that measure them:
            components = read @ (displacement - center), displacement = center + components @ basis.
        start: (M,) mean weights; blend: (K, M) change of the weights with a component.
        deviation: (M,) standard deviation of the weights.
        rest: (M,) weights of the closed mouth; rest_shape: (P * 3,) metres, its displacement.
    """

    center: np.ndarray
    basis: np.ndarray
    read: np.ndarray
    start: np.ndarray
    blend: np.ndarray
    deviation: np.ndarray
    rest: np.ndarray
    rest_shape: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray, lips: LipSpace) -> "MouthShapes":
        """Learn from mouth weights (T, M) of captured frames."""
        displacement = lips.displacement(weights)
        center = displacement.mean(axis=0)
        basis, read = _components(displacement - center, lips.measures(center))
        start = weights.mean(axis=0)
        blend = _least_squares((displacement - center) @ read.T, weights - start)
        gap = lips.gap(displacement)
        rest = weights[gap <= np.quantile(gap, _CLOSED)].mean(axis=0)
        # Even the closed frames are a little open on average; the tightest few say how far to go.
        rest_shape = lips.displacement(rest[None])[0]
        surplus = float(lips.gap(rest_shape[None])[0] - np.quantile(gap, 0.005))
        rest_shape = rest_shape - max(surplus, 0.0) * basis[0]
        return cls(center, basis, read, start, blend, weights.std(axis=0), rest, rest_shape)

    def components(self, displacement: np.ndarray) -> np.ndarray:
        """(T, P * 3) to (T, K) metres."""
        return (displacement - self.center) @ self.read.T

    def displacement(self, components: np.ndarray) -> np.ndarray:
        """(T, K) to (T, P * 3) metres."""
        return self.center + components @ self.basis

    def weights(self, displacement: np.ndarray, speaking: np.ndarray, lips: LipSpace) -> np.ndarray:
        """Mouth weights (T, M) in [0, 1] for lips (T, P * 3) of which `speaking` (T,) is speech."""
        usual = self.start + self.components(displacement) @ self.blend
        usual = self.rest + speaking[:, None] * (usual - self.rest)
        return lips.weights(displacement, usual, self.deviation)


def _components(moved: np.ndarray, measures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`basis` and `read` (K, P * 3) for centred displacements (T, P * 3).

    `measures` (2, P * 3) reads gap and width. Regressing the motion on the two leaves a remainder
    in which both are exactly constant, since they are linear.
    """
    seen = moved @ measures.T
    leading = _least_squares(seen, moved)
    _, singular, axes = np.linalg.svd(moved - seen @ leading, full_matrices=False)
    kept = np.cumsum(singular**2) / max(float((singular**2).sum()), 1e-20)
    axes = axes[: min(_MOST, int(np.searchsorted(kept, _VARIANCE)) + 1)]
    read = axes - (axes @ leading.T) @ measures
    return np.concatenate([leading, axes]), np.concatenate([measures, read])


def _least_squares(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """X with known @ X ~ wanted, slightly regularised."""
    gram = known.T @ known
    gram += (1e-6 * np.trace(gram) / len(gram) + 1e-20) * np.eye(len(gram))
    return np.linalg.solve(gram, known.T @ wanted)
