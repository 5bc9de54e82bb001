"""The skin of the bust with the mouth cavity, eye sockets and tongue: mesh, labels and weights."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix, vstack

from avatar3d.head.anny.data import AnnyData
from avatar3d.head.anny.rig import Rig
from avatar3d.head.anny.slits import Slit, make_slit
from avatar3d.head.anny.topology import Refined, bust_quads, edge_loop, refine, sample_mask
from avatar3d.head.model import PARTS

__all__ = ["Skin", "make_skin"]

_LID_VERTEX, _LIP_VERTEX = 1, 474  # base vertices on the edge of the right lids and inner lips
_LID_REACH, _LIP_REACH = 0.007, 0.009  # metres along the skin that follow a lid or a lip
_HELPERS = (
    "helper-l-eye", "helper-r-eye", "helper-tongue", "helper-upper-teeth", "helper-lower-teeth",
)  # fmt: skip
_SOCKET_RADIUS = 0.22  # decimetres around the eye joint
_MASKS = ("face", "lips", "eyelids", "ears", "inside-mouth")


@dataclass(frozen=True)
class Skin:
    """Skin and tongue, S vertices; fields marked (B,) are over the 19158 base vertices.

    Attributes:
        operator: (S, B) sparse; vertices = operator @ base vertices, likewise displacements.
        polygons, polygons_uv: faces of 4 to 8 corners and their texture coordinates.
        loops: vertices along the lids ("Left", "Right") and the inner lips ("Lips").
        part: (S,) labels; torso_weight: (S,).
        chin: (S,) bool, skin that is firmly on the jaw bone.
        base_vertices: (K,) base vertices that the model depends on.
        importance, skull, ears: (B,) weight in the identity modes; where heads are aligned; ears.
        slits: lids and lips, once `with_slits` has seen the neutral shape.
    """

    operator: csr_matrix
    polygons: list[list[int]]
    polygons_uv: list[np.ndarray]
    loops: dict[str, np.ndarray]
    part: np.ndarray
    torso_weight: np.ndarray
    chin: np.ndarray
    base_vertices: np.ndarray
    importance: np.ndarray
    skull: np.ndarray
    ears: np.ndarray
    slits: dict[str, Slit]

    @property
    def lids(self) -> dict[str, Slit]:
        return {side: self.slits[side] for side in ("Left", "Right")}

    @property
    def lips(self) -> Slit:
        return self.slits["Lips"]

    def with_slits(self, neutral: np.ndarray) -> "Skin":
        """Add the slits, measured on the neutral shape (S, 3) in metres."""
        edges = np.array([pair for ring in self.polygons for pair in pairwise([*ring, ring[0]])])
        edges = np.unique(np.sort(edges, 1), axis=0)
        slits = {
            name: make_slit(loop, neutral, edges, _LIP_REACH if name == "Lips" else _LID_REACH)
            for name, loop in self.loops.items()
        }
        return replace(self, slits=slits)

    def triangles(self, neutral: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Triangles (F, 3), texture coordinates (U, 2) and their triangles (F, 3)."""
        corners = np.concatenate(self.polygons_uv)
        uv, uv_index = np.unique(np.round(corners, 7), axis=0, return_inverse=True)
        uv_index = uv_index.ravel()
        faces, uv_faces, start = [], [], 0
        for ring in self.polygons:
            for triple in _triangulate(ring, neutral):
                faces.append([ring[i] for i in triple])
                uv_faces.append([uv_index[start + i] for i in triple])
            start += len(ring)
        return np.array(faces, np.int32), uv, np.array(uv_faces, np.int32)


def make_skin(data: AnnyData, rig: Rig) -> Skin:
    """Cut the bust out of the base mesh, refine its face and label it."""
    base = data.base
    quads, quads_uv, fine = bust_quads(data)
    refined = refine(quads, base.uv[quads_uv], fine, len(base.vertices))
    tongue = base.group("helper-tongue")
    operator, polygons, polygons_uv = _with_tongue(data, refined, tongue)
    starts = {"Right": _LID_VERTEX, "Left": int(base.mirror[_LID_VERTEX]), "Lips": _LIP_VERTEX}
    loops = {n: refined.loop(edge_loop(quads, v, base.vertices)) for n, v in starts.items()}

    uv = np.zeros((len(base.vertices), 2))
    uv[quads] = base.uv[quads_uv]
    masks = {name: sample_mask(data.mask(name), uv) for name in _MASKS}
    masks = {n: operator @ (mask | mask[base.mirror]).astype(float) for n, mask in masks.items()}
    masks = {name: share > 0.5 for name, share in masks.items()}
    part, chin = _labels(data, operator, rig, masks, len(tongue))
    weight = _torso_weight(operator @ rig.torso, part, polygons)

    needed = [np.unique(quads)] + [base.group(name) for name in _HELPERS]
    needed += [
        np.flatnonzero(j) for joints in (rig.shoulder_joints, rig.eye_joints) for j in joints
    ]
    return Skin(
        operator=operator,
        polygons=polygons,
        polygons_uv=polygons_uv,
        loops=loops,
        part=part,
        torso_weight=weight,
        chin=chin,
        base_vertices=np.unique(np.concatenate(needed)),
        slits={},
        **_base_fields(data, quads, quads_uv, fine),
    )


def _with_tongue(
    data: AnnyData, refined: Refined, tongue: np.ndarray
) -> tuple[csr_matrix, list[list[int]], list[np.ndarray]]:
    start = refined.operator.shape[0]
    ones = (np.ones(len(tongue)), (np.arange(len(tongue)), tongue))
    pick = csr_matrix(ones, shape=(len(tongue), refined.operator.shape[1]))
    index = {int(vertex): start + i for i, vertex in enumerate(tongue)}
    quads, uv = data.base.quads["helper-tongue"], data.base.quads_uv["helper-tongue"]
    polygons = refined.polygons + [[index[int(v)] for v in quad] for quad in quads]
    polygons_uv = refined.polygons_uv + [data.base.uv[corners] for corners in uv]
    return vstack([refined.operator, pick]).tocsr(), polygons, polygons_uv


def _labels(
    data: AnnyData, operator: csr_matrix, rig: Rig, masks: dict[str, np.ndarray], tongue: int
) -> tuple[np.ndarray, np.ndarray]:
    """Part of every vertex, and which of them are the chin."""
    rest = operator @ data.base.vertices
    torso, neck, jaw = (operator @ field for field in (rig.torso, rig.neck, rig.jaw))
    part = np.full(len(rest), PARTS.index("scalp"), np.uint8)

    def mark(name: str, where: np.ndarray | slice) -> None:
        part[where] = PARTS.index(name)

    mark("neck", (torso > 0.08) | (neck > 0.5) | (jaw > 0.3))
    mark("shoulders", torso > 0.95)
    mark("ears", masks["ears"])
    mark("face", masks["face"] | masks["eyelids"])
    mark("lips", masks["lips"])
    mark("mouth_cavity", masks["inside-mouth"])
    other = part == PARTS.index("scalp")
    for joint in rig.eye_joints:
        distance = np.linalg.norm(rest - joint @ data.base.vertices, axis=1)
        mark("eye_socket", other & (distance < _SOCKET_RADIUS))
    mark("tongue", slice(len(rest) - tongue, None))
    chin = (part == PARTS.index("face")) & (jaw > 0.8) & (np.abs(rest[:, 0]) < 0.2)
    return part, chin


def _torso_weight(weight: np.ndarray, part: np.ndarray, polygons: list[list[int]]) -> np.ndarray:
    """Skinning weights, a little smoothed because the neck is coarse, and 0 on the face."""
    heads = np.array([pair for ring in polygons for pair in pairwise([*ring, ring[0]])])
    count = len(weight)
    graph = csr_matrix(
        (np.ones(2 * len(heads)), np.concatenate([heads, heads[:, ::-1]]).T), (count, count)
    )
    graph.data[:] = 1
    neighbours = np.maximum(graph.sum(1).A1, 1)
    head = ~np.isin(part, [PARTS.index(n) for n in ("scalp", "neck", "shoulders")])
    for _ in range(4):
        weight = np.where(head, 0, (weight + graph @ weight / neighbours) / 2)
    return np.clip(weight, 0, 1)


def _base_fields(
    data: AnnyData, quads: np.ndarray, quads_uv: np.ndarray, fine: np.ndarray
) -> dict[str, np.ndarray]:
    """Fields over the base vertices that steer the identity modes."""
    vertices = data.base.vertices
    count = len(vertices)
    bust, face, ears = (np.zeros(count, bool) for _ in range(3))
    bust[quads] = True
    face[quads[fine]] = True
    ears[quads[sample_mask(data.mask("ears"), data.base.uv[quads_uv].mean(1))]] = True
    height = vertices[:, 1]
    # The face counts most; the torso little, and less the lower it is; helpers hardly.
    importance = np.where(bust, np.interp(height, [4.0, 6.0, 6.5], [0.08, 0.35, 0.5]), 0.3)
    importance[face] = 1.0
    skull = bust & ~ears & (height > 6.95) & (np.abs(vertices[:, 0]) < 0.78)
    return {"importance": importance, "skull": skull, "ears": ears}


def _triangulate(ring: list[int], vertices: np.ndarray) -> list[tuple[int, int, int]]:
    """Corners of triangles: a quad along its shorter diagonal, others as a fan.

    The fan starts at a corner that was put on a side, so that no triangle is flat.
    """
    count = len(ring)
    corners = vertices[ring]
    if count == 4:
        first = np.linalg.norm(corners[0] - corners[2])
        second = np.linalg.norm(corners[1] - corners[3])
        start = 0 if first <= second else 1
    else:
        before, after = np.roll(corners, 1, 0), np.roll(corners, -1, 0)
        start = int(np.linalg.norm(corners - (before + after) / 2, axis=1).argmin())
    return [(start, (start + i) % count, (start + i + 1) % count) for i in range(1, count - 1)]
