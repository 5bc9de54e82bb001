"""The pre-flight report: is this clip good enough to train on, in numbers and one page."""

import html
from typing import Any

import numpy as np

from avatar3d.head.landmarks import (
    EYE_LEFT,
    EYE_RIGHT,
    FACE_OVAL,
    IRIS_LEFT,
    IRIS_RIGHT,
    LIPS,
    eye_aperture,
    inter_ocular,
    lip_gap,
)
from avatar3d.io.images import data_url
from avatar3d.subject import Tracking

__all__ = ["advice", "quality_numbers", "quality_page"]


def quality_numbers(tracking: Tracking, fps: float) -> dict[str, Any]:
    """What the tracking says about itself and about the clip.

    Fit errors are medians over the valid frames in pixels of a 512 pixel wide picture. A ratio of
    1 says that the fitted lips or lids move as far as the detected ones.
    """
    valid = tracking.valid
    detected, fitted = tracking.landmarks[valid], tracking.landmarks_fit[valid]
    error = np.linalg.norm(detected - fitted, axis=-1) * 512 / float(tracking.size.max())
    regions = {
        "all": range(478),
        "lips": LIPS,
        "eyes": EYE_LEFT + EYE_RIGHT,
        "iris": IRIS_LEFT + IRIS_RIGHT,
        "oval": FACE_OVAL,
    }
    relative = np.linalg.inv(tracking.T_camera_rest) @ tracking.T_camera_head[valid]
    yaw = np.degrees(np.arctan2(relative[:, 0, 2], relative[:, 2, 2]))
    pitch = np.degrees(np.arcsin(np.clip(-relative[:, 1, 2], -1, 1)))
    apertures, fitted_apertures = eye_aperture(detected), eye_aperture(fitted)
    return {
        "frames": len(tracking),
        "seconds": round(len(tracking) / fps, 2),
        "valid_share": round(float(valid.mean()), 4),
        "error_px_at_512": {
            name: round(float(np.median(error[:, list(points)].mean(1))), 3)
            for name, points in regions.items()
        },
        "lip_gap_ratio": round(_slope(lip_gap(detected), lip_gap(fitted)), 3),
        "eye_aperture_ratio": round(_slope(apertures, fitted_apertures), 3),
        "inter_ocular_px": round(float(np.median(inter_ocular(detected))), 1),
        "yaw_range_degrees": [round(float(q), 1) for q in np.percentile(yaw, [2, 98])],
        "pitch_range_degrees": [round(float(q), 1) for q in np.percentile(pitch, [2, 98])],
        "lip_gap_range": round(
            float(np.ptp(np.percentile(lip_gap(detected) / inter_ocular(detected), [3, 97]))), 3
        ),
        "blinks_per_minute": round(_blinks(apertures.mean(1)) / (len(detected) / fps / 60), 1),
    }


def advice(numbers: dict[str, Any]) -> list[str]:
    """Sentences on what would make a better clip; empty when it is good."""
    found = []
    if numbers["seconds"] < 8:
        found.append(
            f"The clip lasts {numbers['seconds']:.1f} s; 20 s or more give better avatars."
        )
    if numbers["inter_ocular_px"] < 45:
        found.append(
            f"The face is small (eyes {numbers['inter_ocular_px']:.0f} pixels apart); details of "
            "eyes and mouth will be soft."
        )
    if numbers["lip_gap_range"] < 0.05:
        found.append("The mouth hardly opens in this clip; its inside will be guessed.")
    low, high = numbers["yaw_range_degrees"]
    if high - low < 6:
        found.append("The head hardly turns in this clip; side views will be guessed.")
    if numbers["error_px_at_512"]["all"] > 2.5:
        found.append(
            "The head model follows this face poorly; check the overlay in quality.html before "
            "training."
        )
    return found


def quality_page(
    numbers: dict[str, Any], sentences: list[str], sheet: np.ndarray, title: str
) -> str:
    """One self-contained HTML page with the numbers and a contact sheet (H, W, 3) uint8."""
    rows = "".join(
        f"<tr><td>{html.escape(name.replace('_', ' '))}<td>{html.escape(_text(value))}"
        for name, value in numbers.items()
    )
    notes = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return (
        "<!doctype html><meta charset=utf-8>"
        f"<title>{html.escape(title)}</title>"
        "<style>body{font:15px sans-serif;margin:2em;max-width:70em}td{padding:.15em 1em}"
        "img{max-width:100%}</style>"
        f"<h1>{html.escape(title)}</h1><ul>{notes or '<li>Nothing to complain about.</li>'}</ul>"
        "<p>Picture; landmarks (red detected, green fitted) and mesh; cut-out; labels; below: the "
        "empty background.</p>"
        f'<img alt="contact sheet" src="{data_url(sheet)}">'
        f"<table>{rows}</table>\n"
    )


def _slope(detected: np.ndarray, fitted: np.ndarray) -> float:
    """Least-squares gain of fitted against detected about their means."""
    a, b = detected - detected.mean(0), fitted - fitted.mean(0)
    return float((a * b).sum() / max(float((a * a).sum()), 1e-12))


def _blinks(aperture: np.ndarray) -> int:
    """Times that the eyes go from open to under half of their usual aperture."""
    closed = aperture < 0.5 * np.percentile(aperture, 80)
    return int((closed[1:] & ~closed[:-1]).sum())


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return " to ".join(map(str, value)) if isinstance(value, list) else str(value)
