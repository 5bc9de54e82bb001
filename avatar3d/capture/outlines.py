"""Outlines of the parts of a face among the 478 landmarks, drawn; places relative to a face."""

import numpy as np

from avatar3d.head.landmarks import EYE_LEFT, EYE_RIGHT, LIPS_INNER, LIPS_OUTER

__all__ = [
    "BROWS", "EYES", "LIPS", "MOUTH", "NOSE", "face_axis", "filled", "filled_exactly", "luma",
    "place",
]  # fmt: skip


def _ring(outline: tuple[int, ...]) -> tuple[int, ...]:
    """A closed outline from the lists of eyes and lips: the lower edge, then the upper one back."""
    lower = len(outline) // 2 + 1
    return (*outline[:lower], *reversed(outline[lower:]))


BROWS = (
    (276, 283, 282, 295, 285, 336, 296, 334, 293, 300),
    (46, 53, 52, 65, 55, 107, 66, 105, 63, 70),
)
"""Left and right, the person's own."""
NOSE = (
    168, 193, 122, 174, 198, 49, 48, 64, 98, 97, 2, 326, 327, 294, 278, 279, 420, 399, 351, 417,
)  # fmt: skip
EYES = (_ring(EYE_LEFT), _ring(EYE_RIGHT))
LIPS, MOUTH = _ring(LIPS_OUTER), _ring(LIPS_INNER)
_HAIRLINE, _CHIN = 10, 152
_FINER = 4  # subdivision of pixels for outlines of small parts


def filled(
    shape: tuple[int, ...], points: np.ndarray, outline: tuple[int, ...], shrink: float = 1.0
) -> np.ndarray:
    """(H, W) bool: inside the polygon, optionally shrunk towards its middle."""
    import cv2

    polygon = points[list(outline)]
    polygon = polygon.mean(0) + shrink * (polygon - polygon.mean(0))
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * 16 - 8).astype(np.int32)], 1, shift=4)
    return mask > 0


def filled_exactly(
    shape: tuple[int, ...], points: np.ndarray, outline: tuple[int, ...], least: float = 0.5
) -> tuple[tuple[slice, slice], np.ndarray]:
    """A polygon's box in the picture, and (h, w) bool: its pixels that lie in the polygon for at
    least that share.

    OpenCV counts every pixel that the outline touches, which doubles a nearly shut eye.
    """
    import cv2

    polygon = points[list(outline)]
    low = np.clip(np.floor(polygon.min(0)).astype(int) - 2, 0, np.array(shape[1::-1]) - 1)
    high = np.clip(np.ceil(polygon.max(0)).astype(int) + 2, low + 1, shape[1::-1])
    width, height = high - low
    fine = np.zeros((height * _FINER, width * _FINER), np.uint8)
    corners = np.round(((polygon - low) * _FINER - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(fine, [corners], 255, shift=4)
    share = cv2.resize(fine, (int(width), int(height)), interpolation=cv2.INTER_AREA)
    return (slice(low[1], high[1]), slice(low[0], high[0])), share > 255 * least


def place(points: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) float32 across and down of every pixel, in heights of the face.

    Across and down along the line from the hairline, near down = -0.5, to the chin at +0.5.
    """
    middle, axis, height = face_axis(points)
    x = ((np.arange(shape[1]) + 0.5 - middle[0]) / height).astype(np.float32)[None]
    y = ((np.arange(shape[0]) + 0.5 - middle[1]) / height).astype(np.float32)[:, None]
    a, b = np.float32(axis[0]), np.float32(axis[1])
    return x * b - y * a, x * a + y * b


def face_axis(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Middle of the face (2,), unit vector down it (2,) and its height in pixels."""
    top, chin = points[_HAIRLINE].astype(float), points[_CHIN].astype(float)
    height = max(float(np.linalg.norm(chin - top)), 8.0)
    return (top + chin) / 2, (chin - top) / height, height


def luma(image: np.ndarray) -> np.ndarray:
    """(H, W) float32 grey levels."""
    return image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
