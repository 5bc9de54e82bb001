"""A pinhole camera."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Camera"]


@dataclass(frozen=True)
class Camera:
    """Pinhole camera in OpenCV axes: x right, y down, z forward.

    Pixel (0, 0) has its centre at image coordinates (0.5, 0.5), as in gsplat: a point X in the
    camera frame falls on `u = fx X/Z + cx, v = fy Y/Z + cy`, inside column floor(u), row floor(v).

    Attributes:
        K: (3, 3) intrinsics in pixels, no skew.
        width, height: size of the image in pixels.
    """

    K: np.ndarray
    width: int
    height: int

    @classmethod
    def from_focal(cls, focal: float, width: int, height: int) -> "Camera":
        """Camera with the principal point in the middle of the image and square pixels."""
        matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], np.float64)
        return cls(matrix, width, height)

    def scaled(self, factor: float) -> "Camera":
        """The same view on an image `factor` times as large (sides rounded to whole pixels)."""
        width, height = round(self.width * factor), round(self.height * factor)
        scale = np.array([width / self.width, height / self.height, 1.0])
        return Camera(self.K * scale[:, None], width, height)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Camera-frame points (..., 3) in metres to pixels (..., 2)."""
        uvw = points @ self.K.T
        return uvw[..., :2] / uvw[..., 2:]
