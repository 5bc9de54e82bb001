"""Render a motion to a video file with sound."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from avatar3d.avatar import Avatar, NerfAvatar
from avatar3d.errors import UserError
from avatar3d.io.video import write_video
from avatar3d.kernels.device import pick_device
from avatar3d.memory import give_memory_back
from avatar3d.motion.motion import Motion
from avatar3d.progress import say, track
from avatar3d.provenance import facts_of
from avatar3d.provenance.label import labelled
from avatar3d.provenance.watermark import watermarked

__all__ = ["render"]

_FAR = np.deg2rad(45)
_SURE = 0.6  # a smile half as wide again as any that was filmed is still above it


def render(
    avatar: Avatar,
    motion: Motion,
    output: str | Path,
    audio: str | Path | None = None,
    background: np.ndarray | None = None,
    device: str = "auto",
    label: bool = False,
    watermark: bool = False,
    compare: Avatar | None = None,
    heard: bool = False,
    show: str = "picture",
) -> None:
    """Write a video of the avatar performing `motion`.

    Args:
        avatar: who.
        motion: what; one video frame per motion frame, at its frame rate.
        output: .mp4, .mov or .mkv.
        audio: sound file to add; cut at the end of the motion.
        background: (H, W, 3) uint8 instead of the clip's own plate.
        device: where to draw; see `pick_device`.
        label: add a visible mark, see `provenance.label`.
        watermark: add an invisible mark, see `provenance.watermark`.
        compare: another avatar that performs the same to the right of it, over its own plate.
        heard: the field of a NeRF avatar hears `audio` itself, and only what is not of the mouth
            is from `motion`.
        show: "picture", or what else a NeRF avatar has of itself, see `NerfAvatar.render_layer`.

    Raises:
        UserError: the output or the sound cannot be written or read, or there is no such device,
            or nothing that could hear or be shown.
    """
    avatar = avatar.to(str(pick_device(device)))
    _warn(avatar, motion)

    def frames() -> Iterator[np.ndarray]:
        pictures = _pictures(avatar, motion, audio, background, heard, show)
        if compare is not None:
            other = compare.to(str(pick_device(device)))
            pictures = _beside(pictures, _as_high(other, motion, avatar.camera.height))
        for picture in track(pictures, "Rendering", len(motion)):
            marked = watermarked(picture) if watermark else picture
            yield labelled(marked) if label else marked

    try:
        write_video(output, frames(), motion.fps, audio=audio, facts=facts_of(avatar.info))
    finally:
        give_memory_back()


def _pictures(
    avatar: Avatar,
    motion: Motion,
    audio: str | Path | None,
    background: np.ndarray | None,
    heard: bool,
    show: str,
) -> Iterator[np.ndarray]:
    """Frames of the avatar itself, or of what its field hears or consists of."""
    if not heard and show == "picture":
        return avatar.render_motion(motion, background=background)
    if not isinstance(avatar, NerfAvatar):
        raise UserError(
            "Only a NeRF avatar (`train avatar=nerf`) hears sound itself and has layers to show; "
            "leave --heard and --show out."
        )
    rows = _features(audio, motion) if heard else None
    if show != "picture":
        return avatar.render_layer(show, motion, rows)
    assert rows is not None
    return avatar.render_heard(rows, motion, background=background)


def _features(audio: str | Path | None, motion: Motion) -> dict[str, np.ndarray]:
    """What a field hears of the sound, a row for every frame."""
    from avatar3d.audio import features, load_audio

    if audio is None:
        raise UserError("There is no sound to be heard; name one with --audio FILE or --text TEXT.")
    samples, _ = load_audio(audio)
    return features(samples, motion.fps, len(motion))


def _as_high(avatar: Avatar, motion: Motion, height: int) -> Iterator[np.ndarray]:
    """Frames of this height in the avatar's own proportions."""
    return avatar.render_motion(motion, avatar.camera.scaled(height / avatar.camera.height))


def _beside(left: Iterator[np.ndarray], right: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Pairs of frames, side by side; an odd column too many is cut off, for the sake of codecs."""
    for pair in zip(left, right, strict=True):
        joined = np.concatenate(pair, 1)
        yield np.ascontiguousarray(joined[:, : joined.shape[1] // 2 * 2])


def _warn(avatar: Avatar, motion: Motion) -> None:
    """Say what of a motion lies beyond what the avatar was made from."""
    turn = _largest_turn(motion)
    if turn > _FAR:
        say(
            f"The head turns up to {np.rad2deg(turn):.0f} degrees from its usual pose; beyond "
            f"{np.rad2deg(_FAR):.0f} most of what shows was never filmed."
        )
    sure = avatar.confidence(motion)
    unsure = sure < _SURE
    if unsure.any():
        say(
            f"{unsure.mean():.0%} of the frames ask for more expression than was filmed, "
            f"confidence {sure.min():.2f} at {sure.argmin() / motion.fps:.1f} s; there the face "
            "follows the head model alone."
        )


def _largest_turn(motion: Motion) -> float:
    """Radians by which the face looks away from where it looks at rest, at most."""
    if motion.head_pose is None or not len(motion):
        return 0.0
    return float(np.arccos(np.clip(motion.head_pose[:, 2, 2].min(), -1, 1)))
