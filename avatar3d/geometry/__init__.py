"""Cameras and rotations. OpenCV axes, metres, radians; see `Camera` for the pixel convention."""

from avatar3d.geometry.camera import Camera
from avatar3d.geometry.rotation import (
    matrix_to_quaternion,
    quaternion_multiply,
    quaternion_to_matrix,
    rigid_inverse,
    rotation_from_vector,
    rotation_to_vector,
    yaw_pitch_roll,
)

__all__ = [
    "Camera",
    "matrix_to_quaternion",
    "quaternion_multiply",
    "quaternion_to_matrix",
    "rigid_inverse",
    "rotation_from_vector",
    "rotation_to_vector",
    "yaw_pitch_roll",
]
