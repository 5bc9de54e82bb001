"""SplatState: everything a splat avatar is, as plain arrays shared by files and renderers."""

from dataclasses import dataclass, fields

import numpy as np

from avatar3d.errors import UserError

__all__ = ["SH_C0", "SplatState"]

MAX_SIDE = 16384
SH_C0 = 0.28209479177387814
"""Zeroth spherical-harmonic constant: INRIA PLY stores f_dc = (rgb - 0.5) / SH_C0."""


@dataclass
class SplatState:
    """An animated Gaussian head. N Gaussians, V vertices, F triangles, E expression rows.

    The head's vertices are `vertices + sum_e weight_e * expression[e]`, eyeballs then rotated
    about `eye_centers` by the gaze. A Gaussian with `face >= 0` sits at the barycentric point of
    its triangle, displaced by `position` in the triangle's frame, whose unit columns are u (first
    edge), n x u, and n (outward normal). A Gaussian with `face == -1` has its `position` in the
    rest frame and moves with the torso. Its skinning weight to the torso is the barycentric mean of
    `torso_weight` (1 for face == -1): camera point = (1 - w) T_camera_head x + w T_camera_torso x,
    and its rotation is that of the head for w < 0.5, otherwise that of the torso.

    Blendshapes: attributes a (position 3, quat 4, color 3) become `a + basis @ w` with
    `w = limit * tanh((map @ (x - mean) + bias) / limit)` and `x = concat(expression weights (E),
    gaze (4: left yaw, pitch, right yaw, pitch))` clamped to [signal_min, signal_max], the range
    seen in training: beyond it the blendshapes know nothing and would only add noise. The first
    `len(basis)` Gaussians have a basis.

    Attributes:
        vertices (V, 3), expression (E, V, 3), faces (F, 3) int32, torso_weight (V,),
        eye (V,) uint8: 0 none, 1 left, 2 right; eye_centers (2, 3). Metres, head frame.
        face (N,) int32; bary (N, 3); part (N,) uint8 index into `SplatState.PARTS`.
        position (N, 3) metres; quat (N, 4) wxyz; log_scale (N, 3) of metres; opacity (N,) logit;
        color (N, 3) sRGB.
        basis (B, 10, K); map (K, E + 4); mean, signal_min, signal_max (E + 4,); bias (K,);
        limit scalar.
        T_camera_rest (4, 4); K_matrix (3, 3) pixels; size (2,) width, height.
        torso_map (12, 6), torso_limit (6,): prediction of the torso pose; see
            `avatar3d.avatar.torso`.
    """

    vertices: np.ndarray
    expression: np.ndarray
    faces: np.ndarray
    torso_weight: np.ndarray
    eye: np.ndarray
    eye_centers: np.ndarray
    face: np.ndarray
    bary: np.ndarray
    part: np.ndarray
    position: np.ndarray
    quat: np.ndarray
    log_scale: np.ndarray
    opacity: np.ndarray
    color: np.ndarray
    basis: np.ndarray
    map: np.ndarray
    mean: np.ndarray
    bias: np.ndarray
    limit: np.ndarray
    T_camera_rest: np.ndarray
    K_matrix: np.ndarray
    size: np.ndarray
    signal_min: np.ndarray
    signal_max: np.ndarray
    torso_map: np.ndarray
    torso_limit: np.ndarray

    PARTS = ("skin", "eyes", "mouth", "hair", "torso")

    def __len__(self) -> int:
        return len(self.position)

    def validate(self) -> None:
        """Raise UserError if shapes, indices or values are inconsistent."""
        n, v, e = len(self.position), len(self.vertices), len(self.expression)
        b, k = self.basis.shape[0], self.basis.shape[-1]
        shapes = {
            "vertices": (v, 3), "expression": (e, v, 3), "faces": (len(self.faces), 3),
            "torso_weight": (v,), "eye": (v,), "eye_centers": (2, 3), "face": (n,),
            "bary": (n, 3), "part": (n,), "position": (n, 3), "quat": (n, 4),
            "log_scale": (n, 3), "opacity": (n,), "color": (n, 3), "basis": (b, 10, k),
            "map": (k, e + 4), "mean": (e + 4,), "bias": (k,), "limit": (), "T_camera_rest": (4, 4),
            "K_matrix": (3, 3), "size": (2,), "torso_map": (12, 6), "torso_limit": (6,),
            "signal_min": (e + 4,), "signal_max": (e + 4,),
        }  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise UserError(
                    f"The avatar is damaged: {name} has shape {getattr(self, name).shape}, "
                    f"expected {shape}."
                )
        for f in fields(self):
            if not np.isfinite(getattr(self, f.name)).all():
                raise UserError(f"The avatar is damaged: {f.name} has non-finite values.")
        if not (self.size.min() >= 1 and self.size.max() <= MAX_SIDE):
            raise UserError(f"The avatar is damaged: its picture is {self.size} pixels.")
        for name, limit in (("faces", v), ("face", len(self.faces))):
            indices = getattr(self, name)
            lowest = -1 if name == "face" else 0
            if indices.size and (indices.min() < lowest or indices.max() >= limit):
                raise UserError(f"The avatar is damaged: {name} points outside its table.")
