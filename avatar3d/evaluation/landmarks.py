"""Landmarks of pictures, for the metrics that compare lips."""

from collections.abc import Callable

import numpy as np

from avatar3d.errors import UserError
from avatar3d.progress import say

__all__ = ["landmark_detector"]


def landmark_detector() -> Callable[[np.ndarray], np.ndarray | None] | None:
    """Capture's detector, (H, W, 3) uint8 to (478, 2) pixels or None; itself None if missing."""
    from avatar3d.capture.config import CaptureConfig
    from avatar3d.capture.landmarks import choose_detector, choose_face

    try:
        detector = choose_detector(CaptureConfig()).make(1)
    except UserError as error:
        say(f"Lip metrics are left out: {error}")
        return None

    def detect(image: np.ndarray) -> np.ndarray | None:
        face = choose_face(detector.detect(image), None)
        return None if face is None else face.points[:, :2]

    return detect
