"""Which part of the picture to keep: a first quick look at the clip, before any long work."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.landmarks import face_boxes
from avatar3d.capture.parallel import silenced
from avatar3d.capture.workspace import RejectedClip
from avatar3d.io.video import VideoInfo, probe, read_frames

__all__ = ["MIN_FRAMES", "Framing", "inspect_clip", "no_face"]

MIN_FRAMES = 10
_LOOKS = 48
_FACE_SHARE = 0.36
"""Height of mediapipe's face box (brows to chin) as a share of the cropped square."""


@dataclass(frozen=True)
class Framing:
    """The crop and what the first look found.

    Attributes:
        fps: constant rate of the captured frames.
        crop: left, top, width, height in pixels of the source picture.
        width, height: size of the captured frames.
        face: left, top, right, bottom of the main face, in pixels of the captured frames.
        faces: most faces seen at once.
        info: what the file declares.
    """

    fps: float
    crop: tuple[int, int, int, int]
    width: int
    height: int
    face: tuple[float, float, float, float]
    faces: int
    info: VideoInfo


def inspect_clip(path: Path, config: CaptureConfig) -> Framing:
    """Decode the clip once, look for faces in some of the frames and choose the crop.

    Raises:
        RejectedClip: fewer than `MIN_FRAMES` frames or no face.
        UserError: the file cannot be read to its end.
    """
    info = probe(path)
    fps = info.fps / np.ceil(info.fps / config.max_fps - 1e-3)
    length = config.duration or max(info.duration - config.start, 1 / fps)
    every = max(1, int(length * fps) // _LOOKS)
    boxes: list[np.ndarray] = []
    count, looks, most, size = 0, 0, 0, (info.height, info.width)
    with silenced():
        detect = face_boxes()
    for image in read_frames(path, fps, config.start, config.duration):
        if count % every == 0:
            looks += 1
            every = every * 2 if looks % (2 * _LOOKS) == 0 else every  # longer than declared
            found = detect(image)
            most = max(most, len(found))
            boxes.extend(found[:1] if not boxes else [_nearest(found, boxes[-1])] if found else [])
            size = (image.shape[0], image.shape[1])
        count += 1
    if count < MIN_FRAMES:
        raise RejectedClip(
            f"{path} has only {count} frame{'s' * (count != 1)}; capture needs at least "
            f"{MIN_FRAMES}, better 10 seconds."
        )
    if not boxes:
        raise RejectedClip(no_face(path))
    stacked = np.array(boxes)
    crop = _crop(stacked, size[1], size[0], config)
    scale = min(1.0, config.size / max(crop[2:]))
    width, height = round(crop[2] * scale), round(crop[3] * scale)
    face = (np.median(stacked, 0) - np.array([*crop[:2], *crop[:2]])) * scale
    return Framing(float(fps), crop, width, height, tuple(face.tolist()), most, info)


def no_face(path: Path) -> str:
    """The sentence for a clip without anybody."""
    return (
        f"No face was found in {path}; use a clip that shows one person's face well lit and from "
        "the front."
    )


def _crop(
    boxes: np.ndarray, width: int, height: int, config: CaptureConfig
) -> tuple[int, int, int, int]:
    """Left, top, width, height."""
    whole = (0, 0, width, height)
    small = max(width, height) <= 1.25 * config.size
    squarish = max(width, height) <= 1.34 * min(width, height)
    if config.crop == "none" or (config.crop == "auto" and small and squarish):
        return whole
    face_height = float(np.median(boxes[:, 3] - boxes[:, 1]))
    left, top = np.percentile(boxes[:, :2], 3, axis=0)
    right, bottom = np.percentile(boxes[:, 2:], 97, axis=0)
    side = max(face_height / _FACE_SHARE, (right - left) * 1.5, (bottom - top) * 1.7)
    side = int(min(round(side), width, height))
    center_x, center_y = (left + right) / 2, (top + bottom) / 2 + 0.06 * side
    x = int(np.clip(round(center_x - side / 2), 0, width - side))
    y = int(np.clip(round(center_y - side / 2), 0, height - side))
    return x, y, side, side


def _nearest(found: list[np.ndarray], previous: np.ndarray) -> np.ndarray:
    center = previous[:2] + previous[2:]
    return min(found, key=lambda box: float(np.linalg.norm(box[:2] + box[2:] - center)))
