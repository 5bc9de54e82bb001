"""Label images of the face and what is around it, from landmarks, matte and colour."""

import numpy as np

from avatar3d.head.landmarks import EYE_LEFT, EYE_RIGHT, FACE_OVAL, LIPS_INNER, LIPS_OUTER
from avatar3d.subject import PARSING_LABELS

__all__ = ["parse_frame"]

LABEL = {name: index for index, name in enumerate(PARSING_LABELS)}
BROW_LEFT = (276, 283, 282, 295, 285, 336, 296, 334, 293, 300)
BROW_RIGHT = (46, 53, 52, 65, 55, 107, 66, 105, 63, 70)
NOSE = (168, 122, 174, 198, 49, 48, 64, 98, 97, 2, 326, 327, 294, 278, 279, 420, 399, 351)


def parse_frame(image: np.ndarray, matte: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(H, W) uint8 labels, indices into `PARSING_LABELS`.

    Args:
        image: (H, W, 3) uint8.
        matte: (H, W) uint8 alpha of the person.
        points: (478, 2) landmarks in pixels.
    """
    import cv2

    labels = np.zeros(matte.shape, np.uint8)
    person = matte > 127
    oval = points[list(FACE_OVAL)]
    face_height = float(np.ptp(oval[:, 1]))
    chin = points[152]
    rows, columns = np.mgrid[: matte.shape[0], : matte.shape[1]]
    below = rows > chin[1] - 0.02 * face_height
    labels[person] = LABEL["hair"]
    skin = _skin_like(image, points)
    ears = person & ~below & (np.abs(rows - points[1, 1]) < 0.3 * face_height) & skin
    labels[ears] = LABEL["ears"]
    neck = person & below & skin & (np.abs(columns - chin[0]) < 0.6 * face_height)
    labels[person & below] = LABEL["clothes"]
    labels[neck] = LABEL["neck"]

    def fill(indices: tuple[int, ...], name: str) -> None:
        polygon = np.round(points[list(indices)] * 16 - 8).astype(np.int32)
        cv2.fillPoly(labels, [polygon], LABEL[name], shift=4)

    fill(FACE_OVAL, "skin")
    for brow in (BROW_LEFT, BROW_RIGHT):
        fill(brow, "brows")
    fill(NOSE, "nose")
    fill(_ring(EYE_LEFT), "left_eye")
    fill(_ring(EYE_RIGHT), "right_eye")
    fill(LIPS_OUTER, "lips")
    fill(LIPS_INNER, "mouth_interior")
    inside = labels == LABEL["mouth_interior"]
    labels[inside & _tooth_like(image, inside)] = LABEL["teeth"]
    labels[~person & (labels != LABEL["background"])] = LABEL["background"]
    return labels


def _ring(eye: tuple[int, ...]) -> tuple[int, ...]:
    """The lower lid from outer to inner corner, then the upper lid back: a closed outline."""
    return (*eye[:9], *reversed(eye[9:]))


def _skin_like(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(H, W) bool: colour near that of the cheeks and forehead in chromaticity and luma."""
    import cv2

    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    height, width = image.shape[:2]
    spots = points[[50, 280, 101, 330, 151, 108, 337, 205, 425]]
    xs = np.clip(spots[:, 0].astype(int), 2, width - 3)
    ys = np.clip(spots[:, 1].astype(int), 2, height - 3)
    samples = np.array(
        [lab[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1)) for x, y in zip(xs, ys, strict=True)]
    )
    middle = np.median(samples, 0)
    chroma = np.hypot(lab[..., 1] - middle[1], lab[..., 2] - middle[2])
    return (chroma < 14) & (np.abs(lab[..., 0] - middle[0]) < 80)


def _tooth_like(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(H, W) bool: bright and not red, judged against the rest of the mouth."""
    if not inside.any():
        return inside
    color = image.astype(np.float32)
    luma = color @ np.array([0.299, 0.587, 0.114], np.float32)
    redness = (color[..., 0] - color[..., 1]) / (luma + 1)
    return (luma > 70) & (redness < 0.35) & (luma > 0.6 * np.percentile(luma[inside], 90))
