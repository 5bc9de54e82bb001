"""Alpha of the person, from mediapipe's selfie segmentation with its edges put on the picture's."""

from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.kernels import guided_filter

__all__ = ["Segmenter", "refine_matte"]

_EMPTY, _SOLID = 0.2, 0.8
"""Filtered alpha at and beyond which a pixel is all background, or all person."""


class Segmenter:
    """Person probability (H, W) float32 of single pictures; one per thread."""

    def __init__(self) -> None:
        import mediapipe

        if not hasattr(mediapipe, "solutions"):
            raise UserError(
                "Mattes need the segmentation model inside mediapipe 0.10.21; install it with "
                "`pip install mediapipe==0.10.21` on Python 3.11 or 3.12."
            )
        # The general model; the landscape one leaks into the background.
        self._model: Any = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(
            model_selection=0
        )
        self(np.zeros((64, 64, 3), np.uint8))  # the first use is the slow and talkative one

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return self._model.process(image).segmentation_mask.astype(np.float32)


def refine_matte(image: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """8-bit alpha (H, W) from a soft, low-resolution probability (H, W) and the picture.

    Stretching narrows the soft border before the guided filter snaps it to picture edges; a guided
    filter alone leaves a halo, the raw mask stair-steps. The filter in turn lets the mask bleed a
    little to both sides: uneven hair would be seen through, the background cling to it.
    """
    import cv2

    scale = max(image.shape[:2]) / 512
    narrowed = np.clip((probability - 0.35) / 0.4, 0, 1)
    narrowed = cv2.GaussianBlur(narrowed, (0, 0), scale)
    radius = max(2, round(6 * scale))
    alpha = guided_filter(image, narrowed, radius, 3e-5)
    gain = 255 / (_SOLID - _EMPTY)
    # A sum because it saturates at both ends; convertScaleAbs would fold what is below zero.
    return cv2.addWeighted(alpha, gain, alpha, 0, -_EMPTY * gain, dtype=cv2.CV_8U)
