"""Keyframes: a motion written by hand, as YAML.

    fps: 25                # optional, default 25
    duration: 3            # seconds; optional, default the last key's time
    easing: smooth         # optional, of keys that name none
    keys:
      - time: 0
        expression: {jawOpen: 0, mouthSmile: 0.2}
      - time: 0.5
        expression: {jawOpen: 0.6}
        yaw: 20            # degrees to the person's left; pitch: up, roll: crown to the left
        easing: out
      - time: 1.5
        gaze: [10, -5]     # degrees to the left and up
        yaw: 0
        emotion: smile     # a preset's weights, for those that the key does not name itself

Weights are ARKit's, 0 to 1; a name without Left or Right sets both sides. Each value goes from one
key that names it to the next that does, along the later one's easing, and holds still before the
first and after the last. What no key names stays at rest; a motion without any expression, angle
or gaze leaves that part to other motions.
"""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52
from avatar3d.motion.emotions import emotion
from avatar3d.motion.motion import Motion
from avatar3d.motion.paths import head_rotations
from avatar3d.motion.sliders import columns_named

__all__ = ["EASINGS", "keyframed", "read_keyframes"]

EASINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "smooth": lambda x: x * x * (3 - 2 * x),
    "linear": lambda x: x,
    "in": lambda x: x**2,
    "out": lambda x: 1 - (1 - x) ** 2,
    "hold": lambda x: np.where(x < 1, 0.0, 1.0),
}
"""Share of the way from the key before (0) to this one (1), by the share of the time."""

_ANGLES = ("yaw", "pitch", "roll")
_TOP = ("fps", "duration", "easing", "keys")
_KEY = ("time", "expression", *_ANGLES, "gaze", "emotion", "easing")
_MAX_BYTES, _MAX_SECONDS, _MAX_DEGREES = 1 << 20, 3600.0, 180.0

_Points = dict[Any, list[tuple[float, float, str]]]  # channel to (time, value, easing)


def read_keyframes(path: str | Path) -> Motion:
    """A motion from a YAML file; the format is described at the top of this module.

    Raises:
        UserError: missing, too large (1 MB), not YAML, or not keyframes; says which key.
    """
    import yaml

    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path} is larger than keyframes should be (1 MB); it was not read.")
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"Cannot read the keyframes {path} ({reason}).") from error
    try:
        return replace(keyframed(data), source=f"keyframes {path.name}")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def keyframed(data: Any) -> Motion:
    """A motion from what the YAML holds: a dict with "keys", a list of dicts."""
    if not isinstance(data, dict) or not isinstance(data.get("keys"), list) or not data["keys"]:
        raise UserError("Keyframes need a list `keys` of at least one key with a `time`.")
    _known(data, _TOP, "keyframes")
    usual = _easing(data.get("easing", "smooth"), "keyframes")
    points: _Points = {}
    before = -1.0
    for number, key in enumerate(data["keys"], 1):
        where = f"key {number}"
        if not isinstance(key, dict) or "time" not in key:
            raise UserError(f"In {where}: a key is a mapping with at least a `time`.")
        _known(key, _KEY, where)
        time = _number(key["time"], 0, _MAX_SECONDS, f"the time of {where}")
        if time <= before:
            raise UserError(
                f"In {where}: times must rise, got {time:g} s after {max(before, 0):g} s."
            )
        before = time
        easing = _easing(key.get("easing", usual), where)
        for channel, value in _values(key, where).items():
            points.setdefault(channel, []).append((time, value, easing))
    fps = _number(data.get("fps", 25), 1, 1000, "fps")
    duration = _number(data.get("duration", before), 0, _MAX_SECONDS, "duration")
    if not points:
        raise UserError("The keys name no expression, angle or gaze.")
    # The last key's moment is shown too.
    return _motion(points, fps, max(1, round(duration * fps) + ("duration" not in data)))


def _values(key: dict[str, Any], where: str) -> dict[Any, float]:
    """Numbers of one key by channel: an expression column, an angle, or ("gaze", 0 or 1)."""
    values: dict[Any, float] = {}
    if "emotion" in key:
        weights = emotion(str(key["emotion"])).expression
        assert weights is not None
        values |= {column: float(weights[0, column]) for column in range(len(ARKIT_52))}
    named = key.get("expression") or {}
    if not isinstance(named, dict):
        raise UserError(f"In {where}: expression is a mapping such as {{jawOpen: 0.5}}.")
    for name, value in named.items():
        try:
            columns = columns_named(str(name))
        except UserError as error:
            raise UserError(f"In {where}: {error}") from error
        weight = _number(value, 0, 1, f"{name} of {where}")
        values |= dict.fromkeys(columns, weight)
    for name in _ANGLES:
        if name in key:
            degrees = _number(key[name], -_MAX_DEGREES, _MAX_DEGREES, f"{name} of {where}")
            values[name] = float(np.radians(degrees))
    if "gaze" in key:
        gaze = key["gaze"]
        if not isinstance(gaze, list) or len(gaze) != 2:
            raise UserError(f"In {where}: gaze is [degrees to the left, degrees up].")
        for axis, degrees in enumerate(gaze):
            angle = _number(degrees, -60, 60, f"gaze of {where}")
            values["gaze", axis] = float(np.radians(angle))
    return values


def _motion(points: _Points, fps: float, count: int) -> Motion:
    times = np.arange(count) / fps
    curves = {channel: _curve(some, times) for channel, some in points.items()}
    expression = head = gaze = None
    columns = [channel for channel in curves if isinstance(channel, int)]
    if columns:
        expression = np.zeros((count, len(ARKIT_52)))
        expression[:, columns] = np.stack([curves[column] for column in columns], 1)
    zero = np.zeros(count)
    if any(name in curves for name in _ANGLES):
        head = head_rotations(*(curves.get(name, zero) for name in _ANGLES))
    if ("gaze", 0) in curves:
        look = np.stack([curves["gaze", 0], curves["gaze", 1]], 1)
        gaze = np.repeat(look[:, None], 2, 1)
    return Motion(fps, expression, head, gaze, source="keyframes")


def _curve(points: list[tuple[float, float, str]], times: np.ndarray) -> np.ndarray:
    values = np.full(len(times), points[0][1])
    for (start, a, _), (stop, b, easing) in pairwise(points):
        share = np.clip((times - start) / (stop - start), 0, 1)
        inside = times >= start - 1e-9
        values[inside] = a + (b - a) * EASINGS[easing](share[inside])
    return values


def _known(mapping: dict[Any, Any], names: tuple[str, ...], where: str) -> None:
    for name in mapping:
        if name not in names:
            near = get_close_matches(str(name), names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}."
            raise UserError(f"In {where}: there is no {name!r}; {hint}")


def _easing(name: Any, where: str) -> str:
    if name not in EASINGS:
        near = get_close_matches(str(name), EASINGS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(EASINGS)}."
        raise UserError(f"In {where}: there is no easing {name!r}; {hint}")
    return str(name)


def _number(value: Any, low: float, high: float, what: str) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not usable or not low <= value <= high:
        raise UserError(f"{what} must be a number within {low:g} to {high:g}, got {value!r}.")
    return float(value)
