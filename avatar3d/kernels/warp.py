"""Displacements on two nested lattices, which take canonical points to posed ones and back."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from avatar3d.kernels import radiance_reference as reference
from avatar3d.kernels._backend import Backend, arrays, check_tensor, native, use_native
from avatar3d.kernels.cuda import rays as on_cuda

__all__ = ["NodeWeights", "WarpGrid", "WarpLattice", "unwarp", "warp", "warp_nodes"]


@dataclass(frozen=True)
class NodeWeights:
    """A sparse matrix (nodes, V) in rows: row i has the entries offsets[i] to offsets[i + 1].

    Attributes:
        offsets: (nodes + 1,) int32; columns: (E,) int32, below V; weights: (E,).
    """

    offsets: Tensor
    columns: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        for name in ("offsets", "columns"):
            if (t := getattr(self, name)).dtype != torch.int32 or t.ndim != 1:
                raise ValueError(f"{name} must be an int32 tensor of one dimension.")
        entries = len(self.columns)
        check_tensor("weights", self.weights, (entries,), float32=False, form="(E,)")
        o = self.offsets
        if not len(o) or int(o[0]) != 0 or int(o[-1]) != entries or bool((o.diff() < 0).any()):
            raise ValueError(f"offsets must grow from 0 to the number of entries, {entries}.")
        if entries and int(self.columns.min()) < 0:
            raise ValueError("columns has a negative index.")

    @cached_property
    def width(self) -> int:
        """How many vertices there must be at least."""
        return int(self.columns.max()) + 1 if len(self.columns) else 0


@dataclass(frozen=True)
class WarpLattice:
    """Where the nodes of a warp are and what moves them; fixed for an avatar.

    Nodes lie on a regular lattice with the first and last on the faces of its box, in the order of
    z, y, x, x fastest. A rigid motion of a part enters exactly, as four more vertices: with weight
    w at node n, w n_x, w n_y, w n_z and w on the rows (R - 1)_x, (R - 1)_y, (R - 1)_z (the columns
    of R - 1) and the translation.

    Attributes:
        box: (2, 3) lower and upper corner of the coarse lattice, metres, head frame.
        shape: nodes in z, y, x, at least 2 each.
        weights: nodes by vertices.
        fine_box, fine_shape, fine_weights: the same of the fine lattice, or None.
        fine_taper: (fine nodes,), how much of what the coarse lattice lacks is added: 0 on the fine
            box's faces, so that there is no step.
    """

    box: Tensor
    shape: tuple[int, int, int]
    weights: NodeWeights
    fine_box: Tensor | None = None
    fine_shape: tuple[int, int, int] | None = None
    fine_weights: NodeWeights | None = None
    fine_taper: Tensor | None = None

    def nodes(self) -> Tensor:
        """(nodes, 3) positions of the coarse nodes, metres."""
        return reference.node_places(self.box, self.shape)

    def fine_nodes(self) -> Tensor:
        """(fine nodes, 3) positions of the fine nodes, metres."""
        if self.fine_box is None or self.fine_shape is None:
            raise ValueError("this lattice has no fine one.")
        return reference.node_places(self.fine_box, self.fine_shape)


@dataclass(frozen=True)
class WarpGrid:
    """The displacement u(c) of canonical points, metres, for F frames.

    u is trilinear in the coarse nodes, those of the nearest point outside of the box, plus
    trilinear in the fine nodes inside of the fine box. Do not change the nodes once it is made.

    Attributes:
        box: (2, 3); coarse: (F, D, H, W, 4), x y z and a number that is not used.
        fine_box: (2, 3) and fine: (F, D', H', W', 4), or None.
    """

    box: Tensor
    coarse: Tensor
    fine_box: Tensor | None = None
    fine: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.fine_box is None) != (self.fine is None):
            raise ValueError("fine_box and fine are given together or not at all.")
        frames = self.coarse.shape[0] if self.coarse.ndim else None
        for name, box, nodes in (
            ("coarse", self.box, self.coarse), ("fine", self.fine_box, self.fine),
        ):  # fmt: skip
            if box is None or nodes is None:
                continue
            shape = (frames, None, None, None, 4)
            check_tensor(name, nodes, shape, float32=False, form="(F, D, H, W, 4)")
            check_box(f"the box of {name}", box)
            if min(nodes.shape[1:4]) < 2:
                raise ValueError(f"{name} has shape {tuple(nodes.shape)}, expected 2 nodes a side.")

    def __len__(self) -> int:
        return len(self.coarse)

    def lattices(self) -> list[tuple[Tensor, Tensor]]:
        """Boxes and nodes, the coarse one first."""
        coarse = [(self.box, self.coarse)]
        if self.fine_box is None or self.fine is None:
            return coarse
        return [*coarse, (self.fine_box, self.fine)]

    @cached_property
    def inverse(self) -> "WarpGrid":
        """What takes posed points back: lattices in the same places, found once for all frames.

        For the place x of each node, the c with c + u(c) = x by fixed point iteration, relaxed by
        Aitken's rule: it also arrives where u grows by more than a metre a metre, as between lips
        that part. In between, the inverse is interpolated.
        """
        with torch.no_grad():
            fast = self.coarse.dtype == torch.float32 and use_native("auto", self.coarse)
            if fast and self.coarse.device.type != "cpu":
                return self._like(on_cuda.invert(self.lattices()))
            if fast:
                nodes = [torch.empty_like(n) for _, n in self.lattices()]
                result = self._like(nodes)
                native().invert_warp(self.arrays(), result.arrays())
                return result
            return self._like(reference.invert(self.lattices()))

    def arrays(self) -> Any:
        """As the native module takes it."""
        return native().Warp(*arrays([self.box, self.coarse, self.fine_box, self.fine]))

    def _like(self, nodes: list[Tensor]) -> "WarpGrid":
        fine = nodes[1] if len(nodes) > 1 else None
        return WarpGrid(self.box, nodes[0], self.fine_box, fine)


def warp_nodes(
    lattice: WarpLattice, displacements: Tensor, *, backend: Backend = "auto"
) -> WarpGrid:
    """The warp of F frames, from how far their vertices are from the canonical ones.

    Args:
        displacements: (F, V, 3) metres.

    Raises:
        ValueError: a shape or dtype is wrong, or there are too few vertices.
    """
    check_tensor("displacements", displacements, (None, None, 3), float32=False, form="(F, V, 3)")
    coarse = _nodes(lattice.box, lattice.shape, lattice.weights, displacements, None, None, backend)
    grid = WarpGrid(lattice.box.to(displacements), coarse)
    if lattice.fine_weights is None or lattice.fine_shape is None or lattice.fine_box is None:
        return grid
    fine = _nodes(
        lattice.fine_box, lattice.fine_shape, lattice.fine_weights, displacements,
        lattice.fine_taper, grid, backend,
    )  # fmt: skip
    return WarpGrid(grid.box, coarse, lattice.fine_box.to(displacements), fine)


def warp(points: Tensor, frames: Tensor, grid: WarpGrid) -> Tensor:
    """(N, 3) canonical points c, moved to c + u(c); differentiable. Slow: for tests and checks.

    Args:
        points: (N, 3) metres; frames: (N,) int32.
    """
    _check(points, frames, grid)
    return reference.displace(points, frames, grid.lattices())


def unwarp(points: Tensor, frames: Tensor, grid: WarpGrid, *, backend: Backend = "auto") -> Tensor:
    """(N, 3) canonical points of posed ones, by `WarpGrid.inverse`. Not differentiable.

    Args:
        points: (N, 3) metres, head frame; frames: (N,) int32.
    """
    _check(points, frames, grid)
    inverse = grid.inverse
    with torch.no_grad():
        fast = points.dtype == torch.float32 and use_native(backend, points)
        if fast and points.device.type != "cpu":
            return on_cuda.displace(points, frames, inverse.lattices())
        if fast:
            out = torch.empty(points.shape)
            native().displace(inverse.arrays(), *arrays([points, frames, out]))
            return out
        return reference.displace(points, frames, inverse.lattices())


def check_box(name: str, box: Tensor) -> None:
    """Raise ValueError unless `box` is (2, 3) with the lower corner first."""
    check_tensor(name, box, (2, 3), float32=False, form="(2, 3)")
    if not bool((box[1] > box[0]).all()) or not bool(box.isfinite().all()):
        raise ValueError(f"{name} is {box.tolist()}, expected a lower and then an upper corner.")


def _check(points: Tensor, frames: Tensor, grid: WarpGrid) -> None:
    check_tensor("points", points, (None, 3), float32=False, form="(N, 3)")
    check_frames(frames, len(points), len(grid))


def check_frames(frames: Tensor, rows: int, count: int) -> None:
    """Raise ValueError unless `frames` is (rows,) int32 with numbers below `count`."""
    if frames.dtype != torch.int32 or frames.shape != (rows,):
        raise ValueError(
            f"frames is {frames.dtype} {tuple(frames.shape)}, expected torch.int32 ({rows},)."
        )
    if rows and not 0 <= int(frames.min()) <= int(frames.max()) < count:
        raise ValueError(f"frames has numbers outside of [0, {count}), the frames of the warp.")


def _nodes(
    box: Tensor,
    shape: tuple[int, int, int],
    weights: NodeWeights,
    displacements: Tensor,
    taper: Tensor | None,
    coarse: WarpGrid | None,
    backend: Backend,
) -> Tensor:
    """(F, D, H, W, 4) taper * (weights @ displacements - the coarse lattice's values)."""
    if len(weights.offsets) - 1 != shape[0] * shape[1] * shape[2]:
        raise ValueError(f"{len(weights.offsets) - 1} rows of weights for {shape} nodes.")
    if displacements.shape[1] < weights.width:
        raise ValueError(
            f"displacements has {displacements.shape[1]} vertices, but columns go to "
            f"{weights.width - 1}."
        )
    frames = len(displacements)
    of_the_cpu = displacements.device.type == "cpu" and displacements.dtype == torch.float32
    if of_the_cpu and not displacements.requires_grad and use_native(backend):
        out = torch.empty(frames, *shape, 4)
        below = (None, None) if coarse is None else (coarse.box, coarse.coarse)
        native().warp_nodes(*arrays([
            box, weights.offsets, weights.columns, weights.weights, displacements, taper, *below,
            out,
        ]))  # fmt: skip
        return out
    values = reference.warp_nodes(
        weights.offsets, weights.columns, weights.weights.to(displacements), displacements
    )
    if coarse is not None:
        points = reference.node_places(box, shape).to(displacements).repeat(frames, 1)
        which = torch.arange(frames, device=points.device).repeat_interleave(values.shape[1])
        there = reference.displacement(points, which, coarse.box, coarse.coarse, fades=False)
        values = values - there.view(values.shape)
    if taper is not None:
        values = values * taper[:, None]
    return torch.nn.functional.pad(values, (0, 1)).view(frames, *shape, 4)
