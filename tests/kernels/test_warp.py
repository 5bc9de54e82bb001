"""Warps against the functions that they sample, and their inverses against themselves."""

import pytest
import torch
from torch import Tensor

from avatar3d import kernels
from avatar3d.kernels import NodeWeights, WarpGrid, WarpLattice, unwarp, warp_nodes
from avatar3d.kernels import radiance_reference as reference
from avatar3d.kernels.warp import warp

BOX = torch.tensor([[-0.2, -0.25, -0.2], [0.2, 0.2, 0.15]])
FINE = torch.tensor([[-0.06, -0.1, 0.0], [0.06, 0.02, 0.1]])


def one_to_one(first: int, count: int) -> NodeWeights:
    offsets = torch.arange(count + 1, dtype=torch.int32)
    columns = torch.arange(first, first + count, dtype=torch.int32)
    return NodeWeights(offsets, columns, torch.ones(count))


def lattice() -> WarpLattice:
    """Every node is a vertex of its own."""
    shape, fine = (19, 23, 21), (13, 16, 17)
    taper = torch.zeros(fine)
    taper[1:-1, 1:-1, 1:-1] = 1
    count = shape[0] * shape[1] * shape[2]
    return WarpLattice(
        BOX, shape, one_to_one(0, count), FINE, fine, one_to_one(count, taper.numel()),
        taper.flatten(),
    )  # fmt: skip


def talking(points: Tensor, opening: float) -> Tensor:
    """Smooth everywhere but where lips part: there by `opening` metres within some 16 mm."""
    x, y, _ = points.unbind(-1)
    u = torch.stack([0.004 * (14 * y).sin(), 0.003 * (15 * x).cos(), 0.004 * (12 * x).sin()], -1)
    below = torch.sigmoid((-0.04 - y) / 0.004)
    near = torch.exp(-((points - points.new_tensor([0, -0.05, 0.06])) ** 2).sum(-1) / 0.05**2)
    u[:, 1] -= opening * below * near
    return u


def grid(*openings: float, backend: str = "auto") -> WarpGrid:
    where = lattice()
    places = torch.cat([where.nodes(), where.fine_nodes()])
    return warp_nodes(where, torch.stack([talking(places, o) for o in openings]), backend=backend)


def some_points(count: int, frames: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    points = BOX[0] + torch.rand(count, 3, generator=g) * (BOX[1] - BOX[0])
    return points, torch.randint(0, frames, (count,), generator=g, dtype=torch.int32)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_nodes_have_the_values_of_the_field(backend, simd, threads):
    warped = grid(0.0, 0.012, backend=backend)
    where = lattice()
    for frame, opening in enumerate((0.0, 0.012)):
        nodes = where.nodes()
        frames = torch.full((len(nodes),), frame, dtype=torch.int32)
        inside = ((nodes < FINE[0]) | (nodes > FINE[1])).any(-1)
        moved = warp(nodes, frames, warped) - nodes
        assert (moved - talking(nodes, opening))[inside].abs().max() < 1e-6
        nodes = where.fine_nodes()[where.fine_taper > 0]
        moved = warp(nodes, frames[: len(nodes)], warped) - nodes
        assert (moved - talking(nodes, opening)).abs().max() < 1e-6


def test_sparse_weights_are_a_matrix(simd, threads):
    scipy = pytest.importorskip("scipy.sparse")
    shape = (3, 4, 5)
    matrix = scipy.random(60, 40, 0.1, format="csr", random_state=0, dtype="float32")
    weights = NodeWeights(
        torch.tensor(matrix.indptr), torch.tensor(matrix.indices), torch.tensor(matrix.data)
    )
    moved = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0))
    made = warp_nodes(WarpLattice(BOX, shape, weights), moved, backend="native").coarse
    for frame in range(2):
        assert (made[frame, ..., :3].view(-1, 3) - matrix @ moved[frame].numpy()).abs().max() < 1e-6
    assert (made[..., 3] == 0).all()


def test_four_columns_move_a_part_rigidly():
    nodes = lattice().nodes()
    count = len(nodes)
    columns = torch.arange(4, dtype=torch.int32).repeat(count)
    weights = torch.cat([nodes, torch.ones(count, 1)], 1).flatten()
    rig = NodeWeights(torch.arange(0, 4 * count + 1, 4, dtype=torch.int32), columns, weights)
    turn = torch.linalg.matrix_exp(
        torch.tensor([[0.0, -0.1, 0.05], [0.1, 0, 0.02], [-0.05, -0.02, 0]])
    )
    shift = torch.tensor([0.01, -0.02, 0.005])
    rows = torch.cat([(turn - torch.eye(3)).T, shift[None]])
    warped = warp_nodes(WarpLattice(BOX, (19, 23, 21), rig), rows[None])
    points, frames = some_points(500, 1)
    expected = points @ turn.T + shift
    assert (warp(points, frames, warped) - expected).abs().max() < 1e-6
    inner = ((expected > BOX[0] + 0.06) & (expected < BOX[1] - 0.06)).all(-1)
    assert (unwarp(expected, frames, warped) - points)[inner].abs().max() < 2e-5


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_unwarping_undoes_the_warp(backend):
    """Also where lips part by 16 mm: there u grows by more than a metre a metre."""
    warped = grid(0.0, 0.008, 0.016)
    points, frames = some_points(20000, 3)
    back = unwarp(points, frames, warped, backend=backend)
    inside = ((back > BOX[0] + 0.02) & (back < BOX[1] - 0.02)).all(-1)
    error = (warp(back, frames, warped) - points).norm(dim=-1)[inside]
    assert error.mean() < 5e-5  # metres
    assert error.quantile(0.99) < 5e-4
    assert (talking(back, 0.016) * inside[:, None]).norm(dim=-1).max() > 0.01


def test_native_inverse_is_that_of_torch(simd, threads):
    warped = grid(0.012, 0.003)
    for (_, ours), theirs in zip(
        warped.inverse.lattices(), reference.invert(warped.lattices()), strict=True
    ):
        assert (ours - theirs).abs().max() < 2e-5
    points, frames = some_points(1001, 2)
    points[3], points[5, 1] = torch.tensor([2.0, -3.0, 0.1]), float("inf")
    ours = unwarp(points, frames, warped, backend="native")
    theirs = unwarp(points, frames, warped, backend="reference")
    good = points.isfinite().all(-1)
    assert (ours - theirs)[good].abs().max() < 1e-6


def test_bits_do_not_depend_on_threads(simd):
    results = []
    before = kernels.get_num_threads()
    for threads in (1, 3):
        kernels.set_num_threads(threads)
        warped = grid(0.01, 0.005)
        results.append([warped.coarse, warped.fine, warped.inverse.coarse, warped.inverse.fine])
    kernels.set_num_threads(before)
    assert all(a.equal(b) for a, b in zip(*results, strict=True))


def test_poison_ends():
    """NaN in a frame's vertices: numbers come back, and the other frames' are untouched."""
    warped = grid(0.01, 0.01)
    poisoned = WarpGrid(BOX, warped.coarse.clone(), FINE, warped.fine.clone())
    poisoned.coarse[0, 3:8] = float("nan")
    points, frames = some_points(300, 2)
    found = unwarp(points, frames, poisoned)
    clean = unwarp(points, frames, warped)
    assert found[frames == 1].equal(clean[frames == 1])


def test_nothing_to_warp():
    warped = grid(0.01)
    nothing = torch.empty(0, 3), torch.empty(0, dtype=torch.int32)
    assert unwarp(*nothing, warped).shape == (0, 3)


def test_wrong_arguments_are_named():
    points, frames = some_points(4, 1)
    with pytest.raises(ValueError, match=r"frames has numbers outside of \[0, 1\)"):
        unwarp(points, frames + 1, grid(0.0))
    with pytest.raises(ValueError, match="points has shape"):
        unwarp(points[:, :2], frames, grid(0.0))
    with pytest.raises(ValueError, match="expected a lower and then an upper corner"):
        WarpGrid(BOX.flip(0), torch.zeros(1, 2, 2, 2, 4))
    with pytest.raises(ValueError, match="expected 2 nodes a side"):
        WarpGrid(BOX, torch.zeros(1, 2, 1, 2, 4))
    with pytest.raises(ValueError, match="vertices, but columns go to"):
        warp_nodes(WarpLattice(BOX, (2, 2, 2), one_to_one(3, 8)), torch.zeros(1, 8, 3))
    with pytest.raises(ValueError, match="8 rows of weights"):
        warp_nodes(WarpLattice(BOX, (2, 2, 3), one_to_one(0, 8)), torch.zeros(1, 8, 3))
