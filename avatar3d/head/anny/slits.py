"""Lids and lips: the two edges of a slit, and how to bring them together."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

__all__ = ["Slit", "make_slit"]


@dataclass(frozen=True)
class Slit:
    """Two chains of vertices between common corners.

    Attributes:
        corners: (2,) the ends of the slit, by x.
        upper, lower: (M,), (N,) the vertices between them, by x.
        across: (M, V) sparse; `across @ vertices` are the points of the lower edge at the x of the
            upper vertices.
        closing: (V, V) sparse; `vertices + closing @ vertices` has both edges on their common
            middle, and the surroundings follow smoothly. Linear, so it applies to displacement
            fields as well: a closed head keeps closed under corrected fields.
    """

    corners: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    across: csr_matrix
    closing: csr_matrix

    def gap(self, vertices: np.ndarray) -> np.ndarray:
        """(M, 3) vectors from the lower to the upper edge; works for displacements too."""
        return vertices[self.upper] - self.across @ vertices


def make_slit(loop: np.ndarray, vertices: np.ndarray, edges: np.ndarray, reach: float) -> Slit:
    """Split a closed loop into upper and lower edge.

    Args:
        loop: (L,) vertices along the loop.
        vertices: (V, 3) neutral shape.
        edges: (K, 2) edges of the surface around.
        reach: how far along the surface the closing is felt, in the unit of `vertices`.
    """
    x = vertices[loop, 0]
    low, high = sorted((int(x.argmin()), int(x.argmax())))
    chains = [loop[low + 1 : high], np.concatenate([loop[high + 1 :], loop[:low]])]
    chains = [chain[np.argsort(vertices[chain, 0])] for chain in chains]
    lower, upper = sorted(chains, key=lambda chain: vertices[chain, 1].mean())
    corners = loop[[int(x.argmin()), int(x.argmax())]]
    across = [
        _interpolation(vertices, np.concatenate([corners[:1], line, corners[1:]]), chain)
        for chain, line in ((upper, lower), (lower, upper))
    ]
    closing = _closing(vertices, edges, (upper, lower), across, corners, reach)
    return Slit(corners, upper, lower, across[0], closing)


def _interpolation(vertices: np.ndarray, line: np.ndarray, chain: np.ndarray) -> csr_matrix:
    """(len(chain), V): the points of a polyline at the x of the chain's vertices."""
    along, x = vertices[line, 0], vertices[chain, 0]
    at = np.clip(np.searchsorted(along, x) - 1, 0, len(line) - 2)
    share = np.clip((x - along[at]) / np.maximum(along[at + 1] - along[at], 1e-12), 0, 1)
    rows = np.tile(np.arange(len(chain)), 2)
    columns = np.concatenate([line[at], line[at + 1]])
    values = np.concatenate([1 - share, share])
    return csr_matrix((values, (rows, columns)), shape=(len(chain), len(vertices)))


def _closing(
    vertices: np.ndarray, edges: np.ndarray, chains: tuple[np.ndarray, np.ndarray],
    across: list[csr_matrix], corners: np.ndarray, reach: float,
) -> csr_matrix:  # fmt: skip
    """Every vertex moves by half the gap at the nearest edge vertex, less the farther away."""
    count = len(vertices)
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    graph = csr_matrix((np.maximum(length, 1e-12), edges.T), shape=(count, count))
    distance, _, nearest = dijkstra(
        graph, directed=False, indices=np.concatenate([*chains, corners]), min_only=True,
        return_predecessors=True, limit=reach,
    )  # fmt: skip
    felt = np.flatnonzero(np.isfinite(distance))
    felt = felt[~np.isin(nearest[felt], corners)]
    weight = (1 - (distance[felt] / reach) ** 2) ** 2 / 2
    gap = csr_matrix((count, count))
    for chain, other in zip(chains, across, strict=True):
        lift = csr_matrix(
            (np.ones(len(chain)), (chain, np.arange(len(chain)))), (count, len(chain))
        )
        own = csr_matrix((np.ones(len(chain)), (chain, chain)), (count, count))
        gap = gap + lift @ other - own
    spread = csr_matrix((weight, (felt, nearest[felt])), (count, count))
    return (spread @ gap).tocsr()
