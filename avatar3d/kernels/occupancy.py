"""Which cells of a volume hold anything: a bitfield, and the densities that it comes from."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from avatar3d.kernels import radiance_reference as reference
from avatar3d.kernels._backend import Backend, arrays, check_tensor, native, use_native
from avatar3d.kernels.warp import WarpGrid, check_box

__all__ = ["Occupancy", "posed_mask"]


@dataclass
class Occupancy:
    """R x R x R cells of a box, in the order of z, y, x, x fastest.

    Attributes:
        box: (2, 3) lower and upper corner, metres.
        resolution: R, a multiple of 4.
        values: (R^3,) the largest density seen in each cell, decayed, per metre.
        bits: (R^3 / 8,) uint8, eight bytes for each brick of 4 x 4 x 4 cells: bricks in the order
            of z, y, x, and within one cell (x, y, z) is bit 16 z + 4 y + x, low bits first.
    """

    box: Tensor
    resolution: int
    values: Tensor
    bits: Tensor

    @classmethod
    def full(cls, box: Tensor, resolution: int = 128) -> "Occupancy":
        """Every cell occupied: what there is before anything is known."""
        cells = _cells(resolution)
        check_box("box", box)
        bits = torch.full((cells // 8,), 255, dtype=torch.uint8, device=box.device)
        return cls(box, resolution, box.new_zeros(cells), bits)

    def __post_init__(self) -> None:
        check_box("box", self.box)
        cells = _cells(self.resolution)
        check_tensor("values", self.values, (cells,), float32=False, form=f"({cells},)")
        if self.bits.dtype != torch.uint8 or self.bits.shape != (cells // 8,):
            found = f"{self.bits.dtype} {tuple(self.bits.shape)}"
            raise ValueError(f"bits is {found}, expected torch.uint8 ({cells // 8},).")

    @property
    def occupied_fraction(self) -> float:
        """Of the cells, in [0, 1]."""
        return float(self.cells().float().mean())

    def cells(self) -> Tensor:
        """(R, R, R) bool in z, y, x."""
        return reference.unpack_bits(self.bits, self.resolution)

    def arrays(self) -> Any:
        """As the native module takes it."""
        box, bits = arrays([self.box, self.bits])
        return native().Volume(box, self.resolution, bits)

    def points(self, cells: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(n, 3) a random point of each cell, or its centre without a generator; metres.

        Args:
            cells: (n,) int64 indices into `values`.
        """
        r = self.resolution
        place = torch.stack([cells % r, cells // r % r, cells // (r * r)], -1).to(self.box.dtype)
        if generator is None:
            place = place + 0.5
        else:
            noise = torch.rand(place.shape, generator=generator, device=generator.device)
            place = place + noise.to(place)
        return self.box[0] + place * ((self.box[1] - self.box[0]) / r)

    def update(
        self,
        density: Tensor,
        cells: Tensor | None = None,
        *,
        decay: float = 0.95,
        threshold: float = 4.0,
    ) -> None:
        """Take densities in: values become max(decay * value, density), bits those that are large.

        A cell is occupied where its value is above `threshold` or above the mean value, whichever
        is less, so that a field that is still thin everywhere is not lost. NaN counts as occupied:
        better to look at it than to hide it.

        Args:
            density: (R^3,), or (n,) of `cells`, per metre.
            cells: (n,) int64 without repetitions; the others keep their values.
            threshold: per metre; 4 stops 1 % of the light in 2.5 mm.
        """
        count = len(self.values) if cells is None else len(cells)
        check_tensor("density", density, (count,), float32=False, form=f"({count},)")
        density = density.detach().nan_to_num(nan=torch.finfo(density.dtype).max)
        if cells is None:
            self.values = torch.maximum(self.values * decay, density)
        else:
            self.values[cells] = torch.maximum(self.values[cells] * decay, density)
        limit = min(threshold, float(self.values.mean()))
        r = self.resolution
        self.bits = reference.pack_bits((self.values > limit).view(r, r, r))


def posed_mask(occupancy: Occupancy, warp: WarpGrid, *, backend: Backend = "auto") -> Tensor:
    """Where occupied cells are in each frame: lets `march` skip what no unwarped point can reach.

    A cell of the same box is set where the warp takes part of an occupied one. Points outside of
    the box are not marched, so it must leave room for motion.

    Returns:
        (F, R^3 / 8) uint8, packed as `Occupancy.bits`.
    """
    if occupancy.bits.device.type == "cpu" and use_native(backend, occupancy.bits):
        mask = torch.empty(len(warp), len(occupancy.bits), dtype=torch.uint8)
        native().posed_mask(occupancy.arrays(), warp.arrays(), *arrays([mask]))
        return mask
    return reference.posed_mask(
        occupancy.box, occupancy.resolution, occupancy.bits, warp.lattices()
    )


def _cells(resolution: int) -> int:
    if resolution < 4 or resolution % 4 or resolution > 512:
        raise ValueError(f"resolution is {resolution}, expected a multiple of 4 from 4 to 512.")
    return int(resolution**3)
