"""Regions of the 478 MediaPipe face landmarks (468 face mesh + 2 x 5 iris).

Indices follow the canonical face mesh; "left" and "right" are the person's own.
"""

import numpy as np

__all__ = [
    "BROWS", "EYE_LEFT", "EYE_RIGHT", "FACE_OVAL", "IRIS_LEFT", "IRIS_RIGHT", "LANDMARK_COUNT",
    "LIPS", "LIPS_INNER", "LIPS_OUTER", "LOWER_LIP_MID", "MOUTH_CORNERS", "SLITS",
    "UPPER_LIP_MID",
    "eye_aperture", "inter_ocular", "lip_gap", "lip_width",
]  # fmt: skip

LANDMARK_COUNT = 478
LIPS_OUTER = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
)  # fmt: skip
LIPS_INNER = (
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 95, 88, 178, 87, 14, 317, 402, 318, 324,
)  # fmt: skip
LIPS = LIPS_OUTER + LIPS_INNER
EYE_LEFT = (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398)
EYE_RIGHT = (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173)
IRIS_RIGHT = (468, 469, 470, 471, 472)
IRIS_LEFT = (473, 474, 475, 476, 477)
BROWS = (
    276, 283, 282, 295, 285, 300, 293, 334, 296, 336, 46, 53, 52, 65, 55, 70, 63, 105, 66, 107,
)  # fmt: skip
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
SLITS: dict[str, tuple[int, int, tuple[int, ...], tuple[int, ...]]] = {
    "Left": (362, 263, (398, 384, 385, 386, 387, 388, 466), (382, 381, 380, 374, 373, 390, 249)),
    "Right": (33, 133, (246, 161, 160, 159, 158, 157, 173), (7, 163, 144, 145, 153, 154, 155)),
    "Lips": (
        78, 308, (191, 80, 81, 82, 13, 312, 311, 310, 415),
        (95, 88, 178, 87, 14, 317, 402, 318, 324),
    ),
}  # fmt: skip
"""Edges of eyes and mouth: corner at small x, corner at large x, upper and lower edge between."""
UPPER_LIP_MID, LOWER_LIP_MID = 13, 14
MOUTH_CORNERS = (78, 308)


def inter_ocular(landmarks: np.ndarray) -> np.ndarray:
    """Distance between the iris centres of `landmarks` (..., 478, 2|3), in their unit (...)."""
    return np.linalg.norm(landmarks[..., 468, :] - landmarks[..., 473, :], axis=-1)


def lip_gap(landmarks: np.ndarray) -> np.ndarray:
    """Distance between the mid points of the inner lips; same shapes as `inter_ocular`."""
    return np.linalg.norm(
        landmarks[..., UPPER_LIP_MID, :] - landmarks[..., LOWER_LIP_MID, :], axis=-1
    )


def lip_width(landmarks: np.ndarray) -> np.ndarray:
    """Distance between the inner mouth corners; same shapes as `inter_ocular`."""
    first, second = MOUTH_CORNERS
    return np.linalg.norm(landmarks[..., first, :] - landmarks[..., second, :], axis=-1)


def eye_aperture(landmarks: np.ndarray) -> np.ndarray:
    """Lid distance over eye width, per eye (..., 2) as (left, right), without unit."""
    pairs = (((386, 374), (263, 362)), ((159, 145), (33, 133)))
    columns = []
    for (upper, lower), (outer, inner) in pairs:
        height = np.linalg.norm(landmarks[..., upper, :] - landmarks[..., lower, :], axis=-1)
        width = np.linalg.norm(landmarks[..., outer, :] - landmarks[..., inner, :], axis=-1)
        columns.append(height / np.maximum(width, 1e-9))
    return np.stack(columns, axis=-1)
