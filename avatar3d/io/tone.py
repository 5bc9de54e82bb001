"""High dynamic range video (PQ and HLG, BT.2020) to standard range (BT.709).

Display light comes from the curves of ITU-R BT.2100; what BT.2408 calls reference white, 203 cd/m2,
is the white of the result. Light below `KNEE` of it keeps its brightness exactly, so skin does; the
rest is bent under a shoulder (Reinhard et al. 2002, equation 4) that reaches white at `PEAK`. The
brightest channel decides how much a colour is dimmed, so hues stay.

FFmpeg's lut3d filter applies the result, tabulated, to whole frames.
"""

import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["HDR_CURVES", "ToneMapper", "standard_range"]

WHITE, PEAK = 203.0, 1000.0
"""Display light in cd/m2 of diffuse white, and of what becomes the brightest."""
KNEE = 0.6
PQ, HLG = 16, 18
"""Transfer characteristics of ITU-T H.273."""
_GAMMA = 2.4
_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593])
_BT2020_MATRIX = 9
_NODES = 49


def standard_range(signal: np.ndarray, curve: int) -> np.ndarray:
    """BT.709 signal of BT.2020 ones.

    Args:
        signal: (..., 3) non-linear RGB in [0, 1].
        curve: transfer characteristics, one of `HDR_CURVES`.

    Returns:
        (..., 3) in [0, 1], for a display of BT.1886.

    Example:
        >>> standard_range(np.array([0.5081, 0.5081, 0.5081]), PQ).round(2)  # 100 cd/m2
        array([0.74, 0.74, 0.74])
    """
    light = HDR_CURVES[curve](np.clip(signal, 0, 1)) / WHITE
    light = np.maximum(light @ _BT2020_TO_BT709.T, 0)
    brightest = np.maximum(light.max(-1, keepdims=True), 1e-9)
    light = light * (_shoulder(brightest) / brightest)
    return np.clip(light, 0, 1) ** (1 / _GAMMA)


def _shoulder(light: np.ndarray) -> np.ndarray:
    above, peak = ((x - KNEE) / (1 - KNEE) for x in (np.minimum(light, PEAK / WHITE), PEAK / WHITE))
    bent = KNEE + (1 - KNEE) * above * (1 + above / peak**2) / (1 + above)
    return np.where(light > KNEE, bent, light)


def _pq_light(signal: np.ndarray) -> np.ndarray:
    """BT.2100, reference PQ electro-optical transfer function."""
    root = signal ** (32 / 2523)
    fraction = np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)
    return 10000 * fraction ** (8192 / 1305)


def _hlg_light(signal: np.ndarray) -> np.ndarray:
    """BT.2100, HLG inverse OETF and the system gamma of 1.2 of a display of 1000 cd/m2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luma = np.maximum(scene @ _BT2020_LUMA, 1e-9)[..., None]
    return 1000 * scene * luma**0.2


HDR_CURVES: dict[int, Callable[[np.ndarray], np.ndarray]] = {PQ: _pq_light, HLG: _hlg_light}
"""Signal to display light in cd/m2, by the number of the transfer characteristics."""


class ToneMapper:
    """Converts decoded HDR frames; for one thread at a time."""

    def __init__(self) -> None:
        self._graphs: dict[tuple[int, int, int], Any] = {}

    def __call__(self, frame: Any, width: int, height: int, interpolation: Any) -> np.ndarray:
        """(height, width, 3) uint8 of a frame whose transfer curve is one of `HDR_CURVES`."""
        deep = frame.reformat(
            width, height, "gbrp16le",
            src_colorspace=_BT2020_MATRIX, interpolation=interpolation,
        )  # fmt: skip
        deep.pts, deep.time_base = 0, Fraction(1, 25)  # what a filter asks for and ignores
        graph = self._graph(int(frame.color_trc), width, height)
        graph.push(deep)
        return graph.pull().to_ndarray()

    def _graph(self, curve: int, width: int, height: int) -> Any:
        key = curve, width, height
        if key not in self._graphs:
            self._graphs[key] = _lut_graph(curve, width, height)
        return self._graphs[key]


def _lut_graph(curve: int, width: int, height: int) -> Any:
    import av

    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat("gbrp16le"), time_base=Fraction(1, 25)
    )
    with tempfile.TemporaryDirectory(prefix="avatar3d-") as folder:
        table = Path(folder) / "tone.cube"
        table.write_text(_cube(curve))
        lut = graph.add("lut3d", file=str(table), interp="tetrahedral")
        to_bytes = graph.add("format", pix_fmts="rgb24")
        sink = graph.add("buffersink")
        for first, second in ((source, lut), (lut, to_bytes), (to_bytes, sink)):
            first.link_to(second)
        graph.configure()
    return graph


@lru_cache(maxsize=2)
def _cube(curve: int) -> str:
    """The table as a .cube file, red running fastest."""
    axis = np.linspace(0, 1, _NODES)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    values = standard_range(np.stack([red, green, blue], -1).reshape(-1, 3), curve)
    rows = "\n".join(f"{r:.5f} {g:.5f} {b:.5f}" for r, g, b in values)
    return f"LUT_3D_SIZE {_NODES}\n{rows}\n"
