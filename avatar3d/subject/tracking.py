"""What capture knows about the head in every frame (`tracking.npz`)."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.geometry import Camera
from avatar3d.io.arrays import read_arrays, write_arrays
from avatar3d.motion.motion import Motion

__all__ = ["FRAME_REASONS", "Tracking"]

FORMAT_VERSION = 1
_MAX_BYTES = 1 << 32  # unpacked; an hour at 60 frames a second takes a third of it
FRAME_REASONS: tuple[str, ...] = (
    "", "no face", "other person", "second face", "other view", "hidden mouth", "poor fit",
)  # fmt: skip
"""Why training must not use a frame; values of `Tracking.reasons` index it, 0 is usable."""
_OPTIONAL = ("segments", "reasons")


@dataclass(frozen=True)
class Tracking:
    """Head geometry of T frames of W x H pixels. Metres, radians, OpenCV camera axes.

    Attributes:
        head_model: name of the `HeadModel`; head_model_fingerprint: its `fingerprint`.
        K: (3, 3) intrinsics in pixels; size: (2,) int, width and height.
        identity: (I,) coefficients; landmark_offsets: (478, 3) personal offsets, metres.
        T_camera_rest: (4, 4) the rest pose: a rigid mean of the head pose over the clip.
        T_camera_head: (T, 4, 4) head frame to camera frame.
        T_camera_torso: (T, 4, 4) likewise for the shoulders, which at rest coincide with the head
            frame: `T_camera_torso = T_camera_rest` where the torso has not moved.
        expression: (T, 52) ARKit weights; residual: (T, R) the head model's further rows.
        gaze: (T, 2, 2) eye (left, right) x (yaw to the person's left, pitch up).
        landmarks: (T, 478, 2) detected, pixels.
        landmarks_fit: (T, 478, 2) the fitted model's landmarks, pixels.
        confidence: (T,) in [0, 1]; valid: (T,) bool, frames that training may use.
        segments: (T,) int32, number of the shot: nothing is smooth across a change; default one.
        reasons: (T,) uint8, index into `FRAME_REASONS`; default "poor fit" where not valid.
    """

    head_model: str
    head_model_fingerprint: str
    K: np.ndarray
    size: np.ndarray
    identity: np.ndarray
    landmark_offsets: np.ndarray
    T_camera_rest: np.ndarray
    T_camera_head: np.ndarray
    T_camera_torso: np.ndarray
    expression: np.ndarray
    residual: np.ndarray
    gaze: np.ndarray
    landmarks: np.ndarray
    landmarks_fit: np.ndarray
    confidence: np.ndarray
    valid: np.ndarray
    segments: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    reasons: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))

    def __post_init__(self) -> None:
        frames = len(self.T_camera_head)
        if frames and not len(self.segments):
            object.__setattr__(self, "segments", np.zeros(frames, np.int32))
        if frames and not len(self.reasons):
            poor = FRAME_REASONS.index("poor fit")
            object.__setattr__(self, "reasons", np.where(self.valid, 0, poor).astype(np.uint8))
        for name in (
            "T_camera_torso", "expression", "residual", "gaze", "landmarks", "landmarks_fit",
            "confidence", "valid", *_OPTIONAL,
        ):  # fmt: skip
            if len(getattr(self, name)) != frames:
                raise UserError(
                    f"The tracking is damaged: {name} has {len(getattr(self, name))} frames, "
                    f"T_camera_head has {frames}; run `avatar3d capture` again."
                )
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray) and not np.isfinite(value).all():
                raise UserError(
                    f"The tracking is damaged: {f.name} has non-finite values; "
                    "run `avatar3d capture` again."
                )

    def __len__(self) -> int:
        return len(self.T_camera_head)

    @property
    def camera(self) -> Camera:
        return Camera(self.K, int(self.size[0]), int(self.size[1]))

    @property
    def weights(self) -> np.ndarray:
        """(T, 52 + R) weights of all expression rows of the head model."""
        return np.concatenate([self.expression, self.residual], axis=1)

    def motion(self, fps: float) -> Motion:
        """The captured performance as a Motion relative to the rest pose."""
        inverse = np.linalg.inv(self.T_camera_rest)
        return Motion(
            fps=fps,
            expression=self.expression,
            residual=self.residual,
            head_pose=inverse @ self.T_camera_head,
            torso_pose=inverse @ self.T_camera_torso,
            gaze=self.gaze,
            source="capture",
        )

    def save(self, path: str | Path) -> None:
        arrays = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        write_arrays(path, {"format_version": np.array(FORMAT_VERSION), **arrays})

    @classmethod
    def load(cls, path: str | Path) -> "Tracking":
        """Raises UserError when the file is missing, damaged or of another version."""
        try:
            data = read_arrays(path, _MAX_BYTES)
            if int(data["format_version"]) != FORMAT_VERSION:
                raise ValueError(f"format {int(data['format_version'])}")
            names = [f.name for f in fields(cls) if f.name not in _OPTIONAL]
            arrays: dict[str, Any] = {name: data[name] for name in names}
            arrays |= {name: data[name] for name in _OPTIONAL if name in data}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"Cannot read the tracking {path} ({error}); run `avatar3d capture` again."
            ) from error
        for name in ("head_model", "head_model_fingerprint"):
            arrays[name] = str(arrays[name])
        return cls(**arrays)
