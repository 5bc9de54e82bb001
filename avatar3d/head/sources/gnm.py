"""Google's GNM Head (Apache-2.0, https://github.com/google/GNM) as a `HeadModel`.

The file is `gnm_head.npz`, version 3: metres, x to the person's left, y up, z out of the face, and
coefficients of unit variance.
"""

from pathlib import Path

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.model import PARTS, HeadModel
from avatar3d.head.sources.foreign import Embed, ForeignHead, adapt

__all__ = ["MEMBERS", "from_npz"]

MEMBERS = ("template_vertex_positions", "vertex_identity_basis", "expression_basis")
"""Arrays by which such a file is known."""

_IDENTITY = 100
_LABELS = (  # vertex groups to parts; later ones win
    ("ears", "ears"), ("mouth_sock", "mouth_cavity"), ("upper_lip", "lips"),
    ("lower_lip", "lips"), ("tongue", "tongue"), ("upper_teeth_and_gums", "teeth_upper"),
    ("lower_teeth_and_gums", "teeth_lower"), ("gums", "gums"),
)  # fmt: skip


def from_npz(path: str | Path, default: HeadModel, embed: Embed) -> HeadModel:
    """Build the head from `gnm_head.npz`.

    Args:
        path: npz with `template_vertex_positions` (V, 3), `triangles` (T, 3), `triangle_uvs`
            (T, 3, 2), `vertex_identity_basis` (I, V, 3), `expression_basis` (E, V, 3),
            `expression_names`, `joint_names`, `template_joint_positions` (J, 3),
            `joint_identity_basis` (I, J, 3), `skinning_weights` (J, V), `vertex_groups` (G, V) and
            `vertex_group_names`.
        default: the head that shows what the ARKit names mean; embed: finds landmarks.

    Raises:
        UserError: not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
        return adapt(_head(data), default, embed)
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{path} is not a GNM head ({error}); give gnm_head.npz of version 3."
        ) from error


def _head(data: dict[str, np.ndarray]) -> ForeignHead:
    groups = {
        str(name): row > 0.5
        for name, row in zip(data["vertex_group_names"], data["vertex_groups"], strict=True)
    }
    template = data["template_vertex_positions"].astype(np.float64)
    joints = [str(name) for name in data["joint_names"]]
    eyes = [joints.index("left_eye"), joints.index("right_eye")]
    hidden = groups.get("eye_exteriors", np.zeros(len(template), bool))
    shown = ~hidden[data["triangles"]].any(1)  # the cornea is transparent
    # Unused vertices would only cost time.
    used = np.unique(data["triangles"][shown])
    number = np.full(len(template), -1)
    number[used] = np.arange(len(used))
    eye = np.zeros(len(template), int)
    part = np.full(len(template), 255, np.uint8)
    for side, name in enumerate(("left_eye", "right_eye")):
        eye[groups[name]] = side + 1
    for group, label in _LABELS:
        if group in groups:
            part[groups[group]] = PARTS.index(label)
    names = [str(name) for name in data["expression_names"]]
    moving = [i for i, name in enumerate(names) if not name.startswith(("pupil", "iris"))]
    identity = data["vertex_identity_basis"][:_IDENTITY, used].astype(np.float64)
    centers = data["template_joint_positions"][eyes].astype(np.float64)
    uv = data["triangle_uvs"][shown].reshape(-1, 2)
    return ForeignHead(
        name="gnm",
        vertices=template[used],
        faces=number[data["triangles"][shown]],
        identity=identity,
        expression=data["expression_basis"][moving][:, used].astype(np.float64),
        poses=np.zeros((0, len(used), 3)),  # its jaw moves within the expressions
        torso_weight=np.clip(data["skinning_weights"][0, used], 0, 1),
        eye=eye[used],
        eye_centers=centers,
        eye_centers_identity=data["joint_identity_basis"][:_IDENTITY, eyes].astype(np.float64),
        uv=uv,
        uv_faces=np.arange(len(uv)).reshape(-1, 3),
        part=part[used],
    )
