"""Eyeballs and teeth, made here: spheres about the eye joints and two dental arches."""

from dataclasses import dataclass

import numpy as np

__all__ = ["IRIS_VERTICES", "Patch", "dental_arch", "eyeball"]

_RINGS = np.deg2rad([7.5, 14, 21, 28, 38, 50, 64, 79, 95, 115, 140, 162])
_SECTORS = 24
_IRIS_RING = 2  # 21 degrees: an iris of 5.9 mm radius on the mean eyeball of 16.4 mm
IRIS_VERTICES: tuple[int, ...] = (0, *(1 + _IRIS_RING * _SECTORS + k * 6 for k in range(4)))
"""Vertices of `eyeball` at the middle of the pupil and at the iris' edge: +x, +y, -x, -y."""

# Widths of the permanent teeth from the middle outwards, metres (Wheeler's Dental Anatomy,
# rounded); the lower front teeth are narrower.
_UPPER_WIDTHS = np.array([8.5, 6.5, 7.5, 7.0, 7.0, 10.0, 9.0]) * 1e-3
_LOWER_WIDTHS = np.array([5.3, 5.7, 7.0, 7.0, 7.0, 10.5, 10.0]) * 1e-3
_COLUMNS_PER_TOOTH = 4


@dataclass(frozen=True)
class Patch:
    """A small mesh: vertices (N, 3), triangles (F, 3) seen from outside, uv (N, 2) in [0, 1]."""

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray


def eyeball() -> Patch:
    """A unit sphere around the origin whose rings of vertices are centred on the view axis +z.

    Vertex 0 is the middle of the pupil; ring k has 24 vertices from 1 + 24 k on, counted from +x
    towards +y. The third ring is the edge of the iris.
    """
    around = np.arange(_SECTORS) * 2 * np.pi / _SECTORS
    angle = np.repeat(_RINGS, _SECTORS)
    turn = np.tile(around, len(_RINGS))
    rings = np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)], 1)
    vertices = np.concatenate([[[0, 0, 1.0]], rings, [[0, 0, -1.0]]])
    polar = np.concatenate([[0], angle, [np.pi]])[:, None] / (2 * np.pi)
    uv = 0.5 + polar * np.concatenate(
        [[[0, 0]], np.stack([np.cos(turn), np.sin(turn)], 1), [[0, 0]]]
    )
    here, there = np.arange(_SECTORS), (np.arange(_SECTORS) + 1) % _SECTORS
    faces = [np.stack([np.zeros(_SECTORS, int), 1 + here, 1 + there], 1)]
    for ring in range(len(_RINGS) - 1):
        inner, outer = 1 + ring * _SECTORS, 1 + (ring + 1) * _SECTORS
        faces.append(np.stack([inner + here, outer + here, outer + there], 1))
        faces.append(np.stack([inner + here, outer + there, inner + there], 1))
    last, back = 1 + (len(_RINGS) - 1) * _SECTORS, len(vertices) - 1
    faces.append(np.stack([last + here, np.full(_SECTORS, back), last + there], 1))
    return Patch(vertices, np.concatenate(faces).astype(np.int32), uv)


def dental_arch(arch: np.ndarray, upper: bool) -> tuple[Patch, np.ndarray]:
    """A row of 14 teeth with the gum above (or below) them.

    Args:
        arch: (M, 2) points (x, z) in metres of the outer tooth surfaces from the middle (x = 0)
            towards the person's left.
        upper: gum above and cutting edges at y = 0, or gum below.

    Returns:
        The patch, and (N,) whether a vertex belongs to the gum.
    """
    widths = _UPPER_WIDTHS if upper else _LOWER_WIDTHS
    height = 0.0100 if upper else 0.0088
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(arch, axis=0), axis=1))])
    position, phase, tooth = _columns(widths * min(1, along[-1] / widths.sum()))
    x = np.interp(position, along, arch[:, 0])
    z = np.interp(position, along, arch[:, 1])
    x, z = np.concatenate([-x[:0:-1], x]), np.concatenate([z[:0:-1], z])
    phase = np.concatenate([phase[:0:-1], phase])
    tooth = np.concatenate([tooth[:0:-1], tooth])
    tangent = np.stack([np.gradient(x), np.gradient(z)], 1)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    outward = np.stack([-tangent[:, 1], tangent[:, 0]], 1)

    bulge = np.sin(np.pi * phase) ** 0.5  # 0 between teeth, 1 in their middle
    thick = np.where(tooth < 3, 0.005, 0.008)  # incisors and canines are thin
    rows = [  # height above the cutting edge, distance outwards, gum
        (height + 0.0045, -0.0035 + 0 * bulge, True),
        (height + 0.002, -0.0008 + 0 * bulge, True),
        (height - 0.0012 + 0.0014 * bulge, 0.0004 + 0.0005 * bulge, True),
        (height - 0.0016 + 0.0014 * bulge, -0.0004 + 0.0008 * bulge, False),
        (0.55 * height + 0 * bulge, -0.0005 + 0.0010 * bulge, False),
        (0.0009 + 0.0006 * (1 - bulge), -0.0006 + 0.0007 * bulge, False),
        (0.0006 * (1 - bulge), -0.0012 + 0.0004 * bulge, False),
        (0.0012 + 0 * bulge, -thick, False),
        (height - 0.001 + 0 * bulge, -thick - 0.001, False),
        (height + 0.006 + 0 * bulge, -thick - 0.003, True),
    ]
    sign = 1 if upper else -1
    columns = len(x)
    vertices = np.concatenate(
        [
            np.stack([x + out * outward[:, 0], sign * (up + 0 * x), z + out * outward[:, 1]], 1)
            for up, out, _ in rows
        ]
    )
    gum = np.repeat([is_gum for _, _, is_gum in rows], columns)
    u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, len(rows)))
    here = (np.arange(len(rows) - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    quads = np.stack([here, here + 1, here + 1 + columns, here + columns], 1)
    # Rows run downwards for the upper arch, upwards for the lower one, which turns the faces.
    order = [[0, 2, 1], [0, 3, 2]] if upper else [[0, 1, 2], [0, 2, 3]]
    faces = np.concatenate([quads[:, order[0]], quads[:, order[1]]]).astype(np.int32)
    return Patch(vertices, faces, np.stack([u.ravel(), v.ravel()], 1)), gum


def _columns(widths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arc length, phase in [0, 1] within the tooth, and tooth number of one side's columns."""
    start = np.concatenate([[0], np.cumsum(widths)[:-1]])
    step = np.arange(_COLUMNS_PER_TOOTH) / _COLUMNS_PER_TOOTH
    position = (start[:, None] + step * widths[:, None]).ravel()
    phase = np.tile(step, len(widths))
    tooth = np.repeat(np.arange(len(widths)), _COLUMNS_PER_TOOTH)
    end = (np.append(values, last) for values, last in ((position, widths.sum()), (phase, 1.0)))
    position, phase = end
    return position, phase, np.append(tooth, len(widths) - 1)
