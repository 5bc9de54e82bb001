"""Motion in somebody's own manner: their blinks, glances, brows and head, without an end."""

from dataclasses import replace
from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion.blinks import BlinkHabit, without_blinks
from avatar3d.motion.composition import crossfaded, played, scaled_pose
from avatar3d.motion.idle import MOUTH_COLUMNS
from avatar3d.motion.motion import Motion
from avatar3d.motion.paths import head_angles

__all__ = ["in_manner", "speech_effort"]

_PIECE = (1.6, 4.0)  # seconds
_FADE = 0.6  # seconds
_SHORTEST = 2 * _FADE + _PIECE[0]
_SPARE = 3  # frames beyond a piece, so that its fade has something to go into
_UNITS = np.array([0.05, 0.05, 0.05, 0.05, 0.05, 0.005, 0.005, 0.005])  # radians, metres
_EFFORT_WEIGHT, _AGAIN_WEIGHT, _CHANCE = 4.0, 3.0, 0.5
_LIDS = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]


def in_manner(
    base: Motion,
    seconds: float,
    fps: float = 25.0,
    seed: int = 0,
    intensity: float = 1.0,
    effort: np.ndarray | None = None,
) -> Motion:
    """Head, shoulders, gaze, brows and blinks for any duration, after a captured example.

    Pieces of a few seconds of the example are put together in a new order, head, gaze and brows
    together as they belong together. A piece is chosen by how well it continues the one before and
    how alike speech comes and goes in it; one that was just seen is avoided. Blinks are taken out
    of the pieces and put back at the example's own rate and with its own shapes (`BlinkHabit`). The
    mouth stays neutral.

    Args:
        base: captured motion; of less than about 3 s, it is played forth and back.
        seconds: duration; frames per second `fps`.
        seed: the same seed gives the same motion.
        intensity: scale of the motion about its mean; 0 is still but for the blinks, 1 as captured.
        effort: (T,) how much is said when, in [0, 1]; see `speech_effort`. By default pieces are
            chosen without regard to it.

    Raises:
        UserError: an impossible duration or intensity.
    """
    if not (0 < seconds <= 36_000 and 1 <= fps <= 1000):
        raise UserError(f"Motion must last up to 10 hours, got {seconds} s at {fps} fps.")
    if not 0 <= intensity <= 3:
        raise UserError(f"The intensity of motion must be within 0 to 3, got {intensity}.")
    count = max(1, int(np.ceil(seconds * fps - 1e-6)))
    if effort is not None and len(effort) != count:
        raise UserError(f"The effort must have one number a frame, {count}, got {len(effort)}.")
    rng = np.random.default_rng(seed)
    source = base if base.fps == fps else base.resampled(fps)
    calm = without_blinks(source)
    made = _put_together(calm, count, speech_effort(source), effort, rng)
    made = _scaled(made, calm, intensity)
    if made.expression is None:
        made = replace(made, expression=np.zeros((count, len(ARKIT_52)), np.float32))
    assert made.expression is not None
    expression = made.expression.copy()
    expression[:, MOUTH_COLUMNS] = 0
    blink = BlinkHabit.of(source).closure(count, fps, rng, effort)[:, None]
    expression[:, _LIDS] += blink * (1 - expression[:, _LIDS])
    return replace(made, expression=np.clip(expression, 0, 1), residual=None, source="own manner")


def speech_effort(motion: Motion) -> np.ndarray:
    """(T,) in [0, 1], how much a motion speaks: its jaw, smoothed over a third of a second."""
    if motion.expression is None or len(motion) < 2:
        return np.zeros(len(motion))
    from scipy.ndimage import gaussian_filter1d

    jaw = motion.expression[:, ARKIT_INDEX["jawOpen"]].astype(np.float64)
    open_by = np.clip(jaw - np.quantile(jaw, 0.1), 0, None)
    smooth = gaussian_filter1d(open_by, 0.15 * motion.fps, mode="nearest")
    return np.clip(smooth / max(np.quantile(smooth, 0.95), 0.02), 0, 1)


def _put_together(
    calm: Motion,
    count: int,
    had: np.ndarray,
    wanted: np.ndarray | None,
    rng: np.random.Generator,
) -> Motion:
    """`count` frames out of pieces of `calm`; `had` (N,) and `wanted` (count,) are efforts."""
    fps = calm.fps
    fade = max(1, round(_FADE * fps))
    if len(calm) < _SHORTEST * fps + _SPARE:
        return played(calm, count, fps)
    place = _place(calm)
    last_seen = np.full(len(calm), -np.inf)
    pieces: list[Motion] = []
    done, end = 0, -1
    while done < count:
        longest = min(_PIECE[1], (len(calm) - _SPARE) / fps - 2 * _FADE)
        length = round(rng.uniform(_PIECE[0], max(longest, _PIECE[0])) * fps) + fade
        starts = np.arange(0, len(calm) - length - _SPARE + 1, 2)
        cost = _CHANCE * rng.gumbel(size=len(starts))
        if end >= 0:  # the fade runs from `end` of the last piece along the start of the next
            step = place[starts] - place[end]
            speed = place[starts + _SPARE] - place[starts] - (place[end + _SPARE] - place[end])
            cost += (step**2).mean(1) + (speed**2).mean(1)
        if wanted is not None:
            some = np.arange(0, length, 3)
            told = wanted[np.minimum(done + some, count - 1)]
            cost += _EFFORT_WEIGHT * np.abs(had[starts[:, None] + some] - told).mean(1)
        seen = last_seen[starts + length // 2]
        cost += _AGAIN_WEIGHT * np.exp(-(done - seen) / (8 * fps))
        start = int(starts[cost.argmin()])
        last_seen[start : start + length] = done
        pieces.append(calm.slice(start, start + length))
        end = start + length - fade
        done += length - fade
    made = crossfaded(pieces, fade / fps)
    return made.slice(0, count) if len(made) >= count else played(made, count, fps)


def _place(motion: Motion) -> np.ndarray:
    """(N, 8) head turn and gaze in steps that one would notice, and the head's place."""
    columns = np.zeros((len(motion), 8))
    if motion.head_pose is not None:
        columns[:, :3] = np.stack(head_angles(motion.head_pose), 1)
        columns[:, 5:] = motion.head_pose[:, :3, 3]
    if motion.gaze is not None:
        columns[:, 3:5] = motion.gaze.mean(1)
    return columns / _UNITS


def _scaled(motion: Motion, base: Motion, intensity: float) -> Motion:
    """Everything's distance from the mean of `base` times `intensity`."""
    if intensity == 1:
        return motion
    tracks: dict[str, Any] = {}
    for name in ("head_pose", "torso_pose"):
        track, all_of_it = getattr(motion, name), getattr(base, name)
        if track is not None:
            middle = all_of_it[np.abs(all_of_it - np.median(all_of_it, 0)).sum((1, 2)).argmin()]
            tracks[name] = middle @ scaled_pose(np.linalg.inv(middle) @ track, intensity)
    for name in ("gaze", "expression"):
        track, all_of_it = getattr(motion, name), getattr(base, name)
        if track is not None:
            middle = np.median(all_of_it, 0)
            tracks[name] = middle + intensity * (track - middle)
    return replace(motion, **tracks)
