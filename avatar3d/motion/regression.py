"""Ridge regression on top of a prior prediction, judged by blocked cross-validation."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["RidgeFit", "blocks", "fit_ridge"]

_LAMBDAS = (0.5, 1.5, 5.0, np.inf)
_FOLDS = 5
_GUARD = 0.5  # seconds left out between training and held-out frames


@dataclass(frozen=True)
class RidgeFit:
    """y = bias + slope * prior + x @ weights, column by column.

    Attributes:
        weights: (C, K), bias (K,), slope (K,) not negative.
        held_out: (T, K) prediction of every frame by a model that has not seen it, nor its
            neighbours.
        ridge: (K,) regularisation chosen for each column, relative to the mean of |x|^2; infinite
            means that only the prior is used.
    """

    weights: np.ndarray
    bias: np.ndarray
    slope: np.ndarray
    held_out: np.ndarray
    ridge: np.ndarray


def fit_ridge(
    x: np.ndarray, y: np.ndarray, prior: np.ndarray, fps: float, allow_ridge: bool = True
) -> RidgeFit:
    """Fit with the regularisation that predicts held-out blocks best.

    Args:
        x: (T, C) features, about zero mean.
        y: (T, K) targets.
        prior: (T, K) prior prediction of each target; zeros where there is none.
        fps: frames per second, for the guard around held-out blocks.
        allow_ridge: False fits only `bias` and `slope`.
    """
    kernel = (x @ x.T).astype(np.float64)
    scale = max(float(np.trace(kernel)) / len(x), 1e-12)
    kernel /= scale
    options = _LAMBDAS if allow_ridge else (np.inf,)
    held_out = {ridge: np.empty_like(y) for ridge in options}
    for train, test in blocks(len(y), fps):
        base, _, _ = _line(prior, y, train)
        for ridge, prediction in held_out.items():
            prediction[test] = base[test]
            if np.isfinite(ridge):
                dual = _dual(kernel[np.ix_(train, train)], (y - base)[train], ridge)
                prediction[test] += kernel[np.ix_(test, train)] @ dual
    errors = np.stack([((held_out[option] - y) ** 2).sum(axis=0) for option in options])
    ridge = np.array(options)[errors.argmin(axis=0)]
    base, bias, slope = _line(prior, y, np.arange(len(y)))
    weights, chosen = np.zeros((x.shape[1], y.shape[1])), np.empty_like(y)
    for option in set(ridge.tolist()):
        columns = ridge == option
        chosen[:, columns] = held_out[option][:, columns]
        if np.isfinite(option):
            dual = _dual(kernel, (y - base)[:, columns], option)
            weights[:, columns] = x.T @ dual / scale
    return RidgeFit(weights, bias, slope, chosen, ridge)


def blocks(count: int, fps: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, test) indices of `_FOLDS` consecutive blocks with a guard on both sides."""
    guard = min(round(_GUARD * fps), count // 8)
    edges = np.linspace(0, count, _FOLDS + 1).astype(int)
    frames = np.arange(count)
    return [
        (frames[(frames < first - guard) | (frames >= last + guard)], frames[first:last])
        for first, last in pairwise(edges)
    ]


def _line(
    prior: np.ndarray, y: np.ndarray, train: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per column: bias + slope * prior for all frames, bias (K,), and slope (K,) >= 0."""
    p_mean, y_mean = prior[train].mean(axis=0), y[train].mean(axis=0)
    p = prior[train] - p_mean
    slope = (p * (y[train] - y_mean)).sum(axis=0) / np.maximum((p**2).sum(axis=0), 1e-12)
    slope = np.maximum(slope, 0)
    bias = y_mean - slope * p_mean
    return bias + slope * prior, bias, slope


def _dual(kernel: np.ndarray, residual: np.ndarray, ridge: float) -> np.ndarray:
    return np.linalg.solve(kernel + ridge * np.eye(len(kernel)), residual)
