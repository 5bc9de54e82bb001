"""Which part of the space around a person moves with the torso."""

import numpy as np
import torch

from avatar3d.avatar.nerf.build import _skin
from avatar3d.avatar.nerf.warp import lattice_nodes
from avatar3d.kernels import WarpGrid
from avatar3d.kernels.radiance_reference import displace

BOX = np.array([[-0.1, -0.25, -0.1], [0.1, 0.1, 0.2]], np.float32)
SHAPE = (26, 30, 18)
PIVOT = np.array([0, -0.06, -0.015], np.float32)


def plate(y: tuple[float, float], z: tuple[float, float]) -> np.ndarray:
    """Points of a sheet as wide as the box, from one height and depth to another."""
    along = np.linspace(0, 1, 40)[:, None]
    across = np.linspace(-0.09, 0.09, 40)[None]
    points = np.broadcast_arrays(across, y[0] + along * (y[1] - y[0]), z[0] + along * (z[1] - z[0]))
    return np.stack(points, -1).reshape(-1, 3).astype(np.float32)


FACE = plate((0.08, -0.09), (0.1, 0.1))
CHEST = plate((-0.12, -0.22), (0.06, 0.09))


def skin() -> np.ndarray:
    points = np.concatenate([FACE, CHEST])
    weight = np.r_[np.zeros(len(FACE)), np.ones(len(CHEST))]
    return _skin(points, weight, lattice_nodes(BOX, SHAPE))


def nodded(weight: np.ndarray, degrees: float) -> WarpGrid:
    """The warp under which the torso, seen from the head, turns about the top of the neck."""
    angle = np.radians(degrees)
    turn = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    nodes = lattice_nodes(BOX, SHAPE)
    moved = weight[:, None] * ((nodes - PIVOT) @ turn.T + PIVOT - nodes)
    lattice = np.pad(moved, ((0, 0), (0, 1))).reshape(1, *SHAPE, 4)
    return WarpGrid(torch.tensor(BOX), torch.tensor(lattice, dtype=torch.float32))


def lost(degrees: float) -> tuple[float, float]:
    """Shares of face and chest that the inverse does not take back to within 4 mm."""
    warp = nodded(skin(), degrees)
    shares = []
    for part in (FACE, CHEST):
        points = torch.tensor(part)
        frames = torch.zeros(len(points), dtype=torch.int32)
        posed = displace(points, frames, warp.lattices())
        back = displace(posed, frames, warp.inverse.lattices())
        shares.append(float(((back - points).norm(dim=1) > 0.004).float().mean()))
    return shares[0], shares[1]


def test_a_nod_keeps_chest_and_face():
    for degrees in (-20, -10, 10, 20):
        face, chest = lost(degrees)
        assert face < 0.02, degrees
        assert chest < 0.02, degrees


def test_air_is_the_torsos_beside_it_and_nowhere_near_the_head():
    weight = skin().reshape(SHAPE)
    nodes = lattice_nodes(BOX, SHAPE).reshape(*SHAPE, 3)
    to_face = np.linalg.norm(nodes[..., None, :] - FACE[::7], axis=-1).min(-1)
    to_chest = np.linalg.norm(nodes[..., None, :] - CHEST[::7], axis=-1).min(-1)
    assert (weight[(to_face > 0.03) & (to_chest < 0.05)] > 0.99).all()
    assert (weight[to_face < 0.008] < 0.05).all()
    assert (weight[(to_chest > 0.1) & (to_face + 0.03 < to_chest)] < 0.05).all()


def test_a_person_without_torso_has_one_weight():
    assert not _skin(FACE, np.zeros(len(FACE)), CHEST).any()
