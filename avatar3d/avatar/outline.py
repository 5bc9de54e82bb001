"""The head's surface, moved to where the mattes say that the person ends.

A head model knows no hair and fits a jaw to a few millimetres. Where it is wider than the person,
Gaussians on it would take the colours of the background; where hair stands off it, there would be
nothing to turn into view but the few billboards of hair that the clip showed from the front.
"""

from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array, csc_array, diags_array
from scipy.sparse.linalg import spsolve

from avatar3d.avatar.views import Views
from avatar3d.head.model import PARTS, ShapedHead
from avatar3d.subject import PARSING_LABELS

__all__ = ["conformed"]

_RIM = 0.35  # cosine between normal and view up to which a vertex may lie on the outline
_PROBE = 4.0  # pixels beside an outline's vertex, where the mesh must end
_INWARD = 0.025  # metres that an outline may be too wide
_HAIR = 0.035  # metres that hair may stand off the skull
_FACING = 0.5  # cosine from which what is seen as skin stays where it was tracked
_HAIRY = 0.1  # and from which what is seen as hair may grow
# Against a measured offset, or none of skin: neighbours' differences; hair's from the usual one.
_STIFFNESS, _LOOSE = 0.3, 0.01
_FACE = ("skin", "left_eye", "right_eye", "brows", "nose", "lips", "mouth_interior", "teeth")
_ROUNDS = 3
_OUTSIDE = ("face", "scalp", "ears", "neck")


def conformed(head: ShapedHead, views: Views) -> ShapedHead:
    """The head with its neutral surface moved along its normals to the person's outline.

    Vertices on the outline of a view go to the edge of the matte, outwards only where hair grows;
    the hair between follows smoothly, and that far from any outline stands off as the rest usually
    does. Skin stays where it was tracked, unless it lies outside the person. What is on the outline
    changes with the surface, hence several rounds.
    """
    model = head.model
    normals = _vertex_normals(head.vertices, model.faces)
    fixed, hairy = _fixed(views)
    scalp = model.part == PARTS.index("scalp")
    grows = hairy | scalp
    stiff = csc_array(_STIFFNESS * _laplacian(model.faces, len(fixed)))
    offsets, target = np.zeros(len(fixed)), np.zeros(len(fixed))
    weight = np.where(fixed | ~grows, 1.0, _LOOSE)
    moved = head
    for again in range(_ROUNDS):
        if again:
            views = views.of(moved)
        wanted = np.stack([_outline(views, view) for view in range(len(views.indices))])
        wanted[:, ~grows] = np.where(wanted[:, ~grows] < 0, wanted[:, ~grows], np.nan)
        known = np.flatnonzero(np.isfinite(wanted).any(0) & ~fixed)
        target[known] = offsets[known] + np.nanmedian(wanted[:, known], axis=0)
        weight[known] = 1
        between = grows & (weight < 1)
        if scalp[known].any():
            target[between] = np.median(target[known][scalp[known]])
        offsets = spsolve(csc_array(stiff + diags_array(weight)), weight * target)
        moved = replace(head, vertices=head.vertices + normals * offsets[:, None])
    return moved


def _outline(views: Views, view: int) -> np.ndarray:
    """(V,) metres from each vertex on the outline to the matte's edge; nan for all others."""
    vertices, camera, model = views.vertices[view], views.camera, views.model
    normals = _vertex_normals(vertices, model.faces)
    sight = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    start = camera.project(vertices)
    step = camera.project(vertices + normals * 1e-3) - start
    scale = np.linalg.norm(step, axis=1) * 1e3  # pixels per metre
    step /= np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9)
    mesh = views.face[view] >= 0
    rim = np.abs((normals * sight).sum(1)) < _RIM
    rim &= np.isin(model.part, [PARTS.index(name) for name in _OUTSIDE])
    rim &= ~_sample(mesh, start + _PROBE * step, True) & _sample(mesh, start - _PROBE * step, False)
    rows = np.flatnonzero(rim)
    result = np.full(len(vertices), np.nan)
    scalp = model.part[rows] == PARTS.index("scalp")
    furthest = int(np.ceil(_HAIR * scale[rows].max(initial=0)))
    nearest = int(np.ceil(_INWARD * scale[rows].max(initial=0)))
    along = np.arange(-nearest, furthest + 1)
    places = start[rows, None] + along[:, None] * step[rows, None]
    person = _sample(views.mattes[view] > 127, places, False)
    framed = _sample(np.ones_like(mesh), places, False)
    labels = _sample(views.parsing[view], places, 0)
    never = np.where(
        scalp[:, None],
        np.isin(labels, [PARSING_LABELS.index(name) for name in ("neck", "ears", "clothes")]),
        np.isin(labels, [PARSING_LABELS.index(name) for name in ("hair", "ears", "clothes")]),
    )
    for row, vertex in enumerate(rows):
        result[vertex] = _edge(person[row], framed[row], never[row], nearest) / scale[vertex]
        if not -_INWARD < result[vertex] < _HAIR:
            result[vertex] = np.nan
    return result


def _edge(person: np.ndarray, framed: np.ndarray, never: np.ndarray, start: int) -> float:
    """Steps from `start` to the edge of the person along a line; nan without one to go by."""
    if person[start]:
        ahead = np.flatnonzero(~person[start:])
        if not len(ahead) or not framed[start : start + ahead[0] + 1].all():
            return np.nan
        if never[start : start + ahead[0]].any():
            return np.nan
        return ahead[0] - 0.5
    behind = np.flatnonzero(person[start::-1])
    if not len(behind) or not framed[start]:
        return np.nan
    return 0.5 - behind[0]


def _fixed(views: Views) -> tuple[np.ndarray, np.ndarray]:
    """(V,) bool: what stays in any case, and what is no scalp but was seen as hair.

    Inside the mouth, eyes, shoulders, and skin of the face that was seen well stay.
    """
    model = views.model
    outside = np.isin(model.part, [PARTS.index(name) for name in _OUTSIDE])
    fixed, hairy = ~outside | (model.torso_weight > 0.5), np.zeros(len(outside), bool)
    for vertices, face, labels in zip(views.vertices, views.face, views.parsing, strict=True):
        normals = _vertex_normals(vertices, model.faces)
        sight = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
        cosine = -(normals * sight).sum(1)
        pixels = views.camera.project(vertices)
        label = _sample(np.where(face >= 0, labels, 0), pixels, 0)
        face_label = np.isin(label, [PARSING_LABELS.index(name) for name in _FACE])
        fixed |= (cosine > _FACING) & face_label
        hairy |= outside & (cosine > _HAIRY) & (label == PARSING_LABELS.index("hair"))
    return fixed, hairy & ~fixed


def _sample(image: np.ndarray, points: np.ndarray, outside: float) -> np.ndarray:
    """Values of a picture (H, W) at points (..., 2) in pixels; `outside` beyond its edges."""
    pixel = np.floor(points).astype(int)
    height, width = image.shape
    inside = (pixel >= 0).all(-1) & (pixel[..., 0] < width) & (pixel[..., 1] < height)
    values = image[pixel[..., 1].clip(0, height - 1), pixel[..., 0].clip(0, width - 1)]
    return np.where(inside, values, np.asarray(outside, image.dtype))


def _vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, the mean of the triangles around weighted by area."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(total, faces[:, corner], normal)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def _laplacian(faces: np.ndarray, count: int) -> csc_array:
    """(V, V): sum over the edges of (d_i - d_j)^2 as a quadratic form."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.sort(edges, 1), axis=0)
    ones = np.ones(len(edges))
    links = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(count, count))
    links = csc_array(links + links.T)
    return csc_array(diags_array(links.sum(1)) - links)
