"""Motions out of motions: parts of several, cross-fades, layers, another speed, loops."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52
from avatar3d.motion.idle import MOUTH_COLUMNS
from avatar3d.motion.motion import TRACKS, Motion, nearest_rigid

__all__ = [
    "EYE_COLUMNS", "blended", "compose", "crossfaded", "layered", "looped", "played", "scaled_pose",
    "with_speed",
]  # fmt: skip

EYE_COLUMNS = np.setdiff1d(np.arange(len(ARKIT_52)), MOUTH_COLUMNS)
"""Columns of the expression that speech does not own: eyes, brows, nose, upper cheeks."""

_MAX_SPEED = 16.0
_MAX_FRAMES = 36_000_000


def compose(
    mouth: Motion | None = None,
    pose: Motion | None = None,
    eyes: Motion | None = None,
    fill: str = "turn",
) -> Motion:
    """One motion whose parts come from up to three.

    The first one given, in the order of the arguments, sets frame rate and length; the others are
    brought to it, and repeated where they are shorter.

    Args:
        mouth: jaw, lips, cheeks and tongue (`MOUTH_COLUMNS` and the residual rows).
        pose: head and shoulders.
        eyes: blinks, brows and all else of the upper face, and the gaze.
        fill: how a shorter motion is repeated: "turn" (forth and back), "loop" (with a cross-fade
            of half a second) or "hold" (its last frame stays).

    Raises:
        UserError: nothing given, or another `fill`.

    Example:
        compose(mouth=speech, pose=orbit(8), eyes=avatar.idle_motion)
    """
    lead = next((motion for motion in (mouth, pose, eyes) if motion is not None), None)
    if lead is None:
        raise UserError("Give a motion for at least one of mouth, pose and eyes.")
    count, fps = len(lead), lead.fps
    parts = {
        "mouth": None if mouth is None else played(mouth, count, fps, fill),
        "pose": None if pose is None else played(pose, count, fps, fill),
        "eyes": None if eyes is None else played(eyes, count, fps, fill),
    }
    expression = None
    for name, columns in (("mouth", MOUTH_COLUMNS), ("eyes", EYE_COLUMNS)):
        part = parts[name]
        if part is not None and part.expression is not None:
            if expression is None:
                expression = np.zeros((count, len(ARKIT_52)), np.float32)
            expression[:, columns] = part.expression[:, columns]
    of_mouth, of_pose, of_eyes = parts["mouth"], parts["pose"], parts["eyes"]
    tracks: dict[str, Any] = {
        "expression": expression,
        "residual": of_mouth.residual if of_mouth else None,
        "head_pose": of_pose.head_pose if of_pose else None,
        "torso_pose": of_pose.torso_pose if of_pose else None,
        "gaze": of_eyes.gaze if of_eyes else None,
    }
    if all(track is None for track in tracks.values()):
        raise UserError("None of the motions has the part that it was to give.")
    origin = ", ".join(f"{name} of {part.source or '?'}" for name, part in parts.items() if part)
    return Motion(fps=fps, source=origin, **tracks)


def played(motion: Motion, count: int, fps: float, fill: str = "turn") -> Motion:
    """`count` frames at `fps` of a motion, repeated where it is shorter; `fill` as in `compose`."""
    if fill not in ("turn", "loop", "hold"):
        raise UserError(f"A motion is filled up by turn, loop or hold, not {fill!r}.")
    index = np.arange(count) * motion.fps / fps
    last = len(motion) - 1
    if fill == "loop" and index[-1] > last:
        motion = looped(motion)
        # One more frame, the first again, so that times between the last and it can be had.
        motion = motion.at(np.r_[np.arange(len(motion)), 0].astype(float))
        index = np.mod(index, len(motion) - 1)
    elif fill == "turn" and last > 0:
        index = last - np.abs(last - np.mod(index, 2 * last))
    return replace(motion.at(np.clip(index, 0, len(motion) - 1)), fps=fps)


def blended(first: Motion, second: Motion, weight: float | np.ndarray) -> Motion:
    """From `first` (weight 0) to `second` (weight 1), which must have equal lengths.

    Args:
        weight: one number, or (T,) to fade over time. A track that one of them lacks is taken from
            the other alone.
    """
    if len(first) != len(second):
        raise UserError(
            f"Motions to blend must have equal lengths, got {len(first)} and {len(second)} frames."
        )
    amount = np.clip(np.broadcast_to(np.asarray(weight, np.float32), len(first)), 0, 1)
    tracks: dict[str, Any] = {}
    for name in TRACKS:
        a, b = getattr(first, name), getattr(second, name)
        if name == "residual" and a is not None and b is not None and a.shape != b.shape:
            b = None  # rows of another head model
        if a is None or b is None:
            tracks[name] = b if a is None else a
            continue
        w = amount.reshape(-1, *[1] * (a.ndim - 1))
        mixed = a * (1 - w) + b * w
        tracks[name] = nearest_rigid(mixed) if name.endswith("pose") else mixed
    return replace(first, **tracks)


def crossfaded(motions: Sequence[Motion], seconds: float = 0.4) -> Motion:
    """One after the other, each fading into the next over `seconds`, at the first one's frame rate.

    The result is as much shorter than the sum as the fades last. A fade is at most half as long as
    the shorter of its two motions.
    """
    if not motions:
        raise UserError("There are no motions to join.")
    if not 0 <= seconds <= 60:
        raise UserError(f"A cross-fade must last 0 to 60 seconds, got {seconds}.")
    result = motions[0]
    for motion in motions[1:]:
        following = motion if motion.fps == result.fps else motion.resampled(result.fps)
        fade = min(round(seconds * result.fps), len(result) // 2, len(following) // 2)
        kept = len(result) - fade
        middle = blended(result.slice(kept, len(result)), following.slice(0, fade), _rise(fade))
        pieces = [result.slice(0, kept), middle, following.slice(fade, len(following))]
        result = _joined([piece for piece in pieces if len(piece)])
    return result


def layered(base: Motion, layer: Motion, intensity: float = 1.0) -> Motion:
    """`layer` added on top of `base`: weights and gaze add up, head motion follows head motion.

    Args:
        base: sets length and frame rate.
        layer: repeated where it is shorter; a layer of one frame is a constant. Its rest (weights
            0, identity pose) changes nothing.
        intensity: scale of the layer; above 1 exaggerates, below 0 turns round.
    """
    top = played(layer, len(base), base.fps)
    tracks: dict[str, Any] = {}
    if top.expression is not None:
        under = 0 if base.expression is None else base.expression
        tracks["expression"] = np.clip(under + intensity * top.expression, 0, 1)
    if top.gaze is not None:
        tracks["gaze"] = (0 if base.gaze is None else base.gaze) + intensity * top.gaze
    if top.head_pose is not None:
        turned = scaled_pose(top.head_pose, intensity)
        tracks["head_pose"] = turned if base.head_pose is None else base.head_pose @ turned
    return replace(base, **tracks)


def with_speed(motion: Motion, factor: float) -> Motion:
    """The same motion `factor` times as fast, at the same frame rate."""
    if not 1 / _MAX_SPEED <= factor <= _MAX_SPEED:
        raise UserError(
            f"The speed of a motion must be within {1 / _MAX_SPEED} to {_MAX_SPEED:g}, got "
            f"{factor}."
        )
    count = max(1, round(len(motion) / factor))
    return motion.at(np.minimum(np.arange(count) * factor, len(motion) - 1.0))


def looped(motion: Motion, fade: float = 0.5, seconds: float | None = None) -> Motion:
    """A motion that can be repeated without a jump: its end fades into its beginning.

    Args:
        fade: seconds of the cross-fade, at most half of the motion; the result is shorter by it.
        seconds: repeat the loop to this length; None gives one round.
    """
    if not 0 <= fade <= 60:
        raise UserError(f"The fade of a loop must last 0 to 60 seconds, got {fade}.")
    overlap = min(round(fade * motion.fps), len(motion) // 2)
    length = len(motion) - overlap
    seam = blended(motion.slice(length, len(motion)), motion.slice(0, overlap), _rise(overlap))
    parts = [part for part in (seam, motion.slice(overlap, length)) if len(part)]
    once = _joined(parts)
    if seconds is None:
        return once
    count = round(seconds * motion.fps)
    if not 1 <= count <= _MAX_FRAMES:
        raise UserError(f"A loop cannot last {seconds} seconds.")
    return once.at(np.mod(np.arange(count), len(once)).astype(float))


def scaled_pose(poses: np.ndarray, factor: float) -> np.ndarray:
    """Rigid transforms (T, 4, 4) with turn and shift scaled."""
    from scipy.spatial.transform import Rotation

    result = np.tile(np.eye(4, dtype=np.float32), (len(poses), 1, 1))
    turn = Rotation.from_matrix(poses[:, :3, :3]).as_rotvec() * factor
    result[:, :3, :3] = Rotation.from_rotvec(turn).as_matrix()
    result[:, :3, 3] = poses[:, :3, 3] * factor
    return result


def _rise(count: int) -> np.ndarray:
    """(count,) eased weights strictly between 0 and 1."""
    x = np.arange(1, count + 1) / (count + 1)
    return x * x * (3 - 2 * x)


def _joined(parts: Sequence[Motion]) -> Motion:
    """End to end. Where only some have a track, the others rest in it; residuals must agree."""
    tracks: dict[str, Any] = {}
    for name in TRACKS:
        found = [getattr(part, name) for part in parts]
        known = [track for track in found if track is not None]
        if not known or (name == "residual" and len({t.shape[1] for t in known}) > 1):
            tracks[name] = None
            continue
        rest = np.eye(4) if name.endswith("pose") else np.zeros(known[0].shape[1:])
        if name == "torso_pose" and len(known) < len(found):
            tracks[name] = None  # shoulders at rest under a moving head would be wrong
            continue
        tracks[name] = np.concatenate(
            [
                np.broadcast_to(rest, (len(part), *rest.shape)) if track is None else track
                for part, track in zip(parts, found, strict=True)
            ]
        )
    return replace(parts[0], **tracks)
