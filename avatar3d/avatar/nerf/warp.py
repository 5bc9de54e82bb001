"""From a face to the warp between the neutral head and a frame's."""

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from avatar3d.avatar.nerf.state import NerfState
from avatar3d.avatar.rig import FaceParameters, HeadRig
from avatar3d.kernels import NodeWeights, WarpGrid, WarpLattice, warp_nodes

__all__ = ["WarpRig", "interpolated", "lattice_nodes"]

_NEIGHBOURS = 8
_SOFTNESS = 0.006, 0.003  # metres, of the Gaussian over them, coarse and fine
_REACH, _FADING = 0.008, 0.02  # metres: what is farther from the skin follows it less and less
_TAPER = 3.0  # spacings from the fine box's faces over which it takes over


class WarpRig(HeadRig):
    """Makes the warps of frames. A node follows the vertices around it, and the torso by `skin`."""

    def __init__(self, state: NerfState, device: str | torch.device = "cpu") -> None:
        super().__init__(state, device)
        shape, fine_shape = state.lattice_shape(), state.lattice_shape(fine=True)
        nodes, fine_nodes = (
            lattice_nodes(state.box, shape),
            lattice_nodes(state.fine_box, fine_shape),
        )
        tree = cKDTree(state.vertices)
        skin = np.asarray(state.skin, np.float32)

        def tensor(array: np.ndarray) -> Tensor:
            return torch.tensor(array, dtype=torch.float32, device=device)

        self.lattice = WarpLattice(
            box=tensor(state.box),
            shape=shape,
            weights=_weights(tree, nodes, skin, _SOFTNESS[0], device),
            fine_box=tensor(state.fine_box),
            fine_shape=fine_shape,
            fine_weights=_weights(
                tree,
                fine_nodes,
                interpolated(skin.reshape(shape), state.box, fine_nodes),
                _SOFTNESS[1],
                device,
            ),
            fine_taper=tensor(_taper(fine_shape)),
        )

    def grids(self, faces: list[FaceParameters]) -> WarpGrid:
        """The warps of some frames, canonical to their head frames."""
        vertices = [
            self.head_vertices(face.weights, face.gaze) if face.vertices is None else face.vertices
            for face in faces
        ]
        moved = torch.stack(vertices) - self.vertices
        torso = torch.stack([_torso_in_head(face) for face in faces])
        rigid = torso[:, :3].transpose(1, 2).clone()  # (F, 4, 3): columns of R, then t
        rigid[:, :3] -= torch.eye(3, device=rigid.device)
        with torch.no_grad():
            return warp_nodes(self.lattice, torch.cat([moved, rigid], 1).contiguous())


def lattice_nodes(box: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(nodes, 3) in metres, in the order of z, y, x, x fastest."""
    axes = [np.linspace(box[0][a], box[1][a], n) for a, n in zip((2, 1, 0), shape, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32)


def _torso_in_head(face: FaceParameters) -> Tensor:
    """(4, 4) motion of the torso relative to the head, from rest, in the head frame."""
    head, torso = face.T_camera_head.double(), face.T_camera_torso.double()
    return torch.linalg.solve(head, torso).float()


def _weights(
    tree: cKDTree,
    nodes: np.ndarray,
    skin: np.ndarray,
    softness: float,
    device: str | torch.device,
) -> NodeWeights:
    """Rows of up to 8 vertices and, as 4 vertices more, the torso's motion (`WarpLattice`)."""
    count = min(_NEIGHBOURS, tree.n)
    distance, index = tree.query(nodes, count)
    distance, index = distance.reshape(len(nodes), count), index.reshape(len(nodes), count)
    near = distance[:, :1]
    weight = np.exp((near**2 - distance**2) / (2 * softness**2))
    fade = np.exp(-(np.maximum(near - _REACH, 0) ** 2) / (2 * _FADING**2))
    weight *= fade / weight.sum(1, keepdims=True)
    rigid = np.concatenate([nodes * skin[:, None], skin[:, None]], 1)
    columns = np.concatenate([index, np.tile(tree.n + np.arange(4), (len(nodes), 1))], 1)
    weights = np.concatenate([weight, rigid], 1)
    kept = np.abs(weights) > 1e-4
    kept[:, count:] = skin[:, None] > 1e-3
    offsets = np.r_[0, np.cumsum(kept.sum(1))]
    return NodeWeights(
        torch.tensor(offsets, dtype=torch.int32, device=device),
        torch.tensor(columns[kept], dtype=torch.int32, device=device),
        torch.tensor(weights[kept], dtype=torch.float32, device=device),
    )


def interpolated(values: np.ndarray, box: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(n,) trilinear, of the values (z, y, x) at the nodes of a box."""
    from scipy.ndimage import map_coordinates

    side = np.array(values.shape[::-1]) - 1
    place = (points - box[0]) / (box[1] - box[0]) * side
    return map_coordinates(values, place.T[::-1], order=1, mode="nearest").astype(np.float32)


def _taper(shape: tuple[int, int, int]) -> np.ndarray:
    """(nodes,) from 0 on the faces of a lattice to 1 inside."""
    ramps = [np.clip(np.minimum(np.arange(n), n - 1 - np.arange(n)) / _TAPER, 0, 1) for n in shape]
    return (ramps[0][:, None, None] * ramps[1][:, None] * ramps[2]).ravel().astype(np.float32)
