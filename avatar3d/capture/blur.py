"""Blurs so wide that a smaller picture serves."""

import numpy as np

__all__ = ["widely_blurred"]


def widely_blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """(H, W) float32 blurred by a Gaussian of many pixels, at a quarter of the size."""
    import cv2

    small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / 4)
    return cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
