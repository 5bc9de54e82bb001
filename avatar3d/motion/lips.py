"""Lip geometry: where the lips are for given expression weights, and weights for given lips.

Single mouth coefficients are ambiguous (many combinations look alike), the place of the lips is
not. So drivers work on displacements of lip and chin landmarks in the head frame and turn them
into weights at the end.
"""

from dataclasses import dataclass

import numpy as np

from avatar3d.head.landmarks import LIPS, LOWER_LIP_MID, MOUTH_CORNERS, UPPER_LIP_MID
from avatar3d.head.model import HeadModel, ShapedHead

__all__ = ["LipSpace", "mouth_rows"]

_CHIN = (152, 148, 377, 176, 400, 199, 200, 18)
_POINTS = LIPS + _CHIN
_ITERATIONS = 60


def mouth_rows(names: tuple[str, ...]) -> np.ndarray:
    """Expression rows that speech moves: jaw, mouth, tongue, cheek puff and all residual ones."""
    moved = ("jaw", "mouth", "tongue", "cheekPuff")
    return np.array([i for i, name in enumerate(names) if i >= 52 or name.startswith(moved)])


@dataclass(frozen=True)
class LipSpace:
    """Linear map from mouth weights to the displacement of P lip and chin points.

    Attributes:
        rows: (M,) indices into the head model's expression rows.
        neutral: (P, 3) metres, points of the neutral head; lips first, in the order of `LIPS`.
        effect: (M, P * 3) metres, displacement at weight 1.
    """

    rows: np.ndarray
    neutral: np.ndarray
    effect: np.ndarray

    @classmethod
    def of(cls, head: ShapedHead | HeadModel) -> "LipSpace":
        """The space of one person's head, or of the mean head of a model."""
        model = head.model if isinstance(head, ShapedHead) else head
        vertices = head.vertices if isinstance(head, ShapedHead) else head.template
        rows, points = mouth_rows(model.expression_names), list(_POINTS)
        corners = model.faces[model.landmark_faces[points]]
        bary = model.landmark_bary[points][:, :, None]
        effect = (model.expression[rows][:, corners] * bary).sum(axis=2)
        neutral = (vertices[corners] * bary).sum(axis=1)
        return cls(rows, neutral.astype(np.float32), effect.reshape(len(rows), -1))

    def displacement(self, weights: np.ndarray) -> np.ndarray:
        """(T, P * 3) metres of mouth weights (T, M)."""
        return weights @ self.effect

    def gap(self, displacement: np.ndarray) -> np.ndarray:
        """(T,) metres from the mid point of the lower inner lip up to that of the upper one.

        Along the head's vertical, so it is linear, and negative where the lips press together.
        """
        upper, lower = self._points(displacement, UPPER_LIP_MID, LOWER_LIP_MID)
        return upper[:, 1] - lower[:, 1]

    def width(self, displacement: np.ndarray) -> np.ndarray:
        """(T,) metres between the inner corners of the mouth."""
        first, second = self._points(displacement, *MOUTH_CORNERS)
        return np.linalg.norm(first - second, axis=1)

    def measures(self, displacement: np.ndarray) -> np.ndarray:
        """(2, P * 3) rows that read changes of gap and width near `displacement` (P * 3,)."""
        rows = np.zeros((2, len(self.neutral), 3))
        rows[0, _POINTS.index(UPPER_LIP_MID), 1] = 1
        rows[0, _POINTS.index(LOWER_LIP_MID), 1] = -1
        first, second = self._points(displacement[None], *MOUTH_CORNERS)
        axis = (first - second)[0] / np.linalg.norm(first - second)
        rows[1, _POINTS.index(MOUTH_CORNERS[0])] = axis
        rows[1, _POINTS.index(MOUTH_CORNERS[1])] = -axis
        return rows.reshape(2, -1)

    def weights(
        self, displacement: np.ndarray, start: np.ndarray, spread: np.ndarray, trust: float = 0.02
    ) -> np.ndarray:
        """Mouth weights (T, M) in [0, 1] that bring the lips to `displacement` (T, P * 3).

        Bounded least squares on the squared distance in millimetres plus
        `trust * ((w - start) / spread)^2`, by accelerated projected gradient.

        Args:
            start: (T, M) weights to stay near.
            spread: (M,) how far each weight usually moves; those that never move stay.
        """
        effect = self.effect.astype(np.float64) * 1e3 / np.sqrt(self.effect.shape[1] / 3)
        target = displacement * (1e3 / np.sqrt(self.effect.shape[1] / 3))
        stiffness = trust / np.maximum(spread, 1e-3) ** 2
        hessian = effect @ effect.T + np.diag(stiffness)
        linear = target @ effect.T + stiffness * start
        step = 1 / np.linalg.eigvalsh(hessian)[-1]
        current = ahead = np.clip(start, 0, 1)
        momentum = 1.0
        for _ in range(_ITERATIONS):
            following = np.clip(ahead - step * (ahead @ hessian - linear), 0, 1)
            grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            ahead = following + (momentum - 1) / grown * (following - current)
            current, momentum = following, grown
        return current

    def _points(self, displacement: np.ndarray, *landmarks: int) -> list[np.ndarray]:
        """(T, 3) of each landmark."""
        points = displacement.reshape(len(displacement), -1, 3)
        indices = [_POINTS.index(landmark) for landmark in landmarks]
        return [self.neutral[index] + points[:, index] for index in indices]
