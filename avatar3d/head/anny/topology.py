"""From MakeHuman's whole body to a bust: which faces are kept and how the face is refined."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from avatar3d.head.anny.data import AnnyData

__all__ = ["Refined", "bust_quads", "edge_loop", "refine", "sample_mask"]

# The outline of the bust in decimetres of the base mesh: from the chest up, to mid upper arm.
_LOWEST, _WIDEST = 3.8, 2.75
_NOSE_VERTEX = 294
_MASK_LEVEL = 96  # of 255

Edge = tuple[int, int]


@dataclass(frozen=True)
class Refined:
    """A quad mesh whose marked part has been subdivided once.

    Attributes:
        operator: (V, 19158) sparse; refined vertices = operator @ base vertices.
        polygons: faces as lists of refined vertices, 4 to 8 corners.
        polygons_uv: (corners, 2) texture coordinates of each polygon.
        vertex_of: base vertex to refined vertex.
        edge_of: base edge (low, high) to the refined vertex on it, where there is one.
    """

    operator: csr_matrix
    polygons: list[list[int]]
    polygons_uv: list[np.ndarray]
    vertex_of: dict[int, int]
    edge_of: dict[Edge, int]

    def loop(self, base_loop: list[int]) -> np.ndarray:
        """Refined vertices along a closed loop of base vertices."""
        result = []
        for a, b in zip(base_loop, base_loop[1:] + base_loop[:1], strict=True):
            result.append(self.vertex_of[a])
            if (middle := self.edge_of.get(_edge(a, b))) is not None:
                result.append(middle)
        return np.array(result)


def bust_quads(data: AnnyData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quads (Q, 4) of head, neck and shoulders, their uv (Q, 4) and whether to refine them (Q,)."""
    base = data.base
    quads, quads_uv = base.quads["body"], base.quads_uv["body"]
    corners = base.vertices[quads]
    inside = (corners[..., 1] > _LOWEST).all(1) & (np.abs(corners[..., 0]) < _WIDEST).all(1)
    quads, quads_uv = quads[inside], quads_uv[inside]
    heads = np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)])
    count = len(base.vertices)
    graph = csr_matrix((np.ones(len(heads)), heads.T), shape=(count, count))
    label = connected_components(graph, directed=False)[1]
    joined = label[quads[:, 0]] == label[_NOSE_VERTEX]
    quads, quads_uv = quads[joined], quads_uv[joined]
    middle = base.uv[quads_uv].mean(1)
    fine = np.zeros(len(quads), bool)
    for name in ("face", "lips", "eyelids"):
        fine |= sample_mask(data.mask(name), middle)
    fine &= ~sample_mask(data.mask("inside-mouth"), middle)
    # The pictures are a pixel off here and there; what is refined must be the same on both sides.
    index = {frozenset(quad): i for i, quad in enumerate(quads.tolist())}
    partner = [index[frozenset(quad)] for quad in base.mirror[quads].tolist()]
    return quads, quads_uv, fine | fine[partner]


def sample_mask(mask: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Whether texture coordinates (..., 2) fall on the marked part of a picture (H, W)."""
    height, width = mask.shape
    row = np.clip(((1 - uv[..., 1]) * height).astype(int), 0, height - 1)
    column = np.clip((uv[..., 0] * width).astype(int), 0, width - 1)
    return mask[row, column] > _MASK_LEVEL


def edge_loop(quads: np.ndarray, start: int, towards: np.ndarray, limit: int = 400) -> list[int]:
    """The closed loop of edges through vertex `start` that goes straight on at every vertex.

    Args:
        quads: (Q, 4) all quads.
        start: vertex on the loop.
        towards: (N, 3) positions; the walk starts to the neighbour with the largest x.
        limit: give up after so many vertices.

    Raises:
        ValueError: the loop does not close.
    """
    faces_of: dict[int, list[int]] = defaultdict(list)
    for index, quad in enumerate(quads):
        for vertex in quad:
            faces_of[int(vertex)].append(index)

    def neighbours(vertex: int) -> dict[int, set[int]]:
        result: dict[int, set[int]] = defaultdict(set)
        for face in faces_of[vertex]:
            quad = [int(v) for v in quads[face]]
            at = quad.index(vertex)
            for other in (quad[(at + 1) % 4], quad[at - 1]):
                result[other].add(face)
        return result

    first = max(neighbours(start), key=lambda vertex: towards[vertex, 0])
    loop = [start, first]
    while len(loop) < limit:
        around = neighbours(loop[-1])
        behind = around[loop[-2]]
        ahead = [v for v, faces in around.items() if v != loop[-2] and not faces & behind]
        if len(ahead) != 1:
            break
        if ahead[0] == start:
            return loop
        loop.append(ahead[0])
    raise ValueError(f"the edge loop through vertex {start} does not close")


def refine(quads: np.ndarray, uv: np.ndarray, fine: np.ndarray, base_count: int) -> Refined:
    """Catmull-Clark subdivision, once, of the quads marked `fine`.

    The other quads get the smoothed vertices too, and take up the new corners on their sides, so
    that there is neither a crack nor a ridge between the parts. The outline of the mesh stays.

    Args:
        quads: (Q, 4) base vertices; uv: (Q, 4, 2) texture coordinates of their corners.
        fine: (Q,) bool.
        base_count: number of base vertices.
    """
    faces_at_edge: dict[Edge, list[int]] = defaultdict(list)
    for index, quad in enumerate(quads):
        for a, b in _sides(quad):
            faces_at_edge[_edge(a, b)].append(index)

    rows: list[dict[int, float]] = []
    vertex_of = {int(v): i for i, v in enumerate(np.unique(quads))}
    rows.extend(_vertex_rows(quads, faces_at_edge, list(vertex_of)))
    edge_of: dict[Edge, int] = {}
    for edge, faces in faces_at_edge.items():
        if not fine[faces].any():
            continue
        edge_of[edge] = len(rows)
        rows.append(_edge_row(edge, quads[faces]))
    centre_of: dict[int, int] = {}
    for index in np.flatnonzero(fine):
        centre_of[int(index)] = len(rows)
        rows.append({int(v): 0.25 for v in quads[index]})

    polygons, polygons_uv = [], []
    for index, quad in enumerate(quads):
        outline, outline_uv = _outline(quad, uv[index], vertex_of, edge_of)
        if not fine[index]:
            polygons.append(outline)
            polygons_uv.append(outline_uv)
            continue
        for corner in range(0, 8, 2):
            ring = [corner, corner + 1, corner - 1]
            polygons.append(
                [outline[ring[0]], outline[ring[1]], centre_of[index], outline[ring[2]]]
            )
            middle = uv[index].mean(0)
            polygons_uv.append(
                np.stack([outline_uv[ring[0]], outline_uv[ring[1]], middle, outline_uv[ring[2]]])
            )
    operator = _matrix(rows, base_count)
    return Refined(operator, polygons, polygons_uv, vertex_of, edge_of)


def _vertex_rows(
    quads: np.ndarray, faces_at_edge: dict[Edge, list[int]], vertices: list[int]
) -> list[dict[int, float]]:
    """Weights of the old vertices: smoothed, but kept on the outline of the mesh."""
    faces_of: dict[int, list[int]] = defaultdict(list)
    for index, quad in enumerate(quads):
        for vertex in quad:
            faces_of[int(vertex)].append(index)
    spokes: dict[int, list[Edge]] = defaultdict(list)
    for edge in faces_at_edge:
        for vertex in edge:
            spokes[vertex].append(edge)
    rows = []
    for vertex in vertices:
        faces, edges = faces_of[vertex], spokes[vertex]
        count = len(faces)
        if any(len(faces_at_edge[e]) != 2 for e in edges):
            rows.append({vertex: 1.0})
            continue
        row: dict[int, float] = defaultdict(float)
        row[vertex] += (count - 3) / count
        for face in faces:
            for corner in quads[face]:
                row[int(corner)] += 0.25 / count**2
        for a, b in edges:
            row[a] += 1 / count**2
            row[b] += 1 / count**2
        rows.append(dict(row))
    return rows


def _edge_row(edge: Edge, quads: np.ndarray) -> dict[int, float]:
    if len(quads) != 2:
        return {edge[0]: 0.5, edge[1]: 0.5}
    row: dict[int, float] = defaultdict(float)
    for vertex in edge:
        row[vertex] += 0.25
    for quad in quads:
        for vertex in quad:
            row[int(vertex)] += 0.0625
    return dict(row)


def _outline(
    quad: np.ndarray, uv: np.ndarray, vertex_of: dict[int, int], edge_of: dict[Edge, int]
) -> tuple[list[int], np.ndarray]:
    """Corners of a quad with the new vertices on its sides between them."""
    outline, points = [], []
    for i, (a, b) in enumerate(_sides(quad)):
        outline.append(vertex_of[a])
        points.append(uv[i])
        if (middle := edge_of.get(_edge(a, b))) is not None:
            outline.append(middle)
            points.append((uv[i] + uv[(i + 1) % 4]) / 2)
    return outline, np.stack(points)


def _sides(quad: np.ndarray) -> list[Edge]:
    corners = [int(v) for v in quad]
    return list(zip(corners, corners[1:] + corners[:1], strict=True))


def _edge(a: int, b: int) -> Edge:
    return (a, b) if a < b else (b, a)


def _matrix(rows: list[dict[int, float]], columns: int) -> csr_matrix:
    lengths = [len(row) for row in rows]
    at = np.repeat(np.arange(len(rows)), lengths)
    column = np.concatenate([np.fromiter(row.keys(), int) for row in rows])
    value = np.concatenate([np.fromiter(row.values(), float) for row in rows])
    return csr_matrix((value, (at, column)), shape=(len(rows), columns))
