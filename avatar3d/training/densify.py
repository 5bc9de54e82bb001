"""Gaussians where the picture errs, fewer where nobody looks, within a budget.

The first placement goes by parts of the face and knows nothing of the person. Once the warm-up has
shown where the picture still errs, Gaussians that no frame shows are thinned, and those that the
errors pull at hardest are split.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar.deform import SplatParameters, SplatRig, pose_gaussians
from avatar3d.avatar.gamut import Gamut
from avatar3d.avatar.state import SplatState
from avatar3d.geometry import quaternion_to_matrix
from avatar3d.kernels import RasterStats, rasterize
from avatar3d.training.losses import Sample

__all__ = ["Seen", "densified", "look"]

_HIDDEN = 0.05  # pixels that a Gaussian fills in any frame, at most
_LAYERED = ("mouth", "hair")  # parts that have others behind them
_APART, _SHRUNK = 0.6, 0.65  # of two halves, in standard deviations of the whole
_ROWS = ("face", "bary", "part", "position", "quat", "log_scale", "opacity", "color")


@dataclass(frozen=True)
class Seen:
    """What some frames show of N Gaussians.

    Attributes:
        area: (N,) pixels that each fills in the frame that shows most of it.
        pull: (N,) mean over the frames of the loss's gradient at its centre, `mean2d_grad` of
            `RasterStats`.
    """

    area: np.ndarray
    pull: np.ndarray


def look(
    rig: SplatRig,
    parameters: SplatParameters,
    samples: Iterable[Sample],
    loss: Callable[[Tensor, Sample], Tensor],
) -> Seen:
    """Draw the samples, without blendshapes, and see what comes of each Gaussian.

    Args:
        loss: of a picture (H, W, 3) of a sample.
    """
    count = len(parameters.position)
    area, pull = np.zeros(count), np.zeros(count)
    drawn = 0
    for sample in samples:
        with torch.no_grad():
            splats = pose_gaussians(rig, parameters, sample.face, use_basis=False)
        camera = sample.camera
        means, colors = (value.clone().requires_grad_() for value in (splats.means, splats.colors))
        K = torch.as_tensor(camera.K, dtype=torch.float32, device=means.device)
        view, stats = torch.eye(4, device=means.device), RasterStats()
        image, _ = rasterize(
            means, splats.quats, splats.scales, splats.opacities, colors, view, K,
            camera.width, camera.height, background=sample.background, stats=stats,
        )  # fmt: skip
        (filled,) = torch.autograd.grad(image.sum(), colors, retain_graph=True)
        loss(image, sample).backward()
        area = np.maximum(area, filled.mean(-1).cpu().numpy())
        pull += stats.mean2d_grad.cpu().numpy()
        drawn += 1
    return Seen(area, pull / max(drawn, 1))


def densified(state: SplatState, gamut: Gamut, seen: Seen, budget: int) -> tuple[SplatState, Gamut]:
    """`state` with every other hidden Gaussian dropped and those pulled at hardest split.

    Rows keep their order and two halves follow each other, so that those on the mesh still come
    before the torso's and those with a basis before the rest. Halves lie side by side along the
    longest axis, cover what the whole covered, and share its place on the mesh, its colour, its
    blendshapes and the limits of its colour. Only parts with others behind them are thinned, and
    what stays there grows to fill the gaps.

    Args:
        budget: the number of Gaussians of the result, as long as each is split once at most.
    """
    copies = np.ones(len(state), np.int64)
    hidden = _hidden(state, seen)
    copies[hidden[::2]] = 0
    room = max(budget - int(copies.sum()), 0)
    wanted = np.where(copies > 0, seen.pull, -1.0)
    chosen = np.argsort(-wanted, kind="stable")[: min(room, int((wanted > 0).sum()))]
    copies[chosen] = 2
    rows = np.repeat(np.arange(len(state)), copies)
    changed = {name: getattr(state, name)[rows] for name in _ROWS}
    changed["basis"] = state.basis[rows[rows < len(state.basis)]]
    grown = np.isin(rows, hidden[1::2])
    changed["log_scale"][grown] += np.log(2) / 2
    _part_halves(changed, copies[rows] == 2)
    limits = {f.name: getattr(gamut, f.name)[rows] for f in fields(Gamut)}
    return replace(state, **changed), Gamut(**limits)


def _hidden(state: SplatState, seen: Seen) -> np.ndarray:
    """Rows that no frame shows, of parts with several layers."""
    layered = np.isin(state.part, [SplatState.PARTS.index(name) for name in _LAYERED])
    return np.flatnonzero(layered & (seen.area < _HIDDEN))


def _part_halves(rows: dict[str, np.ndarray], halves: np.ndarray) -> None:
    """Move the halves, which come in pairs of equal rows, apart along their longest axis."""
    scale, index = rows["log_scale"], np.flatnonzero(halves)
    longest = scale[index].argmax(1)
    turned = quaternion_to_matrix(torch.tensor(rows["quat"][index])).numpy()
    axis = turned[np.arange(len(index)), :, longest]
    side = np.where(np.arange(len(index)) % 2, 1.0, -1.0)
    reach = _APART * np.exp(scale[index, longest]) * side
    rows["position"][index] += (reach[:, None] * axis).astype(np.float32)
    scale[index, longest] += np.float32(np.log(_SHRUNK))
