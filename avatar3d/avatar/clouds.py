"""The first Gaussians of each part: skin, eyes and mouth on the mesh; hair; shoulders."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from avatar3d.avatar.state import SplatState
from avatar3d.avatar.views import Shown, Views
from avatar3d.head.landmarks import BROWS, EYE_LEFT, EYE_RIGHT, LIPS
from avatar3d.head.model import PARTS, ShapedHead
from avatar3d.subject import PARSING_LABELS

__all__ = ["Cloud", "bound_cloud", "hair_cloud", "torso_cloud"]

# Gaussians per square centimetre before scaling to the budget. People look at eyes and lips
# first; the back of the head is hardly ever seen.
_DENSITY = {
    "face": 11.0, "lips": 38.0, "scalp": 2.0, "ears": 6.0, "neck": 3.0, "shoulders": 1.0,
    "mouth_cavity": 5.0, "gums": 7.0, "teeth_upper": 15.0, "teeth_lower": 15.0, "tongue": 7.0,
    "eye_socket": 10.0, "eye_left": 40.0, "eye_right": 40.0, "lashes": 0.0,
}  # fmt: skip
_NEAR = ((LIPS, 0.009, 38.0), (EYE_LEFT + EYE_RIGHT, 0.009, 45.0), (BROWS, 0.008, 25.0))
# A photograph of closed lips would colour what lies behind them wrongly.
_INSIDE_COLOR = {
    "mouth_cavity": (0.15, 0.06, 0.06), "gums": (0.45, 0.2, 0.2), "tongue": (0.5, 0.25, 0.25),
    "teeth_upper": (0.75, 0.7, 0.65), "teeth_lower": (0.7, 0.65, 0.6),
}  # fmt: skip
_OUTSIDE = ("face", "lips", "scalp", "ears", "neck", "shoulders")
_NEVER_HAIR = ("background", "neck", "clothes")  # labels of pixels
_FILLED_FROM = 12  # neighbours of a point that no frame has seen
_TWIN, _LIT_BY = 0.004, 60  # metres between mirrored points; pairs that tell how the light falls
_TORSO_ABOVE = 0.9  # triangles that move with the shoulders are left to the torso's own Gaussians
_HAIR_PIXELS = 1.5  # beside the mesh, for one Gaussian
_HAIR_SPREAD = 0.004  # metres, of hair in depth
# Spacings below the surface, where the person ends, of Gaussians that stick out of it by about as
# much: those of hair, and what no frame shows on the mesh and so cannot learn its place.
_SHELL_DEPTH, _UNSEEN_DEPTH = 0.8, 0.36
_SHELL_SPREAD = 0.002  # metres
_SHOWN_DENSITY = 4  # of hair that the clip shows, over that of other hair
_SHELL_OPACITY = 3.0  # what no frame shows keeps it, and must not be glass
_CHEST_FRONT, _SHOULDER_BACK = 0.05, 0.06  # metres in front of / behind the ears


@dataclass
class Cloud:
    """n Gaussians under construction; fields as in `SplatState`.

    Attributes:
        spacing: (n,) metres to the neighbours, from which the scales follow.
        shown: what the clip shows of them, for those on the mesh.
        guessed: (n,) bool, hair and scalp that no frame shows, of other hair's colour; None where
            there are none.
        flat: lie flat on their triangle, rather than being round.
    """

    face: np.ndarray
    bary: np.ndarray
    position: np.ndarray
    spacing: np.ndarray
    color: np.ndarray
    opacity: np.ndarray
    part: np.ndarray
    flat: bool
    shown: Shown | None = None
    guessed: np.ndarray | None = None


def bound_cloud(head: ShapedHead, views: Views, budget: int, rng: np.random.Generator) -> Cloud:
    """About `budget` Gaussians on the triangles of face, eyes, mouth and neck."""
    model = head.model
    normal, _ = _normals(head)
    expected = _triangle_density(head) * np.linalg.norm(normal, axis=1) / 2 * 1e4
    scale = budget / max(expected.sum(), 1e-9)
    count = np.floor(expected * scale + rng.random(len(expected))).astype(int)
    face = np.repeat(np.arange(len(count)), count)
    bary = rng.dirichlet(np.ones(3), len(face))  # uniform over a triangle

    shown = views.look(face, bary)
    color, seen = shown.color, shown.seen
    part = model.part[model.faces[face, 0]]
    outside = np.isin(part, [PARTS.index(name) for name in _OUTSIDE])
    points = (head.vertices[model.faces[face]] * bary[:, :, None]).sum(1)
    scalp = part == PARTS.index("scalp")
    for wanted, source in (
        (~seen & scalp, seen & outside & shown.hairy),
        (~seen & ~scalp, seen & outside),
    ):
        source = source if source.sum() >= _FILLED_FROM else seen & outside
        color[wanted] = _colors_nearby(points[wanted], points[source], color[source])
    splat_part = np.full(len(face), SplatState.PARTS.index("skin"), np.uint8)
    for name, inside_color in _INSIDE_COLOR.items():
        color[part == PARTS.index(name)] = inside_color
        splat_part[part == PARTS.index(name)] = SplatState.PARTS.index("mouth")
    for name in ("eye_left", "eye_right"):
        splat_part[part == PARTS.index(name)] = SplatState.PARTS.index("eyes")
    spacing = 0.01 / np.sqrt(_triangle_density(head)[face] * scale)
    position = np.zeros((len(face), 3))
    position[:, 2] = np.where(~seen & outside, -_UNSEEN_DEPTH * spacing, 0)
    return Cloud(
        face=face,
        bary=bary,
        position=position,
        spacing=spacing,
        color=color,
        opacity=np.where(splat_part == 0, 2.0, 1.0),
        part=splat_part,
        flat=True,
        shown=shown,
        guessed=~seen & scalp,
    )


def hair_cloud(head: ShapedHead, views: Views, budget: int, rng: np.random.Generator) -> Cloud:
    """Matte pixels above the chin that the mesh leaves free, plus a shell over the scalp."""
    points, colors = [], []
    chosen = range(0, len(views.indices), 3)
    for view in chosen:
        index = views.indices[view]
        free = (views.mattes[view] > 200) & (views.face[view] < 0)
        rows, columns = np.nonzero(free & _may_be_hair(views, view))
        above = np.flatnonzero(rows < views.chin_row(view) - 0.05 * views.camera.height)
        most = int(min(budget / 2, len(above) / _HAIR_PIXELS) / len(chosen))
        picked = rng.permutation(above)[:most]
        rows, columns = rows[picked], columns[picked]
        T = views.tracking.T_camera_head[index]
        depth = _rim_depth(head, views, view)[rows, columns]
        depth += rng.normal(0, _HAIR_SPREAD, len(picked))
        points.append((views.rays(rows, columns) * depth[:, None] - T[:3, 3]) @ T[:3, :3])
        inner = views.inner_pixels(view)[:, rows, columns]
        colors.append(views.images[view][*inner])
    outer, outer_color = np.concatenate(points), np.concatenate(colors)
    amount = budget - len(outer)
    shell, shell_color, shell_spacing, guessed = _scalp_shell(head, views, amount, rng)
    xyz = np.concatenate([outer, shell])
    face, bary, position = _bind(head, xyz)
    return Cloud(
        face=face,
        bary=bary,
        position=position,
        spacing=np.r_[np.full(len(outer), 0.18 / np.sqrt(max(budget, 1))), shell_spacing],
        color=np.concatenate([outer_color, shell_color]),
        opacity=np.r_[np.zeros(len(outer)), np.full(len(shell), _SHELL_OPACITY)],
        part=np.full(len(face), SplatState.PARTS.index("hair"), np.uint8),
        flat=False,
        guessed=np.r_[np.zeros(len(outer), bool), guessed],
    )


def _rim_depth(head: ShapedHead, views: Views, view: int) -> np.ndarray:
    """(H, W) depth of the skull where it shows, and around it that of its nearest rim.

    Hair beside the skull grows from about there; on a plane through the ears it would stand off as
    a ragged fringe as soon as the head turns.
    """
    rigid = head.model.torso_weight[head.model.faces].max(1) < 0.01
    face = views.face[view]
    skull = (face >= 0) & rigid[face]
    if not skull.any():
        return np.full(face.shape, views.tracking.T_camera_head[views.indices[view], 2, 3])
    rows, columns = distance_transform_edt(~skull, return_distances=False, return_indices=True)
    return views.depth[view][rows, columns]


def _may_be_hair(views: Views, view: int) -> np.ndarray:
    """(H, W) bool: hair, or what else grows or sits beside the upper head, such as ears."""
    labels = views.parsing[view]
    other = ~np.isin(labels, [PARSING_LABELS.index(name) for name in _NEVER_HAIR])
    other[np.arange(len(labels)) > views.nose_row(view)] = False
    return other | (labels == PARSING_LABELS.index("hair"))


def torso_cloud(views: Views, budget: int, rng: np.random.Generator) -> Cloud:
    """Matte pixels below the chin that head and neck leave free, on a gently curved chest."""
    points, colors, areas = [], [], []
    chosen = range(0, len(views.indices), 3)
    for view in chosen:
        torso = views.tracking.T_camera_torso[views.indices[view]]
        free = views.triangle_torso_weight(view) > _TORSO_ABOVE
        rows, columns = np.nonzero((views.mattes[view] > 100) & free)
        below = np.flatnonzero(rows >= views.chin_row(view) - 0.05 * views.camera.height)
        areas.append(len(below))
        picked = rng.permutation(below)[: budget // len(chosen)]
        rays = views.rays(rows[picked], columns[picked])
        sideways = rays[:, 0] * torso[2, 3] - torso[0, 3]
        curve = np.minimum((sideways / 0.2) ** 2, 1)
        depth = torso[2, 3] - _CHEST_FRONT + (_CHEST_FRONT + _SHOULDER_BACK) * curve
        depth += rng.normal(0, 0.004, len(picked))
        points.append((rays * depth[:, None] - torso[:3, 3]) @ torso[:3, :3])
        colors.append(views.images[view][rows[picked], columns[picked]])
    xyz = np.concatenate(points)
    pixels_apart = np.sqrt(np.mean(areas) / max(len(xyz), 1))
    spacing = pixels_apart * views.tracking.T_camera_rest[2, 3] / views.camera.K[0, 0]
    return Cloud(
        face=np.full(len(xyz), -1),
        bary=np.zeros((len(xyz), 3)),
        position=xyz,
        spacing=np.full(len(xyz), max(spacing, 2e-4)),
        color=np.concatenate(colors),
        opacity=np.full(len(xyz), 1.5),
        part=np.full(len(xyz), SplatState.PARTS.index("torso"), np.uint8),
        flat=False,
    )


def _triangle_density(head: ShapedHead) -> np.ndarray:
    """Wanted Gaussians per square centimetre (F,), before scaling to the budget."""
    model = head.model
    part = model.part[model.faces[:, 0]]
    density = np.array([_DENSITY[name] for name in PARTS])[part]
    center = head.vertices[model.faces].mean(1)
    points = model.landmarks_of(head.vertices)
    on_face = np.isin(part, [PARTS.index("face"), PARTS.index("lips")])
    for landmarks, reach, value in _NEAR:
        distance, _ = cKDTree(points[list(landmarks)]).query(center)
        near = on_face & (distance < reach)
        density[near] = np.maximum(density[near], value)
    for side, name in enumerate(("eye_left", "eye_right")):
        eyeball = part == PARTS.index(name)
        density[eyeball & (center[:, 2] < head.eye_centers[side, 2] + 0.006)] = 0
    density[model.torso_weight[model.faces].mean(1) > _TORSO_ABOVE] = 0
    return density


def _normals(head: ShapedHead) -> tuple[np.ndarray, np.ndarray]:
    """Area-weighted normals (F, 3), twice the area long, and triangle centres (F, 3)."""
    corners = head.vertices[head.model.faces]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), corners.mean(1)


def _scalp_shell(
    head: ShapedHead, views: Views, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points in the outermost hair, their colours, (count, 3) each, and their spacing (count,).

    They are denser where the clip shows the hair. The last array tells where it does not.
    """
    model = head.model
    normal, center = _normals(head)
    length = np.linalg.norm(normal, axis=1)
    forehead = model.landmarks_of(head.vertices)[10, 1]
    scalp = (model.part[model.faces[:, 0]] == PARTS.index("scalp")) & (length > 0)
    scalp = np.flatnonzero(scalp & (center[:, 1] > forehead - 0.06))
    if not len(scalp) or count <= 0:
        return np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool)
    shown = views.look(scalp, np.full((len(scalp), 3), 1 / 3))
    share = length[scalp] * np.where(shown.seen, _SHOWN_DENSITY, 1)
    share /= share.sum()
    color, source = shown.color, shown.seen & shown.hairy
    source = source if source.sum() >= _FILLED_FROM else shown.seen
    center = center[scalp]
    color[~shown.seen] = _colors_nearby(center[~shown.seen], center[source], color[source])
    chosen = rng.choice(len(scalp), count, p=share)
    face = scalp[chosen]
    bary = rng.dirichlet(np.ones(3), count)
    spacing = np.sqrt(length[face] / 2 / (count * share[chosen]))
    lift = rng.normal(-_SHELL_DEPTH * spacing, _SHELL_SPREAD)[:, None]
    points = (head.vertices[model.faces[face]] * bary[:, :, None]).sum(1)
    points += normal[face] / length[face, None] * lift
    return points, color[chosen], spacing, ~shown.seen[chosen]


def _colors_nearby(points: np.ndarray, seen: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Colours (n, 3) for points no frame has seen: those of what is nearest, here or mirrored.

    What is mirrored is darkened or lit as its side is, going by points that show on both.

    Args:
        points: (n, 3) head frame; seen: (m, 3) points whose colours (m, 3) are known.
    """
    if not len(seen):
        return np.full((len(points), 3), 0.4)
    own = cKDTree(seen)
    sources = np.concatenate([seen, seen * [-1, 1, 1]])
    colors = np.concatenate([color, color])
    apart, twin = own.query(sources[len(seen) :])
    paired = np.flatnonzero(apart < _TWIN)
    if len(paired) >= _LIT_BY:
        light = color[twin[paired]] - color[paired]
        _, lit = cKDTree(sources[len(seen) :][paired]).query(sources[len(seen) :], _LIT_BY)
        colors[len(seen) :] += np.median(light[lit], axis=1)
    count = min(_FILLED_FROM, len(sources))
    _, nearest = cKDTree(sources).query(points, count)
    nearest = np.asarray(nearest).reshape(len(points), count)
    return np.median(colors[nearest], axis=1).clip(0, 1)


def _bind(head: ShapedHead, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest rigid head triangle of each point, its centre, and the point in its frame."""
    model = head.model
    rigid = model.torso_weight[model.faces].max(1) < 0.01
    scalp = np.isin(model.part[model.faces[:, 0]], [PARTS.index(p) for p in ("scalp", "ears")])
    carriers = np.flatnonzero(rigid & scalp)
    if not len(carriers):
        carriers = np.flatnonzero(rigid)
    normal, center = _normals(head)
    _, nearest = cKDTree(center[carriers]).query(xyz)
    face = carriers[nearest]
    corners = head.vertices[model.faces[face]]
    u = corners[:, 1] - corners[:, 0]
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    n = normal[face] / np.linalg.norm(normal[face], axis=1, keepdims=True)
    frame = np.stack([u, np.cross(n, u), n], -1)
    position = np.einsum("nij,ni->nj", frame, xyz - center[face])
    return face, np.full((len(xyz), 3), 1 / 3), position
