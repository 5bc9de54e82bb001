"""NerfState: everything a NeRF avatar is, as plain arrays shared by files and renderers."""

from dataclasses import dataclass, fields

import numpy as np

from avatar3d.avatar.state import MAX_SIDE
from avatar3d.errors import UserError
from avatar3d.kernels import HashGrid

__all__ = ["GROUPS", "NerfState"]

GROUPS = ("mouth", "eyes", "rest", "appearance")
"""What of a frame the field hears of, each through gates of its own; tiny-cuda-nn encodes 4 numbers
of a node, but not 3 or 5."""
_MOST = {
    "vertices": 200_000, "expression": 1_000, "faces": 400_000, "table": 1 << 26,
    "attention": 1 << 24, "layer_0": 512, "code_map": 64, "skin": 1 << 24,
}  # fmt: skip
"""Largest first dimensions; what is beyond them no training writes."""
_MOST_CELLS = 256


@dataclass
class NerfState:
    """An animated radiance field. V vertices, E expression rows, G groups, C numbers of a code.

    The head is that of `HeadArrays`. The field lives in the head frame of the neutral face in rest
    pose, within `box`. A point of a frame is taken there by the warp: the displacement of the head
    around it by expression and gaze, and with the weight `skin` the motion of the torso relative to
    the head (`avatar3d.avatar.nerf.warp`).

    A point's features f come from a hash grid. Its gates are the sigmoid of a coarser, dense grid.
    A network of three layers makes log density and colour of them: the first is
    relu(layer_0 f + bias_0 + sum_g gate_g inject_g code_g). The codes of a frame are
    `limit * tanh((code_map_g (x - mean) + code_bias_g) / limit)` with x the expression weights and
    gaze clamped to [signal_min, signal_max]; that of the mouth may come from sound instead
    (`avatar3d.avatar.nerf.audio`), and that of the appearance is constant.

    Attributes:
        vertices, expression, torso_weight, eye, eye_centers, mean, signal_min, signal_max,
            T_camera_rest, K_matrix, size, torso_map, torso_limit: see `HeadArrays`.
        faces (F, 3) int32, face_part (F,) uint8 index into `SplatState.PARTS`: the head's
            triangles, for splats made of the field.
        box (2, 3), fine_box (2, 3): of field and warp, and of the warp's finer lattice; metres.
        spacing (2,): between the nodes of the coarse and the fine lattice, metres.
        skin (coarse nodes,): weight of the torso's motion.
        layout (5,) int32: levels, features, log2_size, base and finest of the hash grid.
        table (P, features); attention (A, G) logits, A the nodes of `attention_side` cubed.
        layer_0 (H, D), layer_1 (H, H), layer_2 (4, H), bias_0, bias_1 (H,), bias_2 (4,).
        inject (G, H, C); code_map (G - 1, C, E + 4), code_bias (G - 1, C), limit ().
        appearance (C,).
        occupancy (R^3 / 8,) uint8, see `kernels.Occupancy`; ray_step (): metres.
        audio_map (A, Z), audio_mean (A,), audio_rows (Z + 1, M), audio_0 (S, Z), audio_bias_0 (S,),
            audio_1 (C, S), audio_bias_1 (C,): what makes mouth rows and code from sound; Z is 0
            where the clip had no speech.
    """

    vertices: np.ndarray
    expression: np.ndarray
    faces: np.ndarray
    face_part: np.ndarray
    torso_weight: np.ndarray
    eye: np.ndarray
    eye_centers: np.ndarray
    mean: np.ndarray
    signal_min: np.ndarray
    signal_max: np.ndarray
    T_camera_rest: np.ndarray
    K_matrix: np.ndarray
    size: np.ndarray
    torso_map: np.ndarray
    torso_limit: np.ndarray
    box: np.ndarray
    fine_box: np.ndarray
    spacing: np.ndarray
    skin: np.ndarray
    layout: np.ndarray
    table: np.ndarray
    attention: np.ndarray
    layer_0: np.ndarray
    layer_1: np.ndarray
    layer_2: np.ndarray
    bias_0: np.ndarray
    bias_1: np.ndarray
    bias_2: np.ndarray
    inject: np.ndarray
    code_map: np.ndarray
    code_bias: np.ndarray
    limit: np.ndarray
    appearance: np.ndarray
    occupancy: np.ndarray
    ray_step: np.ndarray
    audio_map: np.ndarray
    audio_mean: np.ndarray
    audio_rows: np.ndarray
    audio_0: np.ndarray
    audio_bias_0: np.ndarray
    audio_1: np.ndarray
    audio_bias_1: np.ndarray

    @property
    def grid(self) -> HashGrid:
        """The layout of `table`."""
        return HashGrid(*(int(number) for number in self.layout))

    @property
    def attention_grid(self) -> HashGrid:
        """The layout of `attention`."""
        side = round((len(self.attention) - 3) ** (1 / 3))  # entries are padded to a multiple of 8
        while (side + 1) ** 3 <= len(self.attention):
            side += 1
        return attention_layout(side)

    @property
    def occupancy_resolution(self) -> int:
        """Cells a side."""
        return round((len(self.occupancy) * 8) ** (1 / 3))

    @property
    def hears(self) -> bool:
        """Whether sound can drive the mouth directly."""
        return self.audio_map.size > 0

    def lattice_shape(self, fine: bool = False) -> tuple[int, int, int]:
        """Nodes in z, y, x of the warp's coarse or fine lattice."""
        box = self.fine_box if fine else self.box
        return lattice_shape(box, float(self.spacing[int(fine)]))

    def validate(self) -> None:
        """Raise UserError if shapes, sizes or values are inconsistent."""
        for name, most in _MOST.items():
            if len(getattr(self, name)) > most:
                raise UserError(f"The avatar is damaged: {name} is larger than any may be.")
        for f in fields(self):
            if not np.isfinite(getattr(self, f.name)).all():
                raise UserError(f"The avatar is damaged: {f.name} has non-finite values.")
        for name, shape in self._shapes().items():
            if getattr(self, name).shape != shape:
                raise UserError(
                    f"The avatar is damaged: {name} has shape {getattr(self, name).shape}, "
                    f"expected {shape}."
                )
        if not len(self.faces) or self.faces.min() < 0 or self.faces.max() >= len(self.vertices):
            raise UserError("The avatar is damaged: faces points outside its table.")
        if not (self.size.min() >= 1 and self.size.max() <= MAX_SIDE):
            raise UserError(f"The avatar is damaged: its picture is {self.size} pixels.")
        for name in ("box", "fine_box"):
            low, high = getattr(self, name)
            if not (high > low).all():
                raise UserError(f"The avatar is damaged: {name} has no volume.")

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        v, e, signal = len(self.vertices), len(self.expression), len(self.expression) + 4
        groups, hidden = len(GROUPS), len(self.layer_0)
        code, known = self.inject.shape[-1], self.audio_map.shape[-1]
        small = len(self.audio_0)
        try:
            grid, attention = self.grid, self.attention_grid
            if not (self.spacing > 1e-4).all() or not 1e-4 < float(self.ray_step) < 1:
                raise ValueError("steps are out of range")
            nodes = int(np.prod(self.lattice_shape()))
        except ValueError as error:
            raise UserError(f"The avatar is damaged: {error}.") from error
        resolution = self.occupancy_resolution
        if resolution % 4 or not 0 < resolution <= _MOST_CELLS:
            raise UserError("The avatar is damaged: its occupancy is no cube of cells.")
        return {
            "vertices": (v, 3), "expression": (e, v, 3), "faces": (len(self.faces), 3),
            "face_part": (len(self.faces),),
            "torso_weight": (v,), "eye": (v,),
            "eye_centers": (2, 3), "mean": (signal,), "signal_min": (signal,),
            "signal_max": (signal,), "T_camera_rest": (4, 4), "K_matrix": (3, 3), "size": (2,),
            "torso_map": (12, 6), "torso_limit": (6,), "box": (2, 3), "fine_box": (2, 3),
            "spacing": (2,), "skin": (nodes,), "layout": (5,),
            "table": (grid.entries, grid.features), "attention": (attention.entries, groups),
            "layer_0": (hidden, grid.outputs), "layer_1": (hidden, hidden), "layer_2": (4, hidden),
            "bias_0": (hidden,), "bias_1": (hidden,), "bias_2": (4,),
            "inject": (groups, hidden, code), "code_map": (groups - 1, code, signal),
            "code_bias": (groups - 1, code), "limit": (), "appearance": (code,),
            "occupancy": (resolution**3 // 8,), "ray_step": (),
            "audio_map": (len(self.audio_map), known), "audio_mean": (len(self.audio_map),),
            "audio_rows": (known + 1, self.audio_rows.shape[-1]), "audio_0": (small, known),
            "audio_bias_0": (small,), "audio_1": (code, small), "audio_bias_1": (code,),
        }  # fmt: skip


def attention_layout(side: int) -> HashGrid:
    """A dense grid of `side` nodes in every direction, one number of a node for each group."""
    return HashGrid(
        levels=1,
        features=len(GROUPS),
        log2_size=max(3, (side**3 - 1).bit_length()),
        base=side,
        finest=side,
    )


def lattice_shape(box: np.ndarray, spacing: float) -> tuple[int, int, int]:
    """Nodes in z, y, x that are at most `spacing` apart in a box (2, 3)."""
    nodes = np.ceil((box[1] - box[0]) / spacing - 1e-6).astype(int) + 1
    x, y, z = (max(2, int(count)) for count in nodes)
    if x * y * z > 1 << 24:
        raise ValueError("its warp has too many nodes")
    return z, y, x
