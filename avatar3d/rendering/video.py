"""Render a motion to a video file with sound."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from avatar3d.avatar import Avatar
from avatar3d.io.video import write_video
from avatar3d.kernels.device import pick_device
from avatar3d.motion.motion import Motion
from avatar3d.progress import track

__all__ = ["render"]


def render(
    avatar: Avatar,
    motion: Motion,
    output: str | Path,
    audio: str | Path | None = None,
    background: np.ndarray | None = None,
    device: str = "auto",
) -> None:
    """Write a video of the avatar performing `motion`.

    Args:
        avatar: who.
        motion: what; one video frame per motion frame, at its frame rate.
        output: .mp4, .mov or .mkv.
        audio: sound file to add; cut at the end of the motion.
        background: (H, W, 3) uint8 instead of the clip's own plate.
        device: where to draw; see `pick_device`.

    Raises:
        UserError: the output or the sound cannot be written or read, or there is no such device.
    """
    avatar = avatar.to(str(pick_device(device)))

    def frames() -> Iterator[np.ndarray]:
        yield from track(
            avatar.render_motion(motion, background=background), "Rendering", len(motion)
        )

    write_video(output, frames(), motion.fps, audio=audio)
