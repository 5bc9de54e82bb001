"""Figures that need somebody's trained network: identity, FID, SyncNet, OpenFace.

Nothing is downloaded here. What is missing is named in `skipped`, with what to do about it.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from avatar3d import assets
from avatar3d.capture.landmarks import Face
from avatar3d.errors import UserError
from avatar3d.evaluation import faces
from avatar3d.evaluation.config import EvaluationConfig
from avatar3d.evaluation.frechet import Features, frechet_distance

__all__ = ["NO_IDENTITY", "Embed", "Judges", "cosine", "identity_network"]

Embed = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From a picture (H, W, 3) uint8 and the landmarks in it to a descriptor."""
_IDENTITY = ("face-identity", "face-identity-layout")
NO_IDENTITY = (
    "CSIM, whether it is the same person: `avatar3d assets fetch face-identity` and "
    "`face-identity-layout`, or identity_model=FILE (ArcFace as ONNX)"
)
_ARC_SIDE = 112
_ARC_PLACES = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655),
     (70.7299, 92.2041)]
)  # fmt: skip
"""Where ArcFace's networks want the eyes, the nose and the corners of the mouth, in pixels."""
_EYES = ((33, 133), (362, 263))  # of the mesh: corners of the eye on the left of the picture, right
_NOSE, _CORNERS = 1, (61, 291)


class Judges:
    """Takes pairs of pictures in order; afterwards says what the networks make of all of them."""

    def __init__(self, config: EvaluationConfig, fps: float) -> None:
        self.fps = fps
        self.skipped: list[str] = []
        self._identity = identity_network(config)
        if self._identity is None:
            self.skipped.append(NO_IDENTITY)
        self._features = Features(config.fid_model) if config.fid_model else None
        if self._features is None:
            self.skipped.append("FID: no weights; name an ONNX file with fid_model=FILE")
        self._network = None
        if config.syncnet:
            from avatar3d.evaluation.syncnet import load_syncnet

            self._network = load_syncnet(config.syncnet)
        else:
            self.skipped.append(
                "LSE-C, LSE-D: no weights of SyncNet; name a safetensors file with syncnet=FILE"
            )
        self._tables = (config.openface_render, config.openface_recording)
        self._seen: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._shown: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._boxes: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])

    def add(
        self, image: np.ndarray, truth: np.ndarray, pair: tuple[Face, Face] | None
    ) -> dict[str, float]:
        """Per-frame figures of (H, W, 3) uint8 pictures with the faces found in both."""
        scores = {}
        if self._features is not None:
            for kept, picture in zip(self._seen, (image, truth), strict=True):
                kept.append(self._features(picture.astype(np.float32) / 255))
        if self._network is not None and pair is not None:
            for shown, boxes, picture, face in zip(
                self._shown, self._boxes, (image, truth), pair, strict=True
            ):
                shown.append(picture)
                points = face.points[:468, :2]
                boxes.append(np.concatenate([points.min(0), points.max(0)]))
        if self._identity is not None:
            scores["csim"] = math.nan
            if pair is not None:
                ours, theirs = (
                    self._identity(picture, face.points)
                    for picture, face in zip((image, truth), pair, strict=True)
                )
                scores["csim"] = cosine(ours, theirs)
        return scores

    def figures(
        self, samples: np.ndarray | None, frames: range
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Of all pictures together, and the recording's own, given the sound of the frames."""
        found: dict[str, float] = {}
        recorded: dict[str, float] = {}
        if self._features is not None and len(self._seen[0]) > 1:
            found["fid"] = frechet_distance(*(np.stack(rows) for rows in self._seen))
        if all(self._tables):
            found |= _openface(self._tables, frames)
        if self._network is not None:
            if samples is None or len(self._shown[0]) < len(frames):
                self.skipped.append("LSE-C, LSE-D: no sound, or frames without a face")
            else:
                found |= self._synced(0, samples)
                recorded = self._synced(1, samples)
        return found, recorded

    def _synced(self, side: int, samples: np.ndarray) -> dict[str, float]:
        from avatar3d.evaluation.syncnet import FPS, face_crops, sync_scores

        assert self._network is not None
        count = len(self._shown[side])
        moments = np.arange(int(count / self.fps * FPS)) * self.fps / FPS
        some = np.minimum(moments.round().astype(int), count - 1)
        images, boxes = (np.stack(rows[side])[some] for rows in (self._shown, self._boxes))
        return sync_scores(self._network, face_crops(images, boxes), samples)


def identity_network(config: EvaluationConfig) -> Embed | None:
    """From the settings, else from the assets already here; None without any."""
    if config.identity_model:
        return _ArcFace(config.identity_model)
    states = {status.name: status.state for status in assets.list_assets()}
    if any(states[name] != "ready" for name in _IDENTITY):
        return None
    from avatar3d.capture.identity import load_identity

    return load_identity()


class _ArcFace:
    """Any network of insightface's kind: 112x112 RGB, (x - 127.5) / 127.5."""

    def __init__(self, path: str) -> None:
        self._features = Features(path, _ARC_SIDE)

    def __call__(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        import cv2

        eyes = [points[list(corners), :2].mean(0) for corners in _EYES]
        places = np.stack([*eyes, points[_NOSE, :2], *points[list(_CORNERS), :2]])
        matrix, _ = cv2.estimateAffinePartial2D(places, _ARC_PLACES, method=cv2.LMEDS)
        if matrix is None:
            return np.full(self._features.dimensions, np.nan)
        chip = cv2.warpAffine(image, matrix, (_ARC_SIDE, _ARC_SIDE))
        return self._features((chip.astype(np.float32) - 127.5) / 127.5)


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Of the angle between two descriptors (D,); NaN where one is zero."""
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / size if size > 0 else math.nan


def _openface(paths: Sequence[str], frames: range) -> dict[str, float]:
    """AUE of two tables of OpenFace, of the frames or of the whole clip."""
    tables = []
    for path in paths:
        units = faces.read_openface(path)
        rows = len(next(iter(units.values())))
        if rows == len(frames):
            tables.append(units)
        elif rows >= frames.stop:
            tables.append({unit: grades[frames.start : frames.stop] for unit, grades in
                           units.items()})  # fmt: skip
        else:
            raise UserError(
                f"{Path(path)} has {rows} rows, but there are {len(frames)} test frames; run "
                "OpenFace on the test frames, or on the whole clip."
            )
    return {f"openface_{name}": value for name, value in faces.unit_error(*tables).items()}
