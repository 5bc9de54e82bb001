"""Live Link Face CSV, the recordings of Epic's iPhone app, read and written as a `Motion`.

Columns: Timecode (HH:MM:SS:FF.sss in 1/60 s), BlendShapeCount, the 52 ARKit weights in the app's
order, then yaw, pitch and roll of head, left and right eye. Angles are radians about ARKit's axes,
which are those of our head frame, right-handed: positive yaw is to the person's left, positive
pitch down, positive roll to the person's right. The format holds no position and no shoulders.
Source: Epic's Live Link Face app and the readers of its files, such as PyLiveLinkFace.
"""

import csv
import io
import re
from pathlib import Path

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.io.atomic import atomic_write
from avatar3d.motion.motion import Motion
from avatar3d.motion.paths import head_angles, head_rotations
from avatar3d.progress import say

__all__ = ["HEADER", "read_livelink", "write_livelink"]

_PARTS = ("Head", "LeftEye", "RightEye")
_ANGLES = tuple(f"{part}{angle}" for part in _PARTS for angle in ("Yaw", "Pitch", "Roll"))
_RATES = (24, 25, 30, 48, 50, 60, 120)
_TICKS = 60
_DAY = 24 * 3600
_MAX_BYTES = 1 << 30
_CERTAIN = 0.6  # correlation with the eyeLook weights that tells the sense of the angles


def _app_order() -> tuple[str, ...]:
    """The app lists right before left for the jaw and the mouth's sideways moves."""
    names = list(ARKIT_52)
    for left, right in (("jawLeft", "jawRight"), ("mouthLeft", "mouthRight")):
        a, b = names.index(left), names.index(right)
        names[a], names[b] = names[b], names[a]
    return tuple(names)


_WEIGHTS = _app_order()
HEADER: tuple[str, ...] = (
    "Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in _WEIGHTS), *_ANGLES,
)  # fmt: skip
"""Column names as the app writes them."""


def write_livelink(motion: Motion, path: str | Path) -> None:
    """Write a motion for Unreal, Blender and everything else that reads the app's recordings.

    A track that the motion lacks is written as zeros. Positions, shoulders and residual rows have
    no place in the format.
    """
    count = len(motion)
    weights = np.zeros((count, len(ARKIT_52)))
    if motion.expression is not None:
        weights = motion.expression[:, [ARKIT_INDEX[name] for name in _WEIGHTS]]
    angles = np.zeros((count, 3, 3))
    if motion.head_pose is not None:
        angles[:, 0] = np.stack(head_angles(motion.head_pose), 1) * [1, -1, -1]
    if motion.gaze is not None:
        angles[:, 1:, :2] = motion.gaze * [1, -1]
    rows = np.concatenate([weights, angles.reshape(count, 9)], 1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for index, row in enumerate(rows):
        numbers = [f"{value:.8f}" for value in row]
        writer.writerow([_timecode(index / motion.fps), str(rows.shape[1]), *numbers])
    atomic_write(path, text.getvalue())


def read_livelink(path: str | Path) -> Motion:
    """Read a recording of the app, or what `write_livelink` wrote.

    Columns that are missing count as 0, and it is said which. The frame rate is that of the
    timecodes; frames that were dropped or had no face are filled by interpolation. Some versions of
    the app give the angles in the opposite sense: where the eyes' angles contradict the eyeLook
    weights of the same recording, they are turned round.

    Raises:
        UserError: missing, or not such a file; names the line.
    """
    names, table, times = _table(Path(path))
    present = [name for name in ARKIT_52 if name.lower() in names]
    if not present:
        raise UserError(
            f"{path} has none of the 52 ARKit columns (EyeBlinkLeft, JawOpen, ...); give a CSV "
            "recorded by Live Link Face."
        )
    absent = [name[0].upper() + name[1:] for name in ARKIT_52 if name not in present]
    absent += [name for name in _ANGLES if name.lower() not in names]
    if absent:
        more = f" and {len(absent) - 4} more" if len(absent) > 4 else ""
        say(f"{path} lacks the columns {', '.join(absent[:4])}{more}; they are taken as 0.")
    weights = np.zeros((len(table), len(ARKIT_52)))
    for name in present:
        weights[:, ARKIT_INDEX[name]] = table[:, names[name.lower()]]
    columns = [
        table[:, names[n.lower()]] if n.lower() in names else np.zeros(len(table)) for n in _ANGLES
    ]
    angles = np.stack(columns, 1).reshape(-1, 3, 3)
    if np.abs(angles).max() > 2 * np.pi:  # some converters write degrees
        angles = np.radians(angles)
    angles = angles * _senses(weights, angles)
    fps, index = _grid(times)
    motion = Motion(
        fps=fps,
        expression=weights,
        head_pose=head_rotations(*angles[:, 0].T) if "headyaw" in names else None,
        gaze=angles[:, 1:, :2] if "lefteyeyaw" in names else None,
        source=f"Live Link Face {Path(path).name}",
    )
    return motion if index is None else motion.at(index)


def _timecode(seconds: float) -> str:
    ticks = round(seconds * _TICKS * 1000)
    whole, part = divmod(ticks, 1000)
    clock, frame = divmod(whole, _TICKS)
    minutes, second = divmod(clock, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour % 24:02d}:{minute:02d}:{second:02d}:{frame:02d}.{part:03d}"


def _table(path: Path) -> tuple[dict[str, int], np.ndarray, np.ndarray]:
    """Columns by lower-case name, numbers (T, C) with 0 for text, times (T,) in seconds."""
    rows, stamps = [], []
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path} is larger than any recording should be; it was not read.")
        with path.open(encoding="utf-8-sig", newline="") as handle:
            lines = csv.reader(handle)
            header = next((line for line in lines if line), [""])
            if header[0].strip().lower() != "timecode":
                raise UserError(
                    f"{path} is not a recording of Live Link Face: its first line must name the "
                    "columns, beginning with Timecode, and frames must follow."
                )
            for line in lines:
                if not line or not any(cell.strip() for cell in line[2:]):
                    continue  # a frame in which the app had no face
                row, stamp = _frame(line, len(header), f"Line {lines.line_num} of {path}")
                rows.append(row)
                stamps.append(stamp)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"Cannot read the recording {path} ({error}).") from error
    if not rows:
        raise UserError(f"{path} names columns, but no frame with a face follows.")
    names = {name.strip().lower(): column for column, name in enumerate(header)}
    return names, np.stack(rows), _seconds(np.array(stamps))


def _frame(line: list[str], columns: int, where: str) -> tuple[np.ndarray, list[float]]:
    """Numbers (C,), the first 0, and hours, minutes, seconds and ticks of a line."""
    if len(line) != columns:
        raise UserError(
            f"{where} has {len(line)} columns where the first line names {columns}; export the "
            "take again."
        )
    match = re.fullmatch(r"(\d+):(\d+):(\d+)[:;](\d+(?:\.\d+)?)", line[0].strip())
    try:
        numbers = np.array([0.0, *map(float, line[1:])])
    except ValueError:
        match = None
    if match is None or not np.isfinite(numbers).all():
        raise UserError(f"{where} is not a frame of Live Link Face; export the take again.")
    return numbers, [float(group) for group in match.groups()]


def _seconds(stamps: np.ndarray) -> np.ndarray:
    """Times (T,) from timecodes (T, 4); how many frames a second has is told by the largest."""
    clock = stamps[:, :3] @ [3600, 60, 1]
    seen = int(stamps[:, 3].max()) + 1
    whole_second = clock.max() - clock.min() >= 2
    ticks = next((rate for rate in _RATES if rate >= seen), seen) if whole_second else _TICKS
    times = clock + stamps[:, 3] / max(ticks, seen)
    times += _DAY * np.cumsum(np.r_[False, np.diff(times) < -_DAY / 2])
    return times - times[0]


def _grid(times: np.ndarray) -> tuple[float, np.ndarray | None]:
    """Frame rate, and fractional rows of evenly spaced frames, None where the rows are that."""
    count = len(times)
    if count == 1:
        return float(_TICKS), None
    steps = np.diff(times)
    if (steps <= 0).any():  # no usable clock
        return float(_TICKS), None
    fps = float(np.clip((count - 1) / times[-1], 1, 1000))
    even = np.arange(count) / fps
    if np.abs(times - even).max() < 0.5 / fps:
        return round(fps, 3), None
    fps = float(np.clip(round(1 / np.median(steps), 3), 1, 1000))
    even = np.arange(int(times[-1] * fps) + 1) / fps
    return fps, np.interp(even, times, np.arange(count))


def _senses(weights: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(3,) factors from the file's yaw, pitch, roll to ours."""

    def weight(name: str) -> np.ndarray:
        return weights[:, ARKIT_INDEX[name]]

    up = sum(weight(f"eyeLookUp{s}") - weight(f"eyeLookDown{s}") for s in ("Left", "Right"))
    left = (
        weight("eyeLookOutLeft") - weight("eyeLookInLeft")
        + weight("eyeLookInRight") - weight("eyeLookOutRight")
    )  # fmt: skip
    yaw, pitch = angles[:, 1:, 0].sum(1), angles[:, 1:, 1].sum(1)
    turned = _correlation(yaw, left) < -_CERTAIN
    raised = _correlation(pitch, up) > _CERTAIN
    return np.array([-1.0 if turned else 1.0, 1.0 if raised else -1.0, -1.0])


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    a, b = first - first.mean(), second - second.mean()
    return float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-9))
