"""The whole head model behind an avatar, which itself keeps only triangles that carry Gaussians."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from avatar3d.avatar.state import SplatState
from avatar3d.errors import UserError
from avatar3d.head import HeadModel, load_head
from avatar3d.head.model import ShapedHead

if TYPE_CHECKING:
    from avatar3d.avatar import SplatAvatar

__all__ = ["WholeHead", "whole_head"]

_EXPRESSION_SHARE = 10.0  # how much more than a place a displacement tells about which vertex it is
_ORDER_SHARE = 2e-4  # metres for each place in the order of vertices
_ROUNDS = 3
_FOUND = 0.98  # of the avatar's triangles must be in the model
_LOOSE = 1e-6  # holds parts of the mesh without a known vertex to where the model has them


@dataclass(frozen=True)
class WholeHead:
    """A person's head with all V vertices of the head model.

    Attributes:
        head: its vertices are the avatar's where the avatar has them, and follow them elsewhere.
        vertex: (V',) which vertex of the model each of the avatar's is, -1 where that is not sure.
        face: (F',) which triangle of the model each of the avatar's is, -1 where not sure.
    """

    head: ShapedHead
    vertex: np.ndarray
    face: np.ndarray

    @property
    def expression(self) -> np.ndarray:
        """(E, V, 3) rows of this person."""
        return self.head.expression


def whole_head(avatar: "SplatAvatar") -> WholeHead:
    """Find the avatar's triangles in its head model and complete them.

    Raises:
        UserError: the head model is not at hand, or is not the one that the avatar was made with.
    """
    state, name = avatar.state, avatar.info.get("head_model")
    identity = avatar.info.get("identity")
    if name is None or identity is None:
        raise UserError("The avatar does not say what its head model is; train it again.")
    model = load_head(name)
    shaped = model.shaped(np.asarray(identity))
    vertex = _vertices_of(state, shaped)
    face = None if vertex is None else _found(vertex[state.faces], model)
    if vertex is None or face is None or (face >= 0).mean() < _FOUND:
        raise UserError(
            f"The avatar was made with another version of the head model {name!r}; train it again."
        )
    known = vertex >= 0
    vertices = _completed(shaped, vertex[known], state.vertices[known])
    return WholeHead(ShapedHead(model, vertices, state.eye_centers), vertex, face)


def _found(corners: np.ndarray, model: HeadModel) -> np.ndarray:
    """(F',) index of triangles (F', 3) in those of the model, -1 where there is none such."""

    def key(faces: np.ndarray) -> np.ndarray:
        a, b, c = faces.astype(np.int64).T
        return (a * len(model.template) + b) * len(model.template) + c

    keys = key(model.faces)
    order = np.argsort(keys, kind="stable")
    wanted = np.where((corners >= 0).all(1), key(corners), -1)
    place = np.searchsorted(keys, wanted, sorter=order).clip(0, len(keys) - 1)
    return np.where(keys[order[place]] == wanted, order[place], -1)


def _vertices_of(state: SplatState, shaped: ShapedHead) -> np.ndarray | None:
    """(V',) ascending: the avatar keeps the order of the model's vertices; None if it cannot be.

    An avatar's vertices have moved, to fit the outline, by up to centimetres. Most are the nearest
    in place and displacements nevertheless; by how those have moved the others are found.
    """
    from scipy.spatial import cKDTree

    if len(state.expression) != len(shaped.expression) or len(state.vertices) > len(
        shaped.vertices
    ):
        return None

    def features(vertices: np.ndarray, expression: np.ndarray, order: np.ndarray) -> np.ndarray:
        moved = _EXPRESSION_SHARE * expression.transpose(1, 0, 2).reshape(len(vertices), -1)
        return np.concatenate([vertices, moved, _ORDER_SHARE * order[:, None]], axis=1)

    count = len(state.vertices)
    vertices, order = shaped.vertices, np.arange(len(shaped.vertices))
    place, share = np.zeros(count), 0
    for _ in range(_ROUNDS):
        own = features(state.vertices, state.expression, share * place)
        index = cKDTree(features(vertices, shaped.expression, share * order)).query(own)[1]
        sure = np.zeros(count, bool)
        sure[state.faces[_found(index[state.faces], shaped.model) >= 0]] = True
        sure = _ascending(index, sure)
        if not sure.any():
            return None
        _third_corners(index, sure, state.faces, shaped.model)
        vertices = _completed(shaped, index[sure], state.vertices[sure])
        place, share = np.interp(np.arange(count), np.flatnonzero(sure), index[sure]), 1
    return np.where(sure, index, -1)


def _third_corners(
    index: np.ndarray, sure: np.ndarray, faces: np.ndarray, model: HeadModel
) -> None:
    """Set what is not sure of triangles with two sure corners: an edge has one triangle a side."""
    count = len(model.template)
    turned = np.concatenate([np.roll(model.faces, -k, axis=1) for k in range(3)]).astype(np.int64)
    keys = turned[:, 0] * count + turned[:, 1]
    order = np.argsort(keys, kind="stable")
    own = np.concatenate([np.roll(faces, -k, axis=1) for k in range(3)])
    for _ in range(_ROUNDS):
        a, b, c = own[sure[own[:, 0]] & sure[own[:, 1]] & ~sure[own[:, 2]]].T
        wanted = index[a].astype(np.int64) * count + index[b]
        place = order[np.searchsorted(keys, wanted, sorter=order).clip(0, len(keys) - 1)]
        there = keys[place] == wanted
        index[c[there]] = turned[place[there], 2]
        sure[c[there]] = True


def _ascending(index: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """(V',) bool: as many of those sure as go up together (Fredman 1975)."""
    place = np.flatnonzero(sure)
    tops: list[int] = []
    last: list[int] = []
    before = np.full(len(place), -1)
    for here, value in enumerate(index[place].tolist()):
        pile = bisect_left(tops, value)
        tops[pile : pile + 1] = [value]
        last[pile : pile + 1] = [here]
        before[here] = last[pile - 1] if pile else -1
    chosen = np.zeros(len(index), bool)
    here = last[-1] if last else -1
    while here >= 0:
        chosen[place[here]] = True
        here = before[here]
    return chosen


def _completed(shaped: ShapedHead, known: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(V, 3) with `known` at their `places`, and the others displaced as their neighbours are."""
    from scipy.sparse import coo_matrix, diags
    from scipy.sparse.linalg import splu

    vertices, faces, count = shaped.vertices, shaped.model.faces, len(shaped.vertices)
    first, second = np.concatenate([faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))]).T
    ends = np.r_[first, second], np.r_[second, first]
    edges = coo_matrix((np.ones(len(ends[0])), ends), (count, count)).tocsr()
    edges.data[:] = 1
    laplacian = (diags(np.asarray(edges.sum(1)).ravel() + _LOOSE) - edges).tocsr()
    moved = np.zeros((count, 3))
    moved[known] = places - vertices[known]
    free = np.setdiff1d(np.arange(count), known)
    if len(free):
        right = -(laplacian[free][:, known] @ moved[known])
        moved[free] = splu(laplacian[free][:, free].tocsc()).solve(right)
    return (vertices + moved).astype(np.float32)
