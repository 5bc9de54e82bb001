"""HeadModel: the statistical head; ShapedHead: one person's head, ready to be posed."""

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52
from avatar3d.head.landmarks import LANDMARK_COUNT
from avatar3d.head.personal import personal_rows
from avatar3d.io.arrays import write_arrays

__all__ = ["PARTS", "HeadModel", "ShapedHead"]

PARTS: tuple[str, ...] = (
    "face", "scalp", "ears", "neck", "shoulders", "lips", "mouth_cavity", "gums", "teeth_upper",
    "teeth_lower", "tongue", "eye_socket", "eye_left", "eye_right", "lashes",
)  # fmt: skip
"""Vertex labels; `HeadModel.part` holds indices into this tuple."""

FORMAT_VERSION = 1


@dataclass(frozen=True)
class HeadModel:
    """A linear head: vertices = template + identity + expression, eyes rotated, neck skinned.

    Lengths are metres in the head frame: x to the person's left, y up, z out of the face, origin
    between the ears. V vertices, F triangles, I identity modes, E = 52 + R expression rows.

    Attributes:
        name: source of the model, e.g. "anny" or "ict".
        template: (V, 3) mean neutral head.
        faces: (F, 3) int32 triangles, counter-clockwise seen from outside.
        identity: (I, V, 3) modes scaled to unit variance, so the prior of a coefficient is N(0, 1).
        expression: (E, V, 3) displacement at weight 1; the first 52 rows are `ARKIT_52` in order,
            the R others are "residual" mouth rows of this model, penalised more in a fit.
        expression_names: E names.
        part: (V,) uint8 index into `PARTS`.
        torso_weight: (V,) in [0, 1]; 0 moves with the head, 1 with the shoulders.
        eye_centers: (2, 3) left, right centre of rotation of the eyeballs.
        eye_centers_identity: (I, 2, 3) their identity modes.
        uv: (U, 2) texture coordinates in [0, 1], v up.
        uv_faces: (F, 3) int32 into `uv`.
        landmark_faces: (478,) int32 triangle of each MediaPipe landmark.
        landmark_bary: (478, 3) barycentric coordinates in that triangle.
        landmark_sigma: (478,) metres, how far a landmark slides over the surface with the view;
            large on the face oval.
        recipe: for a model that is built rather than read, what it was built from; empty otherwise.
    """

    name: str
    template: np.ndarray
    faces: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    expression_names: tuple[str, ...]
    part: np.ndarray
    torso_weight: np.ndarray
    eye_centers: np.ndarray
    eye_centers_identity: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    landmark_faces: np.ndarray
    landmark_bary: np.ndarray
    landmark_sigma: np.ndarray
    recipe: str = ""

    def __post_init__(self) -> None:
        vertices, faces = len(self.template), len(self.faces)
        modes, rows = len(self.identity), len(self.expression)
        expected = {
            "template": (vertices, 3),
            "faces": (faces, 3),
            "identity": (modes, vertices, 3),
            "expression": (rows, vertices, 3),
            "part": (vertices,),
            "torso_weight": (vertices,),
            "eye_centers": (2, 3),
            "eye_centers_identity": (modes, 2, 3),
            "uv_faces": (faces, 3),
            "landmark_faces": (LANDMARK_COUNT,),
            "landmark_bary": (LANDMARK_COUNT, 3),
            "landmark_sigma": (LANDMARK_COUNT,),
        }
        for field, shape in expected.items():
            actual = getattr(self, field).shape
            if actual != shape:
                raise UserError(
                    f"Head model {self.name!r} is damaged: {field} has shape {actual}, "
                    f"expected {shape}; run `avatar3d assets rebuild`."
                )
        if self.expression_names[:52] != ARKIT_52 or len(self.expression_names) != rows:
            raise UserError(
                f"Head model {self.name!r} is damaged: its first 52 expressions are not the ARKit "
                "names in order; run `avatar3d assets rebuild`."
            )

    @property
    def residual_count(self) -> int:
        """R, the number of expression rows after the 52 ARKit ones."""
        return len(self.expression) - 52

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the model; tracking made with one model must not be used with another.

        A built model is known by its recipe, because its last bits differ from machine to machine.
        """
        digest = hashlib.sha256(self.recipe.encode())
        if self.recipe:
            return digest.hexdigest()[:16]
        for array in (self.template, self.faces, self.identity, self.expression):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def shaped(
        self, identity: np.ndarray, landmark_offsets: np.ndarray | None = None
    ) -> "ShapedHead":
        """The neutral head of one person.

        Args:
            identity: (I',) coefficients, I' <= I.
            landmark_offsets: (478, 3) metres, personal corrections at the landmarks, spread
                smoothly over the nearby face.
        """
        coefficients = np.asarray(identity, np.float32)
        count = len(coefficients)
        vertices = self.template.astype(np.float32) + np.tensordot(
            coefficients, self.identity[:count].astype(np.float32), 1
        )
        eyes = self.eye_centers + np.tensordot(coefficients, self.eye_centers_identity[:count], 1)
        if landmark_offsets is not None:
            vertices = vertices + self._spread_offsets(vertices, landmark_offsets)
        return ShapedHead(self, vertices, eyes.astype(np.float32))

    def _spread_offsets(self, vertices: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Gaussian-weighted average (sigma 5 mm) of landmark offsets at the skin around them."""
        count = 468  # the iris points belong to the eyeballs, which must stay spheres
        points = self.landmarks_of(vertices)[:count].astype(np.float64)
        skin = np.isin(self.part, [PARTS.index("face"), PARTS.index("lips")])
        places = vertices[skin].astype(np.float64)
        squared = (places**2).sum(1)[:, None] + (points**2).sum(1) - 2 * places @ points.T
        weight = np.exp((squared / (-2 * 0.005**2)).astype(np.float32))
        spread = np.zeros_like(vertices)
        spread[skin] = (weight @ offsets[:count]) / (weight.sum(1, keepdims=True) + 0.3)
        return spread

    def landmarks_of(self, vertices: np.ndarray) -> np.ndarray:
        """The 478 landmark points (..., 478, 3) on posed or unposed vertices (..., V, 3)."""
        corners = vertices[..., self.faces[self.landmark_faces], :]
        return (corners * self.landmark_bary[:, :, None]).sum(-2)

    def save(self, path: str | Path) -> None:
        """Write the model as a compressed npz; displacement fields are kept in half precision."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        for field in ("identity", "expression"):
            arrays[field] = arrays[field].astype(np.float16)
        arrays["expression_names"] = np.array(self.expression_names)
        for field in ("name", "recipe"):
            arrays[field] = np.array(arrays[field])
        write_arrays(path, {"format_version": np.array(FORMAT_VERSION), **arrays})

    @classmethod
    def load(cls, path: str | Path) -> "HeadModel":
        """Read what `save` wrote. No pickled objects are accepted.

        Raises:
            UserError: the file is missing, damaged or of another version.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                if int(data["format_version"]) != FORMAT_VERSION:
                    raise ValueError(f"format {int(data['format_version'])}")
                arrays = {f.name: data[f.name] for f in fields(cls)}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"Cannot read the head model {path} ({error}); run `avatar3d assets rebuild`."
            ) from error
        for field in ("name", "recipe"):
            arrays[field] = str(arrays[field])
        arrays["expression_names"] = tuple(str(name) for name in arrays["expression_names"])
        for field in ("identity", "expression"):
            arrays[field] = arrays[field].astype(np.float32)
        return cls(**arrays)


@dataclass(frozen=True)
class ShapedHead:
    """One person's neutral head.

    Attributes:
        model: the statistical model it came from.
        vertices: (V, 3) metres, neutral, head frame.
        eye_centers: (2, 3) left, right.
    """

    model: HeadModel
    vertices: np.ndarray
    eye_centers: np.ndarray

    @cached_property
    def expression(self) -> np.ndarray:
        """(E, V, 3) rows of this person: those of the model, with blinks that close these eyes."""
        return personal_rows(self.model, self.vertices)

    def posed(self, expression: np.ndarray, gaze: np.ndarray | None = None) -> np.ndarray:
        """Vertices (V, 3) in the head frame.

        Args:
            expression: (52,) ARKit weights or (E,) with the residual rows.
            gaze: (2, 2) radians, rows left and right eye, columns yaw (positive to the person's
                left) and pitch (positive up); default straight ahead.
        """
        weights = np.asarray(expression, np.float32)
        moved = np.tensordot(weights, self.expression[: len(weights)], 1)
        vertices = self.vertices + moved
        if gaze is not None:
            for eye, part in enumerate(("eye_left", "eye_right")):
                chosen = self.model.part == PARTS.index(part)
                center = self.eye_centers[eye]
                vertices[chosen] = (vertices[chosen] - center) @ eye_rotation(*gaze[eye]).T + center
        return vertices


def eye_rotation(yaw: float, pitch: float) -> np.ndarray:
    """Rotation (3, 3) of an eyeball: yaw to the person's left, then pitch up, in radians."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(-pitch), np.sin(-pitch)
    around_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]], np.float32)
    around_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]], np.float32)
    return around_y @ around_x
