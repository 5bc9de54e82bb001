"""Views that no camera filmed, scored where the truth is known: on a synthetic person."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_dilation

from avatar3d.avatar import Avatar
from avatar3d.evaluation.metrics import psnr_of
from avatar3d.evaluation.regions import head_mask
from avatar3d.motion import Motion
from avatar3d.synth import SyntheticClip
from avatar3d.synth.clip import to_bytes

__all__ = ["DEGREES", "held_out_cameras"]

DEGREES = (-40.0, -20.0, 20.0, 40.0)
_FRAMES = 6
_MARGIN = 8  # pixels around the head that count too, or a ragged outline would go unseen


def held_out_cameras(
    avatar: Avatar,
    clip: SyntheticClip,
    degrees: Sequence[float] = DEGREES,
    frames: Sequence[int] | None = None,
) -> tuple[dict[float, float], list[tuple[np.ndarray, np.ndarray]]]:
    """Score an avatar of a synthetic person from beside the camera that filmed it.

    The avatar gets the exact motion, shoulders included, as the other camera sees it; the light
    stays where it was.

    Args:
        avatar: trained on `write_subject` of the clip, or on another clip of the same person.
        clip: the truth.
        degrees: how far each camera goes around the head, and to which side.
        frames: which frames; default a few, evenly spread.

    Returns:
        PSNR in dB of the head by degrees, over all frames; and the last frame's (truth, render),
        (H, W, 3) uint8 each, by camera.
    """
    if frames is None:
        frames = np.linspace(0, len(clip) - 1, _FRAMES).astype(int).tolist()
    scores, pictures = {}, []
    for angle in degrees:
        yaw = math.radians(angle)
        errors, pixels = 0.0, 0
        rendered = avatar.render_motion(
            _seen_from(clip, yaw, frames), clip.camera, background=clip.background
        )
        for index, image in zip(frames, rendered, strict=True):
            picture = clip.picture_from(index, yaw)
            truth = to_bytes(picture.image)
            head = binary_dilation(head_mask(picture.label), iterations=_MARGIN)
            errors += float((np.subtract(image, truth, dtype=np.float64)[head] ** 2).sum())
            pixels += 3 * int(head.sum())
        scores[angle] = psnr_of(errors / pixels / 255**2)
        pictures.append((truth, image))
    return scores, pictures


def _seen_from(clip: SyntheticClip, yaw: float, frames: Sequence[int]) -> Motion:
    rest = np.linalg.inv(clip.T_camera_rest)
    move = clip.orbit(yaw)
    head, torso = (
        rest @ move @ poses[list(frames)] for poses in (clip.T_camera_head, clip.T_camera_torso)
    )
    return Motion(
        fps=clip.fps,
        expression=clip.expression[list(frames)],
        head_pose=head.astype(np.float32),
        torso_pose=torso.astype(np.float32),
        gaze=clip.gaze[list(frames)],
    )
