"""A splat avatar sampled from a field: its surface in Gaussians, bound to the same head."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from avatar3d.avatar.build import BASIS_LIMIT, signal_map
from avatar3d.avatar.nerf.avatar import NerfAvatar
from avatar3d.avatar.nerf.state import NerfState
from avatar3d.avatar.nerf.surface import SurfacePoints, mouth_points, surface_points
from avatar3d.avatar.nerf.warp import interpolated
from avatar3d.avatar.state import SplatState
from avatar3d.head.anny.landmarks import closest_on_triangles
from avatar3d.head.arkit import ARKIT_52
from avatar3d.motion.motion import Motion

__all__ = ["sampled_splats"]

_MOUTH_SHARE = 0.06  # of the budget
_FACE_SHARE = 0.6  # of the rest
_TORSO_ABOVE = 0.5  # skinning weight from which a point only moves with the shoulders
_OFF_SKIN = 0.007  # metres from a part of the head model that no expression moves: hair
_FAR_OFF = 0.02  # metres from any part: hair
_STILL = 0.001  # metres that an expression may move what carries hair
_CANDIDATES = 8  # triangles, by their centres, that may be the nearest
_SHAPE = (0.6, 0.6, 0.4)  # of the spacing
_OPACITY = 2.0  # logit
_SIZES = 4e-4, 8e-3  # metres


@dataclass(frozen=True)
class _Bound:
    """Where n points sit: triangle, barycentric anchor, place in its frame, distance from it."""

    face: np.ndarray
    bary: np.ndarray
    position: np.ndarray
    distance: np.ndarray


def sampled_splats(
    avatar: NerfAvatar, budget: int, basis_size: int, rng: np.random.Generator
) -> SplatState:
    """A state that resembles the field at rest, ready to be refined.

    Args:
        avatar: the field and its head.
        budget: number of Gaussians, met within a few per cent.
        basis_size: K, number of attribute blendshapes, all 0 at first.
        rng: source of randomness.

    Raises:
        ValueError: the field shows nothing.
    """
    state = avatar.state
    mouth = mouth_points(avatar, round(budget * _MOUTH_SHARE), rng)
    points = _thinned(surface_points(avatar, rng), state.fine_box, budget - len(mouth.face), rng)
    part, bound = _parts(state, points)
    torso = part == SplatState.PARTS.index("torso")
    spacing = _spacing(points.place)
    inside = _places(state, mouth.face, mouth.bary)
    part = np.r_[part, np.full(len(mouth.face), SplatState.PARTS.index("mouth"), np.uint8)]
    total = len(part)
    spacing = np.r_[spacing, _spacing(inside)]
    arrays = {
        "face": np.r_[np.where(torso, -1, bound.face), mouth.face].astype(np.int32),
        "bary": np.r_[np.where(torso[:, None], 0, bound.bary), mouth.bary].astype(np.float32),
        "part": part,
        "position": np.r_[
            np.where(torso[:, None], points.place, bound.position), np.zeros((len(inside), 3))
        ].astype(np.float32),
        "quat": np.tile(np.array([1, 0, 0, 0], np.float32), (total, 1)),
        "log_scale": np.log(spacing[:, None] * np.array(_SHAPE)).astype(np.float32),
        "opacity": np.full(total, _OPACITY, np.float32),
        "color": np.r_[points.color, mouth.color].astype(np.float32),
    }
    order = np.argsort(_RANK[part], kind="stable")
    rows = int((_RANK[part] < _RANK[SplatState.PARTS.index("hair")]).sum())
    head = ("vertices", "expression", "faces", "torso_weight", "eye", "eye_centers", "mean",
            "signal_min", "signal_max", "T_camera_rest", "K_matrix", "size", "torso_map",
            "torso_limit")  # fmt: skip
    splats = SplatState(
        **{name: getattr(state, name) for name in head},
        **{name: array[order] for name, array in arrays.items()},
        basis=np.zeros((rows, 10, basis_size), np.float32),
        map=signal_map(_signal(state, avatar.idle_motion), len(state.expression), basis_size),
        bias=np.zeros(basis_size, np.float32),
        limit=np.array(BASIS_LIMIT, np.float32),
    )
    splats.validate()
    return splats


_RANK = np.array([("skin", "eyes", "mouth", "hair", "torso").index(p) for p in SplatState.PARTS])
"""Of each part: those with blendshapes come first, those of the torso last."""


def _signal(state: NerfState, motion: Motion) -> np.ndarray:
    """(T, E + 4) what drives the face in a motion."""
    rows = len(state.expression)
    signal = np.zeros((len(motion), rows + 4), np.float32)
    if motion.expression is not None:
        signal[:, : len(ARKIT_52)] = motion.expression
    if motion.residual is not None and motion.residual.shape[1] == rows - len(ARKIT_52):
        signal[:, len(ARKIT_52) : rows] = motion.residual
    if motion.gaze is not None:
        signal[:, rows:] = motion.gaze.reshape(len(motion), 4)
    return signal.clip(state.signal_min, state.signal_max)


def _thinned(
    points: SurfacePoints, face_box: np.ndarray, budget: int, rng: np.random.Generator
) -> SurfacePoints:
    """About `budget` of the points, evenly spread, closer together in the face."""
    in_face = ((points.place > face_box[0]) & (points.place < face_box[1])).all(1)
    chosen = []
    face_share = _FACE_SHARE if (~in_face).any() else 1.0
    for members, share in ((in_face, face_share), (~in_face, 1 - face_share)):
        index = rng.permutation(np.flatnonzero(members))
        chosen.append(index[_evenly(points.place[index], round(budget * share))])
    kept = np.concatenate(chosen)
    return SurfacePoints(points.place[kept], points.color[kept])


def _evenly(place: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` points, one of every cell of a lattice that has about so many."""
    if len(place) <= count:
        return np.arange(len(place))
    low, high = 1e-4, 0.1
    for _ in range(30):
        middle = np.sqrt(low * high)
        cells = len(np.unique(np.floor(place / middle).astype(np.int64), axis=0))
        low, high = (middle, high) if cells > count else (low, middle)
    _, first = np.unique(np.floor(place / high).astype(np.int64), axis=0, return_index=True)
    return first


def _parts(state: NerfState, points: SurfacePoints) -> tuple[np.ndarray, _Bound]:
    """(n,) index into `SplatState.PARTS`, and where the points sit."""
    corners = state.faces
    index = {name: SplatState.PARTS.index(name) for name in SplatState.PARTS}
    bound = _bind(state, points.place, np.flatnonzero(state.face_part != index["mouth"]))
    part = np.full(len(points.place), index["skin"], np.uint8)
    eyes = state.face_part == index["eyes"]
    part[eyes[bound.face]] = index["eyes"]
    still = np.linalg.norm(state.expression, axis=2).max(0)[corners].max(1) < _STILL
    near = np.where(still[bound.face], _OFF_SKIN, _FAR_OFF)
    part[bound.distance > near] = index["hair"]
    skin = interpolated(state.skin.reshape(state.lattice_shape()), state.box, points.place)
    part[skin > _TORSO_ABOVE] = index["torso"]
    carriers = np.flatnonzero(still & (state.torso_weight[corners].max(1) < 0.01) & ~eyes)
    hair = part == index["hair"]
    if hair.any() and len(carriers):
        carried = _bind(state, points.place[hair], carriers)
        bound.face[hair], bound.bary[hair] = carried.face, carried.bary
        bound.position[hair] = carried.position
    return part, bound


def _places(state: NerfState, face: np.ndarray, bary: np.ndarray) -> np.ndarray:
    """(n, 3) metres of points on triangles."""
    return (state.vertices[state.faces[face]] * bary[..., None]).sum(1)


def _bind(state: NerfState, place: np.ndarray, allowed: np.ndarray) -> _Bound:
    """The nearest of the allowed triangles for each point (n, 3)."""
    corners = state.vertices[state.faces[allowed]].astype(np.float64)
    face, bary = closest_on_triangles(place, corners, _CANDIDATES)
    triangle = corners[face]
    u = triangle[:, 1] - triangle[:, 0]
    n = np.cross(u, triangle[:, 2] - triangle[:, 0])
    u /= np.linalg.norm(u, axis=1, keepdims=True).clip(1e-12)
    n /= np.linalg.norm(n, axis=1, keepdims=True).clip(1e-12)
    frame = np.stack([u, np.cross(n, u), n], -1)
    anchor = (triangle * bary[..., None]).sum(1)
    away = place - anchor
    distance = np.linalg.norm(away, axis=1)
    return _Bound(allowed[face], bary, np.einsum("nij,ni->nj", frame, away), distance)


def _spacing(place: np.ndarray) -> np.ndarray:
    """(n,) metres between each point and those around it."""
    if len(place) < 2:
        return np.full(len(place), _SIZES[1])
    distance, _ = cKDTree(place).query(place, min(5, len(place)))
    return distance[:, 1:].mean(1).clip(*_SIZES)
