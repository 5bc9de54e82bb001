"""A NeRF avatar before training: where its field is, and what moves it."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from avatar3d.avatar.build import driving_signal
from avatar3d.avatar.canonical import canonical_cloud
from avatar3d.avatar.deform import SplatRig
from avatar3d.avatar.nerf.audio import learn_to_hear
from avatar3d.avatar.nerf.groups import group_rows, initial_gates
from avatar3d.avatar.nerf.state import GROUPS, NerfState, attention_layout, lattice_shape
from avatar3d.avatar.nerf.warp import lattice_nodes
from avatar3d.avatar.state import SplatState
from avatar3d.kernels import HashGrid, Occupancy
from avatar3d.subject import Tracking

__all__ = ["FieldSize", "initial_field", "shell"]

_MARGIN = np.array([0.03, 0.04, 0.1])  # metres around what was seen
"""Rays are followed in the head frame, in which the shoulders come forward by 70 mm when the head
nods by 20 degrees."""
_FACE_MARGIN = 0.012
_SOLID = 0.1  # opacity of the splats that count
_NEAR = 0.010  # metres around them where there may be something
_SKIN_SOFTNESS = 0.015  # metres over which neck turns into torso
_AIR = 0.01, 0.02  # metres from the head over which air becomes the torso's
_AIR_FADES = 0.06, 0.09  # metres from the torso over which it no longer does
_LIMIT = 3.0
_APPEARS = 2.0  # logit: brightness varies everywhere


@dataclass(frozen=True)
class FieldSize:
    """How fine a field is; see `NerfState` for the fields."""

    grid: HashGrid
    hidden: int
    code: int
    attention: int
    cells: int
    step: float
    spacing: tuple[float, float]


def initial_field(
    splats: SplatState,
    tracking: Tracking,
    frames: np.ndarray,
    features: dict[str, np.ndarray],
    size: FieldSize,
    rng: np.random.Generator,
) -> NerfState:
    """A state ready for training.

    Args:
        splats: a quick avatar of the same person: its head, and where there is something.
        tracking: refined with it; frames: indices of those that may be learnt from.
        features: of the clip's sound.
        size: how fine the field is to be.
        rng: source of randomness.
    """
    cloud = canonical_cloud(splats)
    solid = 1 / (1 + np.exp(-splats.opacity)) > _SOLID
    means = cloud.means[solid]
    box = np.stack([means.min(0) - _MARGIN, means.max(0) + _MARGIN]).astype(np.float32)
    fine = _face_box(splats, box)
    spacing = np.array(size.spacing, np.float32)
    nodes = lattice_nodes(box, lattice_shape(box, size.spacing[0]))
    torso = SplatRig(splats).binding.torso_weight.numpy()[solid]
    signal = driving_signal(tracking, frames, size.code)
    attention = attention_layout(size.attention)
    state = NerfState(
        **{
            name: getattr(splats, name)
            for name in (
                "vertices", "expression", "faces", "torso_weight", "eye", "eye_centers",
                "T_camera_rest", "K_matrix", "size", "torso_map", "torso_limit",
            )
        },
        face_part=_face_parts(splats),
        **{name: signal[name] for name in ("mean", "signal_min", "signal_max")},
        **_network(size, rng),
        **learn_to_hear(features, tracking.weights, frames, size.code, rng),
        box=box,
        fine_box=fine,
        spacing=spacing,
        skin=_skin(means, torso, nodes),
        layout=np.array(_numbers(size.grid), np.int32),
        table=size.grid.initial_table(torch.Generator().manual_seed(int(rng.integers(1 << 31))))
        .numpy()
        .copy(),
        attention=np.zeros((attention.entries, len(GROUPS)), np.float32),
        code_map=_code_maps(tracking, frames, size.code),
        code_bias=np.zeros((len(GROUPS) - 1, size.code), np.float32),
        limit=np.array(_LIMIT, np.float32),
        appearance=np.zeros(size.code, np.float32),
        occupancy=shell(means, box, size.cells).bits.numpy(),
        ray_step=np.array(size.step, np.float32),
    )  # fmt: skip
    cube = np.stack([box[0], box[0] + (box[1] - box[0]).max()])
    places = _attention_nodes(cube, size.attention)
    state.attention[: len(places), :-1] = initial_gates(state, places)
    state.attention[:, -1] = _APPEARS
    state.validate()
    return state


def shell(points: np.ndarray, box: np.ndarray, cells: int) -> Occupancy:
    """Occupied where a point is near: what an avatar of splats knows of the volume."""
    occupancy = Occupancy.full(torch.tensor(box, dtype=torch.float32), cells)
    centers = occupancy.points(torch.arange(cells**3)).numpy()
    distance, _ = cKDTree(points).query(centers, distance_upper_bound=_NEAR)
    occupancy.update(torch.from_numpy(np.isfinite(distance).astype(np.float32)), threshold=0.5)
    return occupancy


def _numbers(grid: HashGrid) -> tuple[int, ...]:
    return grid.levels, grid.features, grid.log2_size, grid.base, grid.finest


def _face_box(splats: SplatState, box: np.ndarray) -> np.ndarray:
    """Around what an expression moves by more than a millimetre, and the eyes."""
    moved = np.linalg.norm(splats.expression, axis=2).max(0) > 1e-3
    points = splats.vertices[moved | (splats.eye > 0)]
    if not len(points):
        points = splats.vertices
    low, high = points.min(0) - _FACE_MARGIN, points.max(0) + _FACE_MARGIN
    return np.stack([np.maximum(low, box[0]), np.minimum(high, box[1])]).astype(np.float32)


def _face_parts(splats: SplatState) -> np.ndarray:
    """(F,) part of the Gaussians on each triangle; the skin's where it also carries hair."""
    parts = np.full(len(splats.faces), len(SplatState.PARTS), np.uint8)
    bound = splats.face >= 0
    np.minimum.at(parts, splats.face[bound], splats.part[bound])
    return parts


def _skin(points: np.ndarray, weight: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """(nodes,) weight of the torso's motion, of that of the splats around each node.

    Air beside the torso goes with the torso as soon as the head is a node away. Were it the head's
    where the chin is nearer, a nod would take the chest to where air stays, and the search for what
    is there (`WarpGrid.inverse`), which begins there, would find the air: a hole in the shirt.
    """
    skin = _smoothed(points, weight, nodes)
    torso = weight >= 0.9
    if torso.all() or not torso.any():
        return skin
    to_head, _ = cKDTree(points[~torso]).query(nodes)
    to_torso, _ = cKDTree(points[torso]).query(nodes)
    air = np.clip((to_head - _AIR[0]) / (_AIR[1] - _AIR[0]), 0, 1)
    air *= np.clip((_AIR_FADES[1] - to_torso) / (_AIR_FADES[1] - _AIR_FADES[0]), 0, 1)
    return (skin + (1 - skin) * air).astype(np.float32)


def _smoothed(points: np.ndarray, weight: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """(nodes,) skinning weight of the splats around each node."""
    distance, index = cKDTree(points).query(nodes, min(64, len(points)))
    near = np.exp((distance[:, :1] ** 2 - distance**2) / (2 * _SKIN_SOFTNESS**2))
    return ((near * weight[index]).sum(1) / near.sum(1)).astype(np.float32)


def _network(size: FieldSize, rng: np.random.Generator) -> dict[str, np.ndarray]:
    inputs, hidden = size.grid.outputs, size.hidden

    def layer(rows: int, columns: int, gain: float = 2.0) -> np.ndarray:
        bound = (3 * gain / columns) ** 0.5
        return rng.uniform(-bound, bound, (rows, columns)).astype(np.float32)

    return {
        "layer_0": layer(hidden, inputs),
        "layer_1": layer(hidden, hidden),
        "layer_2": layer(4, hidden, 0.3),
        "bias_0": np.zeros(hidden, np.float32),
        "bias_1": np.zeros(hidden, np.float32),
        "bias_2": np.zeros(4, np.float32),
        "inject": rng.normal(0, 0.1, (len(GROUPS), hidden, size.code)).astype(np.float32),
    }


def _code_maps(tracking: Tracking, frames: np.ndarray, code: int) -> np.ndarray:
    """(3, C, E + 4): of each group's signals the principal directions, as in `driving_signal`."""
    signal = np.concatenate([tracking.weights, tracking.gaze.reshape(len(tracking), 4)], 1)[frames]
    maps = np.zeros((len(GROUPS) - 1, code, signal.shape[1]), np.float32)
    for map_, rows in zip(maps, group_rows(tracking.weights.shape[1]), strict=True):
        own = signal[:, rows] - signal[:, rows].mean(0)
        _, spread, directions = np.linalg.svd(own, full_matrices=False)
        count = min(code, len(directions))
        largest = max(spread[0] / np.sqrt(len(frames)), 1e-3)
        map_[:count, rows] = directions[:count] / largest
    return maps


def _attention_nodes(cube: np.ndarray, side: int) -> np.ndarray:
    """(side^3, 3) metres: nodes of a dense grid, which lie at (i - 1/2) / (side - 1)."""
    shift = (cube[1] - cube[0]) * 0.5 / (side - 1)
    return lattice_nodes(cube - shift, (side, side, side))
