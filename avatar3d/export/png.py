"""A motion as pictures with transparency, for compositing in video editors."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from avatar3d.io.atomic import atomic_folder
from avatar3d.motion.motion import Motion
from avatar3d.progress import track
from avatar3d.provenance import declare, facts_of

if TYPE_CHECKING:
    from avatar3d.avatar import PosedAvatar

__all__ = ["transparent_frames", "write_png_sequence"]


def write_png_sequence(
    avatar: "PosedAvatar", path: str | os.PathLike[str], motion: Motion | None = None
) -> None:
    """Write `motion` as the folder `path` of 000000.png, 000001.png, ...: RGB and straight alpha.

    Args:
        avatar: any avatar.
        path: folder to write; an existing one is replaced.
        motion: default the avatar's own captured motion.
    """
    from PIL import Image

    motion = motion if motion is not None else avatar.idle_motion
    frames = track(transparent_frames(avatar, motion), "Rendering", len(motion))
    facts = facts_of(avatar.info)
    with atomic_folder(path) as folder:
        files = []
        for index, frame in enumerate(frames):
            files.append(folder / f"{index:06d}.png")
            Image.fromarray(frame).save(files[-1], compress_level=4)
        for file in files:  # not in between: rendering evicts the signer's code from the caches
            declare(file, facts, path)


def transparent_frames(avatar: "PosedAvatar", motion: Motion) -> Iterator[np.ndarray]:
    """(H, W, 4) uint8 with straight alpha for every frame of a motion."""
    shape = (avatar.camera.height, avatar.camera.width, 3)
    # What lies behind shows in the difference of the same picture on black and on white.
    on_black = avatar.render_motion(motion, background=np.zeros(shape, np.uint8))
    on_white = avatar.render_motion(motion, background=np.full(shape, 255, np.uint8))
    for black, white in zip(on_black, on_white, strict=True):
        yield straight_alpha(black, white)


def straight_alpha(black: np.ndarray, white: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 from a picture on black and on white, each (H, W, 3) uint8."""
    black, white = black.astype(np.float32), white.astype(np.float32)
    alpha = 255 - (white - black).mean(-1, keepdims=True)
    color = black * 255 / np.maximum(alpha, 1)
    return np.concatenate([color.clip(0, 255), alpha], -1).round().astype(np.uint8)
