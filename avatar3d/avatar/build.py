"""A splat avatar before training: sampled, coloured from a few frames, and bound to the head."""

from dataclasses import replace

import numpy as np

from avatar3d.avatar.clouds import Cloud, bound_cloud, hair_cloud, torso_cloud
from avatar3d.avatar.gamut import Gamut, freedom, learnable_colors
from avatar3d.avatar.outline import conformed
from avatar3d.avatar.state import SplatState
from avatar3d.avatar.torso import torso_statistics
from avatar3d.avatar.views import Views
from avatar3d.head.model import PARTS, HeadModel, ShapedHead
from avatar3d.subject import Subject, Tracking

__all__ = ["BASIS_LIMIT", "behind_lids", "driving_signal", "initial_state", "signal_map"]

_BOUND_SHARE, _HAIR_SHARE = 0.72, 0.14
BASIS_LIMIT = 3.0
_EYES_BACK = 0.0035  # metres
_STRETCH = 1.0  # what is seen edge-on starts longer by this much of its size
_EXPRESSION_GAIN, _GAZE_GAIN = 3.0, 2.0  # relative weight of the signals in the basis


def initial_state(
    subject: Subject,
    tracking: Tracking,
    model: HeadModel,
    frames: np.ndarray,
    budget: int,
    basis_size: int,
    rng: np.random.Generator,
) -> tuple[SplatState, Gamut]:
    """A state ready for training, and the colours that its Gaussians may learn.

    Args:
        subject: source of images and mattes.
        tracking: geometry to bind to.
        model: the head model of the tracking.
        frames: indices of the frames that may be looked at (never the test frames).
        budget: number of Gaussians, met within a few per cent.
        basis_size: K, number of attribute blendshapes.
        rng: source of randomness.
    """
    head = behind_lids(model.shaped(tracking.identity, tracking.landmark_offsets))
    views = Views(subject, tracking, head, frames)
    head = conformed(head, views)
    views = views.of(head)
    hair_budget = round(budget * _HAIR_SHARE)
    bound_budget = round(budget * _BOUND_SHARE)
    clouds = [
        bound_cloud(head, views, bound_budget, rng),
        hair_cloud(head, views, hair_budget, rng),
        torso_cloud(views, budget - bound_budget - hair_budget, rng),
    ]
    attributes = _stack(clouds, rng)
    shown = clouds[0].shown
    assert shown is not None
    carrier = head.model.part[head.model.faces[attributes["face"][: len(shown.facing)], 0]]
    bare = (attributes["part"][: len(shown.facing)] == 0) & (carrier != PARTS.index("scalp"))
    wide = np.where(bare, 1 - freedom(shown.facing), 0)
    _stretch(attributes, wide, head, tracking)
    mesh = _used_mesh(head, attributes.pop("face"))
    torso_map, torso_limit = torso_statistics(tracking, frames, subject.fps)
    with_basis = len(clouds[0].face)
    state = SplatState(
        **mesh,
        **attributes,
        basis=np.zeros((with_basis, 10, basis_size), np.float32),
        **driving_signal(tracking, frames, basis_size),
        bias=np.zeros(basis_size, np.float32),
        limit=np.array(BASIS_LIMIT, np.float32),
        T_camera_rest=tracking.T_camera_rest,
        K_matrix=tracking.K,
        size=tracking.size,
        torso_map=torso_map,
        torso_limit=torso_limit,
    )
    state.validate()
    guessed = [np.zeros(len(c.face), bool) if c.guessed is None else c.guessed for c in clouds]
    return state, learnable_colors(state, shown, np.flatnonzero(np.concatenate(guessed)))


def behind_lids(head: ShapedHead) -> ShapedHead:
    """The head with its eyeballs moved back, or they would shine through lids that close.

    The model's lids have no thickness and pass a millimetre inside the eyeballs, and Gaussians
    stick out of both.
    """
    back = np.array([0, 0, -_EYES_BACK])
    eyes = np.isin(head.model.part, [PARTS.index(name) for name in ("eye_left", "eye_right")])
    vertices = head.vertices + np.where(eyes[:, None], back, 0)
    return replace(head, vertices=vertices, eye_centers=head.eye_centers + back)


def _stack(clouds: list[Cloud], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Per-Gaussian arrays of the state; bound ones first."""
    count = sum(len(cloud.face) for cloud in clouds)
    scales = []
    for cloud in clouds:
        # Flat ones lie in the plane of their triangle; the others start nearly round.
        shape = (0.6, 0.6, 0.18) if cloud.flat else (0.6, 0.6, 0.4)
        scales.append(np.log(cloud.spacing[:, None] * np.array(shape)))
    log_scale = np.concatenate(scales) + rng.normal(0, 0.1, (count, 3))
    turn = rng.normal(0, 0.5, count)
    quat = np.stack([np.cos(turn), 0 * turn, 0 * turn, np.sin(turn)], 1)

    def joined(field: str) -> np.ndarray:
        return np.concatenate([getattr(cloud, field) for cloud in clouds])

    return {
        "face": joined("face").astype(np.int32),
        "bary": joined("bary").astype(np.float32),
        "part": joined("part"),
        "position": joined("position").astype(np.float32),
        "quat": quat.astype(np.float32),
        "log_scale": log_scale.astype(np.float32),
        "opacity": joined("opacity").astype(np.float32),
        "color": joined("color").astype(np.float32),
    }


def _stretch(
    attributes: dict[str, np.ndarray], share: np.ndarray, head: ShapedHead, tracking: Tracking
) -> None:
    """Stretch what the clip shows edge-on along the line of sight, where it does not show.

    Foreshortened gaps between Gaussians need no filling in training, and open into cracks once the
    head turns.

    Args:
        share: of the full stretch, for the first Gaussians.
    """
    eye = np.linalg.inv(tracking.T_camera_rest)[:3, 3]
    wide = np.flatnonzero(share)
    corners = head.vertices[head.model.faces[attributes["face"][wide]]]
    first = corners[:, 1] - corners[:, 0]
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    normal = np.cross(first, corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    sight = eye - corners.mean(1)
    along = ((sight * first).sum(1), (sight * np.cross(normal, first)).sum(1))
    half = np.arctan2(along[1], along[0]) / 2
    attributes["quat"][wide] = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], 1)
    attributes["log_scale"][wide, 0] += np.log1p(_STRETCH * share[wide])


def _used_mesh(head: ShapedHead, face: np.ndarray) -> dict[str, np.ndarray]:
    """The triangles that carry Gaussians, their vertices, and `face` renumbered to them."""
    model = head.model
    used_faces, renumbered = np.unique(face[face >= 0], return_inverse=True)
    used_vertices, corners = np.unique(model.faces[used_faces], return_inverse=True)
    new_face = np.full(len(face), -1, np.int32)
    new_face[face >= 0] = renumbered
    eye = np.zeros(len(used_vertices), np.uint8)
    for side, name in enumerate(("eye_left", "eye_right"), 1):
        eye[model.part[used_vertices] == PARTS.index(name)] = side
    return {
        "vertices": head.vertices[used_vertices].astype(np.float32),
        "expression": head.expression[:, used_vertices].astype(np.float32),
        "faces": corners.reshape(-1, 3).astype(np.int32),
        "torso_weight": model.torso_weight[used_vertices].astype(np.float32),
        "eye": eye,
        "eye_centers": head.eye_centers.astype(np.float32),
        "face": new_face,
    }


def driving_signal(
    tracking: Tracking, frames: np.ndarray, basis_size: int
) -> dict[str, np.ndarray]:
    """`map`, `mean`, `signal_min` and `signal_max` of the state, from the frames' parameters.

    The map takes the principal directions of the signal over the clip, not whitened: whitening
    would give noise directions the same say as the jaw.
    """
    signal = np.concatenate([tracking.weights, tracking.gaze.reshape(len(tracking), 4)], 1)[frames]
    values = {
        "map": signal_map(signal, tracking.weights.shape[1], basis_size),
        "mean": signal.mean(0),
        "signal_min": signal.min(0),
        "signal_max": signal.max(0),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def signal_map(signal: np.ndarray, expressions: int, basis_size: int) -> np.ndarray:
    """(K, E + 4) `map` of a state, from signals (n, E + 4) of some frames."""
    gain = np.r_[np.full(expressions, _EXPRESSION_GAIN), np.full(4, _GAZE_GAIN)]
    centred = (signal - signal.mean(0)) * gain
    _, spread, directions = np.linalg.svd(centred, full_matrices=False)
    rows = np.zeros((basis_size, len(gain)))
    count = min(basis_size, len(directions))
    largest = max(spread[0] / np.sqrt(len(signal)), 1e-6)
    rows[:count] = directions[:count] / largest
    return (rows * gain).astype(np.float32)
