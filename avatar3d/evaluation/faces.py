"""What a face does in pictures: lips, facial actions, blinks and pose, ours beside the recorded.

Landmarks (T, 478, 2) are pixels; scores (T, 52) are ARKit weights, in the order of `ARKIT_52`.
"""

import csv
from pathlib import Path

import numpy as np

from avatar3d.errors import UserError
from avatar3d.evaluation.metrics import correlation
from avatar3d.head.arkit import ARKIT_INDEX
from avatar3d.head.landmarks import eye_aperture, inter_ocular, lip_width
from avatar3d.motion.blinks import find_blinks

__all__ = [
    "ACTION_UNITS", "LOWER_UNITS", "MOUTH_68", "action_units", "blink_figures", "flicker",
    "lid_closure_seen", "lip_width_correlation", "mouth_distance", "read_openface", "shaking",
    "unit_error",
]  # fmt: skip

MOUTH_68 = (
    61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178,
)  # fmt: skip
"""Mesh vertices at the points 48 to 67 of the 68-point scheme: outer lips, then inner ones."""

ACTION_UNITS: dict[str, tuple[str, ...]] = {
    "AU01": ("browInnerUp",),
    "AU02": ("browOuterUpLeft", "browOuterUpRight"),
    "AU04": ("browDownLeft", "browDownRight"),
    "AU05": ("eyeWideLeft", "eyeWideRight"),
    "AU06": ("cheekSquintLeft", "cheekSquintRight"),
    "AU07": ("eyeSquintLeft", "eyeSquintRight"),
    "AU09": ("noseSneerLeft", "noseSneerRight"),
    "AU10": ("mouthUpperUpLeft", "mouthUpperUpRight"),
    "AU12": ("mouthSmileLeft", "mouthSmileRight"),
    "AU14": ("mouthDimpleLeft", "mouthDimpleRight"),
    "AU15": ("mouthFrownLeft", "mouthFrownRight"),
    "AU17": ("mouthShrugLower",),
    "AU20": ("mouthStretchLeft", "mouthStretchRight"),
    "AU23": ("mouthPressLeft", "mouthPressRight"),
    "AU25": ("mouthLowerDownLeft", "mouthLowerDownRight"),
    "AU26": ("jawOpen",),
    "AU45": ("eyeBlinkLeft", "eyeBlinkRight"),
}
"""The units that OpenFace grades, and the ARKit rows whose mean stands for each."""

LOWER_UNITS = ("AU10", "AU12", "AU14", "AU15", "AU17", "AU20", "AU23", "AU25", "AU26")
_FULL = 5.0  # of an action unit's grades


def mouth_distance(
    landmarks: np.ndarray, target: np.ndarray, centred: bool = True, relative: bool = False
) -> float:
    """LMD of the literature: mean distance of the 20 mouth points of the 68-point scheme.

    Args:
        landmarks, target: (T, 478, 2).
        centred: each frame's points about their mean, so that the head's place does not count.
        relative: in distances between the eyes of the target, so that the size does not count.
    """
    ours, theirs = (points[:, list(MOUTH_68), :2] for points in (landmarks, target))
    if centred:
        ours, theirs = (points - points.mean(1, keepdims=True) for points in (ours, theirs))
    distance = np.linalg.norm(ours - theirs, axis=-1).mean(-1)
    return float((distance / inter_ocular(target) if relative else distance).mean())


def lip_width_correlation(landmarks: np.ndarray, target: np.ndarray) -> float:
    """Correlation over time of the mouth's width, in eye distances, of two sequences."""
    return correlation(
        lip_width(landmarks) / inter_ocular(landmarks), lip_width(target) / inter_ocular(target)
    )


def action_units(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Grades (T,) from 0 to 5 of the units in `ACTION_UNITS`, from scores (T, 52)."""
    return {
        unit: _FULL * scores[:, [ARKIT_INDEX[name] for name in names]].mean(1)
        for unit, names in ACTION_UNITS.items()
    }


def unit_error(units: dict[str, np.ndarray], target: dict[str, np.ndarray]) -> dict[str, float]:
    """AUE: squared difference of grades, summed over the units that both have, mean over frames.

    Returns:
        `aue` of all units; `aue_lower` of those of lips and jaw, `aue_upper` of the others.
    """
    errors = {
        unit: float(np.mean((np.asarray(units[unit]) - target[unit]) ** 2))
        for unit in units
        if unit in target
    }
    lower = sum(error for unit, error in errors.items() if unit in LOWER_UNITS)
    total = sum(errors.values())
    return {"aue": total, "aue_lower": lower, "aue_upper": total - lower}


def read_openface(path: str | Path) -> dict[str, np.ndarray]:
    """Grades (T,) by unit from a table that OpenFace's FeatureExtraction wrote.

    Raises:
        UserError: unreadable, or without columns such as `AU12_r`.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        names = [name for name in rows[0] if name.startswith("AU") and name.endswith("_r")]
        units = {
            name.removesuffix("_r"): np.array([float(r[name]) for r in rows]) for name in names
        }
    except (OSError, ValueError, TypeError, IndexError, csv.Error) as error:
        raise UserError(f"Cannot read {path} as a table of OpenFace ({error}).") from error
    if not units:
        raise UserError(
            f"{path} has no columns of action units; run OpenFace's FeatureExtraction with -aus."
        )
    return units


def lid_closure_seen(landmarks: np.ndarray, scores: np.ndarray | None) -> np.ndarray:
    """(T,) closure of both eyes in [0, 1]: the detector's score, or what the lids' gap says."""
    if scores is not None:
        units = [ARKIT_INDEX[name] for name in ACTION_UNITS["AU45"]]
        return scores[:, units].mean(1)
    gap = eye_aperture(landmarks).mean(1)
    return np.clip(1 - gap / max(float(np.quantile(gap, 0.9)), 1e-6), 0, 1)


def blink_figures(closure: np.ndarray, fps: float) -> dict[str, float]:
    """`blinks` a minute and their mean `blink_seconds` (NaN for none) in a lid closure (T,)."""
    found = find_blinks(closure, fps)
    width = np.mean([blink.width for blink in found]) / fps if found else np.nan
    return {"blinks": 60 * len(found) * fps / len(closure), "blink_seconds": float(width)}


def shaking(landmarks: np.ndarray) -> float:
    """Root mean square of the second difference over time, in thousandths of the eye distance."""
    points = np.asarray(landmarks[..., :2], np.float64)
    change = np.linalg.norm(np.diff(points, 2, axis=0), axis=-1)
    return float(1000 * np.sqrt((change**2).mean()) / inter_ocular(points).mean())


def flicker(before: np.ndarray, image: np.ndarray, past: np.ndarray, target: np.ndarray) -> float:
    """Mean difference between our change since the frame before and the recording's.

    Pictures (H, W, 3) uint8; in 8-bit steps. A still error does not count, a restless one does.
    """
    ours, theirs = (
        np.subtract(image, before, dtype=np.int16),
        np.subtract(target, past, dtype=np.int16),
    )
    return float(np.abs(ours - theirs).mean())
