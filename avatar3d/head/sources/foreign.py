"""From a statistical head with expressions of its own to a `HeadModel` with the ARKit rows.

The default head shows what each ARKit name means. It is laid onto the foreign head by its landmarks
and by the nearest surface; its rows, carried over, are matched by the foreign head's own
expressions and poses in the least-squares sense. What those cannot do at the lids, such as a blink,
is taken over as it is, and so is the inside of the mouth where the foreign head has none.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from avatar3d.head.anny.landmarks import Embedding, closest_on_triangles
from avatar3d.head.anny.landmarks import _closest_bary as closest_bary
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.head.gallery import vertex_normals
from avatar3d.head.landmarks import EYE_LEFT, EYE_RIGHT, FACE_OVAL, LANDMARK_COUNT, SLITS
from avatar3d.head.model import PARTS, HeadModel

__all__ = ["Embed", "ForeignHead", "adapt"]

Embed = Callable[[HeadModel], Embedding]
"""Finds the landmarks of a head that has none yet; its jawOpen row opens the mouth."""

_EYES = ("eye_left", "eye_right")
_MOUTH = ("mouth_cavity", "gums", "teeth_upper", "teeth_lower", "tongue")
_OUTSIDE = ("face", "scalp", "ears", "neck", "lips")
_NEAR = 0.006  # metres over which a correspondence loses its say
_NOISE, _REDUNDANCY = 1e-3, 10.0  # metres; vertices that say the same
_LID_REACH = 0.012  # metres around the lids
_RESIDUAL_MODES, _RESIDUAL_SIGMA = 12, 1.5


@dataclass(frozen=True)
class ForeignHead:
    """A published head: V vertices; metres, x to the person's left, y up, z out of the face.

    Attributes:
        name: what to call it.
        vertices: (V, 3) mean; faces: (F, 3).
        identity: (I, V, 3) and expression: (E, V, 3), both scaled to unit variance.
        poses: (P, V, 3) further displacements that any amount of is allowed, such as a turned
            jaw.
        torso_weight: (V,) in [0, 1].
        eye: (V,) 1 left eyeball, 2 right eyeball, 0 neither.
        eye_centers: (2, 3); eye_centers_identity: (I, 2, 3).
        uv: (U, 2), uv_faces: (F, 3); or None.
        part: (V,) index into `PARTS`, 255 where it is not known.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    poses: np.ndarray
    torso_weight: np.ndarray
    eye: np.ndarray
    eye_centers: np.ndarray
    eye_centers_identity: np.ndarray
    uv: np.ndarray | None
    uv_faces: np.ndarray | None
    part: np.ndarray


def adapt(foreign: ForeignHead, default: HeadModel, embed: Embed) -> HeadModel:
    """Give a foreign head parts, landmarks and ARKit rows.

    Args:
        foreign: the head in its own frame.
        default: a head whose rows are right; embed: finds landmarks.
    """
    scale = _eye_distance(foreign.eye_centers) / _eye_distance(default.eye_centers)
    shift = foreign.eye_centers.mean(0) - scale * default.eye_centers.mean(0)
    moved = replace(
        foreign,
        vertices=foreign.vertices - shift,
        eye_centers=foreign.eye_centers - shift,
    )
    rough = _Correspondence(default, scale * default.template, scale, moved)
    part = _parts(moved, rough)
    head = _assemble(moved, part, np.zeros((len(ARKIT_52), *foreign.vertices.shape)))
    rough_rows = _matched_rows(moved, rough, part, np.zeros(len(part), bool))
    marks = embed(_with_rows(head, rough_rows))
    head = _with_landmarks(head, marks)
    laid = _laid_on(default, head)
    fine = _Correspondence(default, laid, _mean_scale(default, laid), moved)
    part = _parts(moved, fine)
    lids = _around_lids(head)
    rows = _matched_rows(moved, fine, part, lids)
    head = _with_rows(replace(head, part=part), rows)
    _rescale_blinks(head)
    head = _with_residuals(head, moved)
    if not np.isin(part, [PARTS.index(name) for name in ("teeth_upper", "teeth_lower")]).any():
        head = _with_mouth(head, default, laid, fine)
    return head


class _Correspondence:
    """Which point of the default head each vertex of a foreign one is.

    Args:
        default: the default head; laid: (A, 3) its vertices, laid onto the foreign head.
        scale: size of the laid head relative to the default one.
    """

    def __init__(
        self, default: HeadModel, laid: np.ndarray, scale: float, foreign: ForeignHead
    ) -> None:
        self.default, self.laid, self.scale = default, laid, scale
        outside = np.isin(default.part, [PARTS.index(name) for name in _OUTSIDE])
        faces = default.faces[outside[default.faces].all(1)]
        ours = vertex_normals(foreign.vertices, foreign.faces)
        theirs = vertex_normals(laid, default.faces)
        # Looking for places and directions at once keeps the lips apart: 1 is worth 1 cm.
        six = np.concatenate([laid, 0.01 * theirs], 1)[faces]
        at, bary = _closest_in_six(np.c_[foreign.vertices, 0.01 * ours], six)
        self.faces, self.bary = faces[at], bary
        reached = (laid[self.faces] * bary[..., None]).sum(1)
        direction = (theirs[self.faces] * bary[..., None]).sum(1)
        away = np.linalg.norm(reached - foreign.vertices, axis=1)
        agree = np.clip((direction * ours).sum(1), 0, 1)
        self.weight = np.exp(-((away / _NEAR) ** 2)) * agree
        self.weight[foreign.eye > 0] = 0

    def carried(self, field: np.ndarray) -> np.ndarray:
        """(..., V, 3) displacements of the foreign vertices from (..., A, 3) of the default."""
        corners = field[..., self.faces, :]
        return self.scale * (corners * self.bary[..., None]).sum(-2)

    def labels(self) -> np.ndarray:
        """(V,) part of the nearest corner."""
        nearest = self.faces[np.arange(len(self.faces)), self.bary.argmax(1)]
        return self.default.part[nearest]


def _closest_in_six(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangle (N,) nearest in place and direction (N, 6), and the point of it (N, 3) barycentric.

    Exact in place among the triangles with the nearest centres.
    """
    _, near = cKDTree(triangles.mean(1)).query(points, k=12)
    bary = closest_bary(points[:, None, :3], triangles[near][..., :3])
    reached = (bary[..., None] * triangles[near]).sum(2)
    best = np.linalg.norm(reached - points[:, None], axis=-1).argmin(1)
    rows = np.arange(len(points))
    return near[rows, best], bary[rows, best]


def _parts(foreign: ForeignHead, match: _Correspondence) -> np.ndarray:
    """(V,) labels: those of the model, the eyeballs, else those of the default head."""
    part = np.where(foreign.part == 255, match.labels(), foreign.part)
    for side, name in enumerate(_EYES):
        part[foreign.eye == side + 1] = PARTS.index(name)
    return part.astype(np.uint8)


def _matched_rows(
    foreign: ForeignHead, match: _Correspondence, part: np.ndarray, lids: np.ndarray
) -> np.ndarray:
    """(52, V, 3) ARKit rows in the foreign head's own expressions, by least squares.

    Args:
        lids: (V,) bool, where the default head's own motion is kept if the other cannot do it.
    """
    wanted = match.carried(match.default.expression[: len(ARKIT_52)])
    basis = np.concatenate([foreign.expression, foreign.poses]).astype(np.float64)
    # Expressions have unit variance; poses may be anything but are not wanted for nothing.
    prior = np.r_[np.ones(len(foreign.expression)), np.full(len(foreign.poses), 0.01)]
    rows = _least_squares(basis, prior, wanted, match.weight)
    out, tongue = ARKIT_INDEX["tongueOut"], part == PARTS.index("tongue")
    if tongue.any():
        wanted[out, tongue] = _carried_tongue(match, foreign.vertices[tongue])
        weight = np.where(tongue, 1.0, match.weight)
        rows[out] = _least_squares(basis, prior, wanted[[out]], weight)[0]
    reach = np.linalg.norm(wanted, axis=-1)
    share = reach / np.maximum(reach.max(1, keepdims=True), 1e-9)
    rows *= _smooth_step(share, 0.01, 0.06)[..., None]  # a left smile keeps to the left
    for name in ARKIT_52:
        if name.startswith("eye"):
            index = ARKIT_INDEX[name]
            known = (lids * np.clip(2 * match.weight, 0, 1))[:, None]
            rows[index] += known * (wanted[index] - rows[index])
    rows[:, foreign.eye > 0] = 0
    return rows.astype(np.float32)


def _least_squares(
    basis: np.ndarray, prior: np.ndarray, wanted: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """(R, V, 3) nearest to `wanted` that the basis (B, V, 3) with precisions (B,) can do."""
    root = np.sqrt(weight / _REDUNDANCY) / _NOISE
    system = (basis * root[:, None]).reshape(len(basis), -1)
    targets = (wanted * root[:, None]).reshape(len(wanted), -1)
    amounts = np.linalg.solve(system @ system.T + np.diag(prior), system @ targets.T).T
    return np.tensordot(amounts, basis, 1)


def _carried_tongue(match: _Correspondence, tongue: np.ndarray) -> np.ndarray:
    """(N, 3) tongueOut of tongue vertices (N, 3): tongues are matched box to box."""
    default = match.default
    ours = default.part == PARTS.index("tongue")

    def within(points: np.ndarray) -> np.ndarray:
        low, high = points.min(0), points.max(0)
        return (points - low) / np.maximum(high - low, 1e-6)

    _, nearest = cKDTree(within(match.laid[ours])).query(within(tongue))
    return match.scale * default.expression[ARKIT_INDEX["tongueOut"], ours][nearest]


def _laid_on(default: HeadModel, head: HeadModel) -> np.ndarray:
    """(A, 3): the default head bent so that its landmarks are where those of the other head are."""
    from scipy.interpolate import RBFInterpolator

    ours, theirs = default.landmarks_of(default.template), head.landmarks_of(head.template)
    used = np.ones(LANDMARK_COUNT, bool)
    used[468:] = False
    used[list(FACE_OVAL)] = False  # they slide over the surface
    used[list(SLITS["Lips"][3])] = False  # on closed lips they are where the upper ones are
    used &= (default.landmark_sigma < 0.006) & (head.landmark_sigma < 0.006)
    scale = _eye_distance(head.eye_centers) / _eye_distance(default.eye_centers)
    scaled = scale * default.template.astype(float)
    bend = RBFInterpolator(
        scale * ours[used], theirs[used] - scale * ours[used], smoothing=1e-5, degree=1,
        kernel="thin_plate_spline",
    )  # fmt: skip
    # Away from the face the spline knows nothing: only its even part is kept there.
    away = cKDTree(scale * ours[used]).query(scaled)[0]
    share = np.exp(-((away / 0.06) ** 2))[:, None]
    moved = bend(scaled)
    even = (theirs[used] - scale * ours[used]).mean(0)
    laid = scaled + share * moved + (1 - share) * even
    return _drawn_to(laid, default, head)


def _drawn_to(laid: np.ndarray, default: HeadModel, head: HeadModel) -> np.ndarray:
    """Draw the outer skin, smoothly, onto the nearest surface of the other head, twice."""
    skin = np.flatnonzero(np.isin(head.part, [PARTS.index(name) for name in _OUTSIDE]))
    chosen = np.isin(head.faces, skin).all(1)
    triangles = head.template[head.faces[chosen]].astype(float)
    theirs = vertex_normals(head.template, head.faces)
    outside = np.isin(default.part, [PARTS.index(name) for name in _OUTSIDE])
    for reach in (0.012, 0.006):
        ours = vertex_normals(laid, default.faces)
        at, bary = closest_on_triangles(laid[outside], triangles, 12)
        corners = head.faces[chosen][at]
        pull = (triangles[at] * bary[..., None]).sum(1) - laid[outside]
        agree = ((theirs[corners] * bary[..., None]).sum(1) * ours[outside]).sum(1)
        trust = (agree > 0.5) * np.exp(-((np.linalg.norm(pull, axis=1) / 0.01) ** 2))
        tree = cKDTree(laid[outside])
        distance, near = tree.query(laid, k=12)
        weight = np.exp(-((distance / reach) ** 2)) * trust[near]
        mean = (weight[..., None] * pull[near]).sum(1) / (weight.sum(1, keepdims=True) + 0.3)
        laid = laid + mean
    return laid


def _around_lids(head: HeadModel) -> np.ndarray:
    """(V,) in [0, 1]: skin around the lids."""
    marks = head.landmarks_of(head.template)[[*EYE_LEFT, *EYE_RIGHT]]
    away = cKDTree(marks).query(head.template)[0]
    return 1 - _smooth_step(away, 0.5 * _LID_REACH, _LID_REACH)


def _rescale_blinks(head: HeadModel) -> None:
    """Scale the blinks, in place, to where the lids meet."""
    neutral = head.landmarks_of(head.template)
    for side in ("Left", "Right"):
        _, _, upper, lower = SLITS[side]
        row = head.expression[ARKIT_INDEX[f"eyeBlink{side}"]]
        moved = head.landmarks_of(head.template + row)
        middle = slice(1, -1)
        open_gap = (neutral[list(upper)] - neutral[list(lower)])[middle, 1].mean()
        shut_gap = (moved[list(upper)] - moved[list(lower)])[middle, 1].mean()
        if open_gap - shut_gap > 0.3 * open_gap:
            row *= open_gap / (open_gap - shut_gap)


def _with_residuals(head: HeadModel, foreign: ForeignHead) -> HeadModel:
    """The strongest expressions of the model as further rows, one for each sense."""
    count = min(_RESIDUAL_MODES, len(foreign.expression))
    skin = np.isin(head.part, [PARTS.index("face"), PARTS.index("lips")])
    seen = foreign.expression[:, skin]
    strength = np.linalg.norm(seen.reshape(len(seen), -1), axis=1)
    rows, names = [head.expression], list(head.expression_names)
    for mode in np.sort(np.argsort(-strength)[:count]):
        field = _RESIDUAL_SIGMA * foreign.expression[mode].astype(np.float32)
        field[foreign.eye > 0] = 0
        rows.append(np.stack([field, -field]))
        names += [f"{head.name}-expression{mode}-{end}" for end in ("up", "down")]
    return replace(head, expression=np.concatenate(rows), expression_names=tuple(names))


def _with_mouth(
    head: HeadModel, default: HeadModel, laid: np.ndarray, match: _Correspondence
) -> HeadModel:
    """Add teeth, gums, tongue and cavity of the default head; identity moves them with the lips."""
    inside = np.isin(default.part, [PARTS.index(name) for name in _MOUTH])
    chosen = np.flatnonzero(inside)
    number = np.full(len(inside), -1)
    number[chosen] = np.arange(len(chosen)) + len(head.template)
    here = inside[default.faces].all(1)
    faces = number[default.faces[here]]
    rows = np.zeros((len(head.expression), len(chosen), 3), np.float32)
    rows[: len(ARKIT_52)] = match.scale * default.expression[: len(ARKIT_52), chosen]
    lips = head.faces[head.landmark_faces[[13, 14, 78, 308]]].ravel()
    follow = head.identity[:, lips].mean(1, keepdims=True)
    identity = np.broadcast_to(follow, (len(head.identity), len(chosen), 3))
    still = np.zeros(len(chosen), np.float32)
    return replace(
        head,
        template=np.concatenate([head.template, laid[chosen]]).astype(np.float32),
        faces=np.concatenate([head.faces, faces]).astype(np.int32),
        identity=np.concatenate([head.identity, identity], 1).astype(np.float32),
        expression=np.concatenate([head.expression, rows], 1),
        part=np.concatenate([head.part, default.part[chosen]]),
        torso_weight=np.concatenate([head.torso_weight, still]),
        uv=np.concatenate([head.uv, default.uv]).astype(np.float32),
        uv_faces=np.concatenate([head.uv_faces, default.uv_faces[here] + len(head.uv)]),
    )


def _assemble(foreign: ForeignHead, part: np.ndarray, rows: np.ndarray) -> HeadModel:
    """A model without landmarks."""
    uv, uv_faces = foreign.uv, foreign.uv_faces
    if uv is None or uv_faces is None:
        uv, uv_faces = _wrapped_around(foreign.vertices), foreign.faces
    return HeadModel(
        name=foreign.name,
        template=foreign.vertices.astype(np.float32),
        faces=np.ascontiguousarray(foreign.faces, np.int32),
        identity=np.ascontiguousarray(foreign.identity, np.float32),
        expression=rows.astype(np.float32),
        expression_names=ARKIT_52,
        part=part,
        torso_weight=foreign.torso_weight.astype(np.float32),
        eye_centers=foreign.eye_centers.astype(np.float32),
        eye_centers_identity=foreign.eye_centers_identity.astype(np.float32),
        uv=np.ascontiguousarray(uv, np.float32),
        uv_faces=np.ascontiguousarray(uv_faces, np.int32),
        landmark_faces=np.zeros(LANDMARK_COUNT, np.int32),
        landmark_bary=np.full((LANDMARK_COUNT, 3), 1 / 3, np.float32),
        landmark_sigma=np.ones(LANDMARK_COUNT, np.float32),
    )


def _with_rows(head: HeadModel, rows: np.ndarray) -> HeadModel:
    return replace(head, expression=rows.astype(np.float32))


def _with_landmarks(head: HeadModel, marks: Embedding) -> HeadModel:
    return replace(
        head,
        landmark_faces=marks.faces.astype(np.int32),
        landmark_bary=marks.bary.astype(np.float32),
        landmark_sigma=marks.sigma.astype(np.float32),
    )


def _wrapped_around(vertices: np.ndarray) -> np.ndarray:
    """Texture coordinates (V, 2) on a cylinder around the head, for models that bring none."""
    height = vertices[:, 1]
    around = np.arctan2(vertices[:, 0], vertices[:, 2]) / (2 * np.pi) + 0.5
    return np.c_[around, (height - height.min()) / max(float(np.ptp(height)), 1e-9)]


def _eye_distance(centers: np.ndarray) -> float:
    return float(np.linalg.norm(centers[0] - centers[1]))


def _mean_scale(default: HeadModel, laid: np.ndarray) -> float:
    """Size of the laid face relative to the default one."""
    face = np.isin(default.part, [PARTS.index("face"), PARTS.index("lips")])
    spread = [np.linalg.norm(v[face] - v[face].mean(0)) for v in (laid, default.template)]
    return float(spread[0] / spread[1])


def _smooth_step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
