"""Where the eyeballs and teeth sit in the mean head, and how they follow the identity."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from avatar3d.head.anny.data import AnnyData
from avatar3d.head.anny.features import Patch, dental_arch, eyeball
from avatar3d.head.anny.rig import Rig

__all__ = ["Eyes", "Teeth", "fit_eyes", "place_teeth"]

_EYE_HELPERS = ("helper-l-eye", "helper-r-eye")
_UPPER_TEETH, _LOWER_TEETH = "helper-upper-teeth", "helper-lower-teeth"

# Metres. MakeHuman's teeth stand 9.5 mm behind the lips and hardly show.
_BEHIND_LIPS = 0.0045  # upper front teeth behind the line where the lips meet
_BELOW_LIPS = 0.0020  # their cutting edges below that line
_OVERBITE, _OVERJET = 0.0015, 0.0030  # the lower front teeth end behind the upper ones
_EYES_LOWER = 0.0020
"""MakeHuman's pupils rest 2 mm above the middle between the lids, where no camera sees them."""


@dataclass(frozen=True)
class Eyes:
    """Left and right eyeball: N vertices each, I identity modes; metres in the head frame."""

    patch: Patch
    vertices: tuple[np.ndarray, np.ndarray]
    modes: tuple[np.ndarray, np.ndarray]
    centers: np.ndarray
    centers_identity: np.ndarray


@dataclass(frozen=True)
class Teeth:
    """Upper and lower arch: vertices (N, 3), modes (I, N, 3), which vertices are gum (N,)."""

    upper_patch: Patch
    lower_patch: Patch
    upper: np.ndarray
    lower: np.ndarray
    upper_modes: np.ndarray
    lower_modes: np.ndarray
    upper_gum: np.ndarray
    lower_gum: np.ndarray


def fit_eyes(data: AnnyData, rig: Rig, mean: np.ndarray, basis: np.ndarray) -> Eyes:
    """Spheres about the eye joints; identity moves and scales them, so spheres they remain.

    Args:
        mean: (19158, 3) and basis (I, 19158, 3) of the base mesh, metres.
    """
    patch = eyeball()
    vertices, modes = [], []
    lower = np.array([0, _EYES_LOWER, 0])
    centers = rig.eye_joints @ mean - lower
    centers_identity = np.einsum("ev,ivk->iek", rig.eye_joints, basis)
    for side, name in enumerate(_EYE_HELPERS):
        group = data.base.group(name)
        outward = mean[group] - lower - centers[side]
        radius = np.linalg.norm(outward, axis=1).mean()
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        offset = basis[:, group] - centers_identity[:, side, None]
        growth = (offset * outward).sum(-1).mean(1)
        vertices.append(centers[side] + radius * patch.vertices)
        modes.append(centers_identity[:, side, None] + growth[:, None, None] * patch.vertices)
    return Eyes(patch, (vertices[0], vertices[1]), (modes[0], modes[1]), centers, centers_identity)


def place_teeth(data: AnnyData, mean: np.ndarray, basis: np.ndarray, lip_line: np.ndarray) -> Teeth:
    """Two arches along MakeHuman's rows of teeth, moved to where the closed lips ask for them.

    Args:
        lip_line: (M, 3) where the lips meet, by x.
    """
    middle = lip_line[np.abs(lip_line[:, 0]).argmin()]
    helpers = [data.base.group(name) for name in (_UPPER_TEETH, _LOWER_TEETH)]
    arch = _outer_arch(mean[helpers[0]])
    front = arch[0, 1]
    arch[:, 1] += middle[2] - _BEHIND_LIPS - front
    placed = []
    for upper in (True, False):
        patch, gum = dental_arch(arch - np.array([0, 0 if upper else _OVERJET]), upper)
        edge = middle[1] - _BELOW_LIPS + (0 if upper else _OVERBITE)
        vertices = patch.vertices + np.array([0, edge, 0])
        placed.append((patch, gum, vertices))
    modes = [
        _follow(mean, basis, group, item[2]) for group, item in zip(helpers, placed, strict=True)
    ]
    (upper_patch, upper_gum, upper), (lower_patch, lower_gum, lower) = placed
    return Teeth(
        upper_patch, lower_patch, upper, lower, modes[0], modes[1], upper_gum, lower_gum
    )  # fmt: skip


def _outer_arch(points: np.ndarray) -> np.ndarray:
    """(M, 2) outline (x, z) of a dental arch from its middle to the person's left, smoothed."""
    half = points[points[:, 0] > -1e-6]
    angle = np.arctan2(half[:, 0], half[:, 2] - half[:, 2].min() + 0.02)
    bins = np.linspace(0, angle.max(), 10)
    outline = [
        near[np.hypot(near[:, 0], near[:, 2] - half[:, 2].min() + 0.02).argmax()]
        for low, high in pairwise(bins)
        if len(near := half[(angle >= low) & (angle <= high)])
    ]
    x, z = np.array(outline)[:, [0, 2]].T
    # An even polynomial is symmetric and smooth at the middle.
    powers = np.array([0, 2, 4])
    fit = np.linalg.lstsq(x[:, None] ** powers / x.max() ** powers, z, rcond=None)[0]
    fine = np.linspace(0, x.max() * 1.02, 60)
    return np.stack([fine, fine[:, None] ** powers / x.max() ** powers @ fit], 1)


def _follow(
    mean: np.ndarray, basis: np.ndarray, group: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """(I, N, 3) displacement of `points` under the affine motions of a group of vertices."""
    homogeneous = np.c_[mean[group], np.ones(len(group))]
    weights = np.c_[points, np.ones(len(points))] @ np.linalg.pinv(homogeneous, rcond=1e-3)
    return np.einsum("ng,igk->ink", weights, basis[:, group])
