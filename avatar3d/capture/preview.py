"""Pictures for a person to judge a capture by."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from avatar3d.capture.parallel import parallel_map
from avatar3d.cores import available_cores
from avatar3d.head import HeadModel, ShapedHead
from avatar3d.head.model import PARTS, eye_rotation
from avatar3d.io.video import write_video
from avatar3d.progress import track
from avatar3d.subject import Subject, Tracking

__all__ = ["contact_sheet", "overlay_row", "posed_camera_points", "preview_video"]

_GAZE_REACH = (0.016, 0.075)  # metres from the middle of the eyeball
_WIRE = 0.35
"""Opacity of the mesh."""
_GREEN = np.array([40, 200, 60], np.float32)
_COLORS = np.array(
    [
        (0, 0, 0), (230, 180, 150), (40, 120, 255), (40, 220, 255), (120, 60, 20), (255, 140, 80),
        (230, 30, 60), (90, 0, 30), (255, 255, 255), (90, 60, 160), (255, 220, 60), (190, 130, 100),
        (60, 150, 90),
    ],
    np.uint8,
)  # fmt: skip


def preview_video(subject: Subject, head: HeadModel, path: str | Path) -> None:
    """Write a video with sound of what capture understood: `overlay_row` of every frame."""
    tracking, count = subject.tracking, len(subject)
    shaped = head.shaped(tracking.identity, tracking.landmark_offsets)

    def row(index: int) -> np.ndarray:
        pictures = subject.frame(index), subject.matte(index), subject.parsing(index)
        return overlay_row(shaped, tracking, index, *pictures)

    rows = parallel_map(row, range(count), available_cores())
    write_video(
        path,
        track(rows, "Drawing the preview", count),
        subject.fps,
        subject.audio_path,
        synthetic=False,
    )


def contact_sheet(
    head: HeadModel,
    tracking: Tracking,
    frame: Callable[[int], np.ndarray],
    matte: Callable[[int], np.ndarray],
    parsing: Callable[[int], np.ndarray],
    background: np.ndarray,
    frames: np.ndarray,
) -> np.ndarray:
    """One row per frame: picture, landmarks and mesh, person on green, labels. uint8 RGB.

    The last row is the empty background. `frame`, `matte` and `parsing` give the images by index.
    """
    shaped = head.shaped(tracking.identity, tracking.landmark_offsets)
    rows = []
    for index in map(int, frames):
        pictures = frame(index), matte(index), parsing(index)
        rows.append(overlay_row(shaped, tracking, index, *pictures))
    plate = np.pad(background, ((0, 0), (0, 3 * background.shape[1]), (0, 0)))
    return np.vstack([*rows, plate])


def overlay_row(
    shaped: ShapedHead,
    tracking: Tracking,
    index: int,
    image: np.ndarray,
    matte: np.ndarray,
    labels: np.ndarray,
) -> np.ndarray:
    """(H, 4 W, 3) uint8: the picture; mesh, landmarks (red detected, green fitted) and gaze; the
    person on green; the labels in colours."""
    alpha = matte[..., None] / 255.0
    on_green = (image * alpha + _GREEN * (1 - alpha)).astype(np.uint8)
    colors = (0.35 * image + 0.65 * _COLORS[labels]).astype(np.uint8)
    return np.hstack([image, _overlay(image, shaped, tracking, index), on_green, colors])


def posed_camera_points(shaped: ShapedHead, tracking: Tracking, index: int) -> np.ndarray:
    """Vertices (V, 3) of one frame in the camera frame, metres; the neck follows the shoulders."""
    points = shaped.posed(tracking.weights[index], tracking.gaze[index])
    weight = shaped.model.torso_weight[:, None]
    head, torso = tracking.T_camera_head[index], tracking.T_camera_torso[index]
    with_head = points @ head[:3, :3].T + head[:3, 3]
    with_torso = points @ torso[:3, :3].T + torso[:3, 3]
    return (1 - weight) * with_head + weight * with_torso


def _overlay(image: np.ndarray, shaped: ShapedHead, tracking: Tracking, index: int) -> np.ndarray:
    import cv2

    zoom = 2
    canvas = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
    points = posed_camera_points(shaped, tracking, index)
    pixels = tracking.camera.project(points)
    faces = shaped.model.faces[_wire_faces(shaped.model)]
    a, b, c = (pixels[faces[:, i]] for i in range(3))
    front = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] < 0
    lines = np.round(pixels[faces[front]] * zoom * 16 - 8).astype(np.int32)
    wires = canvas.copy()
    cv2.polylines(wires, list(lines), True, (120, 200, 255), 1, cv2.LINE_AA, shift=4)
    # The mesh is finest around eyes and mouth, where the face has to show through the most.
    canvas = cv2.addWeighted(wires, _WIRE, canvas, 1 - _WIRE, 0)
    for points2d, color in (
        (tracking.landmarks[index], (255, 40, 40)),
        (tracking.landmarks_fit[index], (60, 255, 60)),
    ):
        for x, y in points2d:
            center = (round(x * zoom * 16 - 8), round(y * zoom * 16 - 8))
            cv2.circle(canvas, center, 24, color, -1, cv2.LINE_AA, shift=4)
    for start, end in np.round(_gaze_rays(shaped, tracking, index) * zoom * 16 - 8).astype(int):
        cv2.arrowedLine(
            canvas, tuple(map(int, start)), tuple(map(int, end)), (255, 230, 0), 2 * zoom,
            cv2.LINE_AA, shift=4, tipLength=0.25,
        )  # fmt: skip
    return cv2.resize(canvas, image.shape[1::-1], interpolation=cv2.INTER_AREA)


def _gaze_rays(shaped: ShapedHead, tracking: Tracking, index: int) -> np.ndarray:
    """(2, 2, 2) pixels: where the view of the left and the right eye starts and leads to."""
    pose = tracking.T_camera_head[index]
    rays = []
    for eye, center in enumerate(shaped.eye_centers):
        forward = eye_rotation(*tracking.gaze[index, eye])[:, 2]
        rays.append([center + reach * forward for reach in _GAZE_REACH])
    points = np.array(rays) @ pose[:3, :3].T + pose[:3, 3]
    return tracking.camera.project(points.reshape(-1, 3)).reshape(2, 2, 2)


def _wire_faces(head: HeadModel) -> np.ndarray:
    names = ("face", "lips", "neck", "shoulders", "ears")
    shown = np.isin(head.part, [PARTS.index(name) for name in names])
    return np.flatnonzero(shown[head.faces].all(1))
