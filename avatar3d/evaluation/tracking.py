"""How good a tracking is: against the landmarks it was fitted to, and against known truth."""

from typing import Any

import numpy as np

from avatar3d.capture.report import quality_numbers
from avatar3d.head import HeadModel, ShapedHead
from avatar3d.head.landmarks import EYE_LEFT, EYE_RIGHT, LIPS, eye_aperture, lip_gap
from avatar3d.head.model import PARTS
from avatar3d.subject import PARSING_LABELS, Subject, Tracking
from avatar3d.synth import SyntheticClip

__all__ = [
    "expression_error", "lag", "landmark_figures", "picture_figures", "rotation_error",
    "still_jitter", "truth_figures",
]  # fmt: skip

_NEAR = 0.008
"""Metres around the landmarks of lips and lids that count as their surroundings."""


def landmark_figures(tracking: Tracking, fps: float) -> dict[str, Any]:
    """Residuals in pixels at 512 (medians over the valid frames), amplitude ratios, stillness.

    A gain is the least-squares slope of the fitted measure against the detected one; an amplitude
    compares what the measures run through between their 1st and 99th percentile.
    """
    numbers = quality_numbers(tracking, fps)
    detected, fitted = tracking.landmarks[tracking.valid], tracking.landmarks_fit[tracking.valid]
    figures = {f"{name}_px": value for name, value in numbers["error_px_at_512"].items()}
    return figures | {
        "aperture_gain": numbers["eye_aperture_ratio"],
        "aperture_amplitude": _amplitude(eye_aperture(detected), eye_aperture(fitted)),
        "lip_gap_gain": numbers["lip_gap_ratio"],
        "lip_gap_amplitude": _amplitude(lip_gap(detected)[:, None], lip_gap(fitted)[:, None]),
        "still_jitter_degrees": still_jitter(tracking.T_camera_head, fps),
    }


def truth_figures(tracking: Tracking, head: HeadModel, clip: SyntheticClip) -> dict[str, Any]:
    """Medians over the frames of a capture of `clip`, made with `head`, against its truth.

    A face that is tilted inside its head frame looks the same in a rotation that makes up for it,
    so `rotation_of_face_degrees` compares rotations of the two faces, rigidly aligned in neutral;
    `rotation_varying_degrees` leaves out whatever turn is the same in all frames.
    """
    own, truth = tracking.T_camera_head, clip.T_camera_head
    person = head.shaped(tracking.identity, tracking.landmark_offsets)
    tilt = _tilt(
        *(shaped.model.landmarks_of(shaped.vertices)[:468] for shaped in (person, clip.shaped))
    )
    figures: dict[str, Any] = {
        "rotation_degrees": float(np.median(rotation_error(own, truth))),
        "rotation_of_face_degrees": float(np.median(rotation_error(own, truth @ tilt))),
        "rotation_varying_degrees": float(
            np.median(rotation_error(own, truth @ _mean(own, truth)))
        ),
    }
    for name, error in expression_error(
        person, tracking.weights, clip.shaped, clip.expression
    ).items():
        figures[f"{name}_mm"] = float(np.median(error)) * 1e3
    gaze = np.degrees(_gaze_angle(tracking.gaze, clip.gaze))
    figures["gaze_degrees"] = float(np.median(gaze))
    own, truth = tracking.landmarks_fit, clip.landmarks
    figures["lag_lips_frames"] = lag(lip_gap(own), lip_gap(truth))
    figures["lag_lids_frames"] = lag(eye_aperture(own).mean(1), eye_aperture(truth).mean(1))
    own, truth = (
        np.arctan2(T[:, 0, 2], T[:, 2, 2]) for T in (tracking.T_camera_head, clip.T_camera_head)
    )
    figures["lag_yaw_frames"] = lag(own, truth)
    return figures


def picture_figures(subject: Subject, clip: SyntheticClip, frames: np.ndarray) -> dict[str, Any]:
    """Intersection over union of mattes and labels against the truth, over some frames.

    The labels' mean is over those that the truth shows at all.
    """
    count = len(PARSING_LABELS)
    confusion = np.zeros((count, count))
    both = either = 0
    for index in map(int, frames):
        truth = clip.picture(index)
        person, own = truth.alpha > 0.5, subject.matte(index) > 127
        both, either = both + int((person & own).sum()), either + int((person | own).sum())
        pairs = truth.label.astype(int) * count + subject.parsing(index)
        confusion += np.bincount(pairs.ravel(), minlength=count**2).reshape(count, count)
    shown = confusion.sum(1) > 0
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    each = confusion.diagonal()[shown] / union[shown]
    names = [name for name, there in zip(PARSING_LABELS, shown, strict=True) if there]
    return {
        "matte_iou": both / max(either, 1),
        "parsing_mean_iou": float(each.mean()),
        "parsing_iou": {name: round(float(v), 3) for name, v in zip(names, each, strict=True)},
    }


def rotation_error(own: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(T,) degrees between the rotations of poses (T, 4, 4)."""
    product = np.einsum("tij,tij->t", own[:, :3, :3], truth[:, :3, :3])
    return np.degrees(np.arccos(np.clip((product - 1) / 2, -1, 1)))


def expression_error(
    person: ShapedHead, own: np.ndarray, truth_person: ShapedHead, truth: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean distance (T,) in metres between displacements from neutral, near lips and near lids.

    Args:
        person, truth_person: heads of the same topology.
        own, truth: (T, E), (T, E') weights of their expression rows.
    """
    head = person.model
    marks, corners = head.landmarks_of(head.template), head.template
    skin = np.isin(head.part, [PARTS.index("face"), PARTS.index("lips")])
    result = {}
    for name, indices in (("lips", LIPS), ("lids", EYE_LEFT + EYE_RIGHT)):
        away = np.linalg.norm(corners[:, None] - marks[list(indices)], axis=-1).min(1)
        chosen = np.flatnonzero(skin & (away < _NEAR))
        moved = np.tensordot(own, person.expression[: own.shape[1], chosen], 1)
        moved = moved - np.tensordot(truth, truth_person.expression[: truth.shape[1], chosen], 1)
        result[name] = np.linalg.norm(moved, axis=-1).mean(1)
    return result


def _tilt(own: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(4, 4) rotation that best takes points (N, 3) to others, apart from place and size."""
    result = np.eye(4)
    result[:3, :3] = _nearest_rotation((truth - truth.mean(0)).T @ (own - own.mean(0)))
    return result


def _mean(own: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(4, 4) mean rotation from the head frame of poses (T, 4, 4) into that of others."""
    result = np.eye(4)
    turns = truth[:, :3, :3].transpose(0, 2, 1) @ own[:, :3, :3]
    result[:3, :3] = _nearest_rotation(turns.mean(0))
    return result


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(matrix)
    return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt


def still_jitter(poses: np.ndarray, fps: float) -> float:
    """Degrees: spread of the rotation's second differences in the stillest second."""
    from scipy.spatial.transform import Rotation

    length = min(len(poses), max(8, round(fps)))
    best = (np.inf, 0.0)
    for start in range(0, len(poses) - length + 1, max(1, length // 8)):
        part = poses[start : start + length, :3, :3]
        turn = Rotation.from_matrix(part @ part[length // 2].T).as_rotvec(degrees=True)
        best = min(
            best, (float(np.ptp(turn, axis=0).max()), float(np.diff(turn, 2, 0).std(0).max()))
        )
    return best[1]


def lag(own: np.ndarray, truth: np.ndarray, reach: int = 5) -> float:
    """Frames by which `own` (T,) comes after `truth` (T,): peak of their cross-correlation."""
    a, b = own - own.mean(), truth - truth.mean()
    inner = slice(reach, len(b) - reach)
    shifts = np.arange(-reach, reach + 1)
    match = np.array(
        [np.corrcoef(a[reach + s : len(a) - reach + s], b[inner])[0, 1] for s in shifts]
    )
    return float(shifts[int(match.argmax())])


def _amplitude(detected: np.ndarray, fitted: np.ndarray) -> float:
    low, high = np.percentile(detected, [1, 99], axis=0)
    own_low, own_high = np.percentile(fitted, [1, 99], axis=0)
    return float(((own_high - own_low) / np.maximum(high - low, 1e-9)).mean())


def _gaze_angle(own: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(T, 2) radians between directions given as (T, 2, 2) yaw and pitch."""

    def direction(gaze: np.ndarray) -> np.ndarray:
        yaw, pitch = gaze[..., 0], gaze[..., 1]
        return np.stack(
            [np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], -1
        )

    cosine = (direction(own) * direction(truth)).sum(-1)
    return np.arccos(np.clip(cosine, -1, 1))
