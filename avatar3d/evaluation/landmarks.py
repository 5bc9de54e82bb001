"""Faces found in pictures, for the metrics that compare lips, actions and poses."""

from collections.abc import Callable

import numpy as np

from avatar3d.capture.landmarks import Face
from avatar3d.errors import UserError
from avatar3d.progress import say

__all__ = ["Detect", "face_detector"]

Detect = Callable[[np.ndarray], Face | None]
"""From a picture (H, W, 3) uint8 to the largest face in it."""


def face_detector() -> Detect | None:
    """Capture's detector; None, said aloud, where it is missing."""
    from avatar3d.capture.config import CaptureConfig
    from avatar3d.capture.landmarks import choose_detector, choose_face

    try:
        detector = choose_detector(CaptureConfig()).make(1)
    except UserError as error:
        say(f"Lip metrics are left out: {error}")
        return None

    def detect(image: np.ndarray) -> Face | None:
        return choose_face(detector.detect(image), None)

    return detect
