"""Colours for a bare head model: a solid texture over the template, evaluated at every pixel."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from avatar3d.head.model import PARTS, HeadModel
from avatar3d.subject import PARSING_LABELS

__all__ = ["Appearance", "Palette", "hair_offset"]

# Lengths in metres relative to the centre of an eye, as (outwards, up), nose to temple.
_BROW = np.array([[-0.016, 0.0185], [-0.006, 0.0235], [0.008, 0.0245], [0.020, 0.0200]])
_BROW_WIDTH = np.array([0.0034, 0.0033, 0.0028, 0.0018])
# Height of the hairline over the eyes by the angle around the head, 0 in front, 180 at the nape.
_HAIRLINE = (
    np.deg2rad([0, 30, 50, 62, 72, 85, 100, 120, 150, 180]),
    np.array([63, 63, 60, 45, 5, -8, 14, -35, -55, -60]) * 1e-3,
)
_HAIR_THICKNESS = 0.014
_PUPIL, _IRIS = np.deg2rad([8.0, 21.0])
_COLLAR_RADIUS = 0.080  # metres from the axis of the neck
_LABEL = {name: index for index, name in enumerate(PARSING_LABELS)}
_PART_LABEL = np.array(
    [
        _LABEL[
            {
                "ears": "ears", "neck": "neck", "shoulders": "neck", "lips": "lips",
                "mouth_cavity": "mouth_interior", "gums": "mouth_interior",
                "teeth_upper": "teeth", "teeth_lower": "teeth", "tongue": "mouth_interior",
                "eye_left": "left_eye", "eye_right": "right_eye",
            }.get(part, "skin")
        ]
        for part in PARTS
    ],
    np.uint8,
)  # fmt: skip


@dataclass(frozen=True)
class Palette:
    """sRGB in [0, 1]."""

    skin: tuple[float, float, float] = (0.86, 0.66, 0.55)
    lips: tuple[float, float, float] = (0.72, 0.38, 0.37)
    hair: tuple[float, float, float] = (0.22, 0.15, 0.11)
    iris: tuple[float, float, float] = (0.35, 0.24, 0.15)
    clothes: tuple[float, float, float] = (0.25, 0.32, 0.45)

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Palette":
        """A person at random: skin from light to dark, and lips, hair and eyes that go with it."""
        depth = rng.uniform(0, 0.75)
        skin = (1 - depth) * np.array([0.90, 0.71, 0.61]) + depth * np.array([0.42, 0.27, 0.20])
        lips = skin * [0.86, 0.58, 0.62]
        hair = rng.uniform(0.2, 1.0) * (1 - 0.6 * depth) * np.array([0.42, 0.28, 0.17]) + 0.03
        blue = rng.random() > 0.4 + depth
        iris = np.array([0.36, 0.47, 0.55] if blue else [0.34, 0.22, 0.13])
        clothes = rng.uniform(0.15, 0.7, 3)
        rows = (skin, lips, hair, iris, clothes)
        return cls(*((float(r), float(g), float(b)) for r, g, b in rows))


class Appearance:
    """Colour and parsing label of points of a head, by where they lie on its template.

    Args:
        model: the head.
        palette: base colours.
        hair: whether there is hair on the scalp.
    """

    def __init__(self, model: HeadModel, palette: Palette, hair: bool = True) -> None:
        self.model, self.palette = model, palette
        rest = model.template.astype(np.float32)
        marks = model.landmarks_of(rest)
        self._rest, self._eyes = rest, model.eye_centers.astype(np.float32)
        self._nose = (marks[2, 1], self._eyes[0, 1], marks[4, 2])  # base, bridge, depth of the tip
        self._lip_depth = marks[[61, 291], 2].mean()
        hair_share = hair_mask(model) if hair else np.zeros(len(rest), np.float32)
        lips = model.part == PARTS.index("lips")
        fields = (self._skin_and_mouth(), lips, hair_share, self._from_neck_axis(rest))
        self._fields = np.concatenate(
            [rest, fields[0], np.stack(fields[1:], 1)], 1, dtype=np.float32
        )

    def of_pixels(self, face: np.ndarray, bary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colours (N, 3) in [0, 1] and parsing labels (N,) of points on triangles.

        Args:
            face: (N,) triangle; bary: (N, 3) float32 barycentric coordinates in it.
        """
        corners = self.model.faces[face]
        fields = sum(self._fields[corners[:, k]] * bary[:, k, None] for k in range(3))
        part = self.model.part[corners[np.arange(len(face)), bary.argmax(1)]]
        return self._paint(fields, part)

    def of_vertices(self) -> np.ndarray:
        """(V, 3) colours at the vertices."""
        return self._paint(self._fields.copy(), self.model.part)[0]

    def _paint(self, fields: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Put on the features that are finer than the mesh; each only where it is."""
        rest, color, lips, hair, neck = np.split(fields, [3, 6, 7, 8], 1)
        color, label, palette = color.copy(), _PART_LABEL[part], self.palette
        label[self._on_nose(rest) & (label == _LABEL["skin"])] = _LABEL["nose"]

        here = np.flatnonzero((lips[:, 0] > 0.3) & (label != _LABEL["mouth_interior"]))
        self._cover(color, rest, here, palette.lips, _step(lips[here, 0], 0.35, 0.65), 0.08, 900)
        here = np.flatnonzero((part == PARTS.index("face")) & (rest[:, 1] > self._eyes[0, 1]))
        share = self._brows(rest[here])
        here, share = here[share > 0], share[share > 0]
        self._cover(color, rest, here, palette.hair, 0.85 * share, 0.25, 2500)
        label[here[share > 0.5]] = _LABEL["brows"]
        here = np.flatnonzero(hair[:, 0] > 0.15)
        self._cover(color, rest, here, palette.hair, _step(hair[here, 0], 0.15, 0.5), 0.3, 700)
        label[hair[:, 0] > 0.3] = _LABEL["hair"]
        beyond = neck[:, 0] - _COLLAR_RADIUS
        here = np.flatnonzero((label == _LABEL["neck"]) & (beyond > -0.001))
        share = _step(beyond[here], -0.001, 0.001)
        self._cover(color, rest, here, palette.clothes, share, 0.2, 250)
        label[here[share > 0.5]] = _LABEL["clothes"]
        self._paint_eyes(color, rest, part)
        return np.clip(color, 0, 1), label

    def _cover(
        self, color: np.ndarray, rest: np.ndarray, here: np.ndarray,
        paint: tuple[float, float, float], share: np.ndarray, contrast: float, frequency: float,
    ) -> None:  # fmt: skip
        """Mix `share` of a grained paint into color[here]."""
        grain = 1 + contrast * _noise(rest[here] * _single([1, 0.3, 1]), frequency)
        color[here] = _mix(color[here], _single(paint) * grain[:, None], share)

    def _skin_and_mouth(self) -> np.ndarray:
        """(V, 3) what is no finer than the mesh."""
        rest, part = self._rest, self.model.part
        tone = 1 + 0.03 * _noise(rest, 70) + 0.02 * _noise(rest, 190)
        blush = 1 - 0.10 * self._blush(rest)[:, None] * _single([0, 1, 0.9])
        color = _single(self.palette.skin) * tone[:, None] * blush
        for name, fixed in (
            ("mouth_cavity", (0.30, 0.10, 0.10)), ("gums", (0.66, 0.36, 0.36)),
            ("tongue", (0.70, 0.38, 0.38)), ("teeth_upper", (0.93, 0.90, 0.83)),
            ("teeth_lower", (0.90, 0.87, 0.79)),
        ):  # fmt: skip
            here = part == PARTS.index(name)
            depth = np.clip((rest[here, 2] - self._lip_depth + 0.03) / 0.045, 0.12, 1)
            color[here] = _single(fixed) * depth[:, None]
        return color

    def _on_nose(self, rest: np.ndarray) -> np.ndarray:
        base, bridge, tip = self._nose
        height = (rest[:, 1] - base) / (bridge - base)
        return (
            (rest[:, 2] > tip - 0.035) & (height > 0) & (height < 1)
            & (np.abs(rest[:, 0]) < 0.018 - 0.009 * height)
        )  # fmt: skip

    def _paint_eyes(self, color: np.ndarray, rest: np.ndarray, part: np.ndarray) -> None:
        for side, name in enumerate(("eye_left", "eye_right")):
            here = np.flatnonzero(part == PARTS.index(name))
            ray = rest[here] - self._eyes[side]
            angle = np.arccos(np.clip(ray[:, 2] / np.linalg.norm(ray, axis=1), -1, 1))
            turn = np.arctan2(ray[:, 1], ray[:, 0])
            white = _single([0.90, 0.88, 0.86]) * (1 - 0.25 * _step(angle, 0.5, 1.0))[:, None]
            fibres = 1 + 0.25 * np.sin(turn * 23) + 0.15 * np.sin(turn * 57 + 1)
            iris = _single(self.palette.iris) * fibres[:, None]
            iris = iris * (1 - 0.6 * _step(angle, 0.85 * _IRIS, _IRIS))[:, None]
            eye = _mix(white, iris, 1 - _step(angle, 0.97 * _IRIS, 1.06 * _IRIS))
            color[here] = _mix(eye, _single([[0.03] * 3]), 1 - _step(angle, 0.9 * _PUPIL, _PUPIL))

    def _brows(self, rest: np.ndarray) -> np.ndarray:
        """Share in [0, 1] of brow at points (N, 3)."""
        share = np.zeros(len(rest), np.float32)
        for side, sign in enumerate((1, -1)):
            outward = sign * (rest[:, 0] - self._eyes[side, 0])
            up = rest[:, 1] - self._eyes[side, 1]
            line = np.interp(outward, _BROW[:, 0], _BROW[:, 1])
            width = np.interp(outward, _BROW[:, 0], _BROW_WIDTH)
            within = _step(outward, _BROW[0, 0] - 0.002, _BROW[0, 0] + 0.002)
            within = within * (1 - _step(outward, _BROW[-1, 0] - 0.003, _BROW[-1, 0] + 0.003))
            share += within * (1 - _step(np.abs(up - line), 0.6 * width, 1.1 * width))
        return share * (rest[:, 2] > self._eyes[0, 2] - 0.02)

    def _blush(self, rest: np.ndarray) -> np.ndarray:
        centre = self._eyes[0] + _single([0.008, -0.035, 0.012])
        away = (np.abs(rest[:, :1]) - centre[:1]) ** 2 + ((rest[:, 1:] - centre[1:]) ** 2).sum(
            1, keepdims=True
        )
        return np.exp(-away[:, 0] / (2 * 0.016**2))

    def _from_neck_axis(self, rest: np.ndarray) -> np.ndarray:
        """(V,) metres; of the torso what is farther away than the collar is clothed."""
        neck = rest[self.model.part == PARTS.index("neck")]
        low = neck[neck[:, 1] < np.quantile(neck[:, 1], 0.3)]
        axis = (low[:, 2].min() + low[:, 2].max()) / 2
        return np.hypot(rest[:, 0], 0.9 * (rest[:, 2] - axis))


def hair_mask(model: HeadModel) -> np.ndarray:
    """(V,) in [0, 1]: where short hair grows, fading over a centimetre at the hairline."""
    rest = model.template
    around = np.abs(np.arctan2(rest[:, 0], rest[:, 2]))
    line = model.eye_centers[0, 1] + np.interp(around, *_HAIRLINE)
    grows = np.isin(model.part, [PARTS.index(name) for name in ("face", "scalp", "neck")])
    return (grows * _step(rest[:, 1] - line, -0.002, 0.010)).astype(np.float32)


def hair_offset(model: HeadModel) -> np.ndarray:
    """(V, 3) metres: hair as a shell, the scalp pushed outwards from the middle of the skull."""
    rest = model.template.astype(np.float32)
    outward = rest - _single([0, 0.03, 0])
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    return hair_mask(model)[:, None] ** 0.7 * _HAIR_THICKNESS * outward


def _single(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def _step(x: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return (first + (second - first) * share[:, None]).astype(np.float32)


def _noise(points: np.ndarray, frequency: float) -> np.ndarray:
    """Smooth pseudo-noise in about [-1, 1] with `frequency` waves per metre times 2 pi."""
    directions = _single(
        [[0.82, 0.37, 0.44], [-0.41, 0.77, 0.49], [0.33, -0.52, 0.79], [-0.68, -0.29, 0.67]]
    )
    waves = directions.T * _single([1, 1.31, 1.73, 2.11]) * _single(frequency)
    return np.sin(points @ waves + _single([0.3, 1.7, 2.9, 4.1])).sum(1) / 2.5
