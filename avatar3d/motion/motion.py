"""The Motion noun: ARKit-52 expression, head pose and gaze over time, whoever made it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.io.arrays import read_arrays, write_arrays

__all__ = ["TRACKS", "Motion", "nearest_rigid"]

FORMAT_VERSION = 1
TRACKS = ("expression", "residual", "head_pose", "gaze", "torso_pose")
_MAX_BYTES = 1 << 31  # 20 hours at 25 frames a second
_MAX_RESIDUAL = 1024
_NOT_RIGID = 0.02


@dataclass(frozen=True)
class Motion:
    """What a face does over T frames. A track that is None is not driven by this motion.

    Attributes:
        fps: frames per second; frame i is shown from i / fps on.
        expression: (T, 52) ARKit weights, columns as `ARKIT_52`, usually in [0, 1].
        head_pose: (T, 4, 4) rigid transform of the head from its rest pose, in the head frame of
            the rest pose (metres). Identity is the avatar's rest pose, so it transfers to others.
        gaze: (T, 2, 2) radians; eye (left, right) x (yaw to the person's left, pitch up).
        residual: (T, R) further mouth rows of one head model; dropped for any other avatar.
        torso_pose: (T, 4, 4) like head_pose for the shoulders; None lets the avatar predict it
            from head_pose.
        source: free text, where it came from.
    """

    fps: float
    expression: np.ndarray | None = None
    head_pose: np.ndarray | None = None
    gaze: np.ndarray | None = None
    residual: np.ndarray | None = None
    torso_pose: np.ndarray | None = None
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        shapes = {
            "expression": (len(ARKIT_52),),
            "head_pose": (4, 4),
            "gaze": (2, 2),
            "torso_pose": (4, 4),
        }
        lengths = {}
        for name in TRACKS:
            track = getattr(self, name)
            if track is None:
                continue
            track = np.ascontiguousarray(track, np.float32)
            object.__setattr__(self, name, track)
            tail = shapes.get(name, track.shape[1:2])
            if track.shape[1:] != tail or not np.isfinite(track).all():
                problem = " with non-finite values" if track.shape[1:] == tail else ""
                raise UserError(
                    f"Motion track {name} must be finite with shape (T, "
                    f"{', '.join(map(str, tail))}), got {track.shape}{problem}."
                )
            lengths[name] = len(track)
        if len(set(lengths.values())) != 1:
            raise UserError(f"Motion tracks differ in length or are all missing: {lengths}.")
        if not (np.isfinite(self.fps) and 1 <= self.fps <= 1000):
            raise UserError(f"Motion frame rate must be within 1 to 1000, got {self.fps}.")

    def __len__(self) -> int:
        return next(len(t) for t in (getattr(self, n) for n in TRACKS) if t is not None)

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self) / self.fps

    def slice(self, start: int, stop: int) -> "Motion":
        """Frames start..stop-1."""
        return self._map(lambda name, track: track[start:stop])

    def over(self, other: "Motion") -> "Motion":
        """This motion's tracks, with those it lacks taken from `other` (resampled to its times).

        `other` is looped forth and back when it is shorter, so that poses never jump.
        """
        index = np.arange(len(self)) * other.fps / self.fps
        aligned = other.at(_ping_pong(index, len(other)))
        own = {n: getattr(self, n) for n in TRACKS if getattr(self, n) is not None}
        return replace(aligned, fps=self.fps, source=self.source, **own)

    def resampled(self, fps: float) -> "Motion":
        """The same motion at another frame rate, linearly interpolated."""
        count = max(1, round(self.duration * fps))
        index = np.minimum(np.arange(count) * self.fps / fps, len(self) - 1)
        return replace(self.at(index), fps=fps)

    def at(self, index: np.ndarray) -> "Motion":
        """Tracks at fractional frame indices (N,) in [0, T - 1]; rotations stay orthonormal."""
        low = np.clip(np.floor(index).astype(int), 0, len(self) - 1)
        high = np.minimum(low + 1, len(self) - 1)
        weight = (index - low).astype(np.float32)

        def interpolate(name: str, track: np.ndarray) -> np.ndarray:
            w = weight.reshape(-1, *[1] * (track.ndim - 1))
            mixed = track[low] * (1 - w) + track[high] * w
            return nearest_rigid(mixed) if name.endswith("pose") else mixed

        return self._map(interpolate)

    def without(self, *names: str) -> "Motion":
        """A copy with the named tracks removed."""
        removed: dict[str, Any] = dict.fromkeys(names)
        return replace(self, **removed)

    def save(self, path: str | Path) -> None:
        """Write a .npz of the tracks, float32, named and shaped as the attributes.

        Its member `header` is text, JSON: "format" is "avatar3d.motion", "version" 1, "fps",
        "frames", "source" and "expression_names", which name the columns of the expression. Tracks
        that are None are absent.
        """
        header = {
            "format": "avatar3d.motion",
            "version": FORMAT_VERSION,
            "fps": self.fps,
            "frames": len(self),
            "source": self.source,
            "expression_names": list(ARKIT_52),
        }
        tracks = {n: getattr(self, n) for n in TRACKS if getattr(self, n) is not None}
        write_arrays(path, {"header": np.array(json.dumps(header)), **tracks})

    @classmethod
    def load(cls, path: str | Path) -> "Motion":
        """Read a motion file, or a .csv recording of Live Link Face.

        Raises:
            UserError: missing, not a motion file, of a newer version, or with broken tracks.
        """
        if Path(path).suffix.lower() == ".csv":
            from avatar3d.motion.livelink import read_livelink

            return read_livelink(path)
        try:
            arrays = read_arrays(path, _MAX_BYTES)
            header = json.loads(str(arrays["header"]))
            if not isinstance(header, dict) or header.get("format") != "avatar3d.motion":
                raise ValueError("it has no header of one")
        except (OSError, ValueError, KeyError, RecursionError) as error:
            raise UserError(
                f"Cannot read the motion file {path}; it must be an .npz written by avatar3d, or a "
                f".csv of Live Link Face ({error})."
            ) from error
        if header.get("version") != FORMAT_VERSION:
            raise UserError(
                f"{path} is a motion file of version {header.get('version')!r}, this program reads "
                f"version {FORMAT_VERSION}; update avatar3d or export the motion again."
            )
        tracks = {n: arrays[n] for n in TRACKS if n in arrays}
        try:
            if any(track.dtype.kind not in "biuf" for track in tracks.values()):
                raise UserError("Motion tracks must be numbers.")
            if "expression" in tracks:
                tracks["expression"] = _in_order(tracks["expression"], header)
            if tracks.get("residual", np.zeros((0, 0))).shape[1:] > (_MAX_RESIDUAL,):
                raise UserError(f"Motion track residual has over {_MAX_RESIDUAL} columns.")
            motion = cls(fps=float(header["fps"]), source=str(header.get("source", "")), **tracks)
            motion._check_rigid()
            return motion
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"The header of {path} is damaged ({error!r}).") from error
        except UserError as error:
            raise UserError(f"{path} is damaged: {error}") from error

    def _check_rigid(self) -> None:
        for name in ("head_pose", "torso_pose"):
            pose = getattr(self, name)
            if pose is None:
                continue
            rotation = pose[:, :3, :3].astype(np.float64)
            error = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(initial=0)
            if error > _NOT_RIGID or np.linalg.det(rotation).min(initial=1) < 0:
                raise UserError(f"Motion track {name} has frames that are not rotations.")
        if not len(self):
            raise UserError("A motion needs at least one frame.")

    def _map(self, change: Callable[[str, np.ndarray], np.ndarray]) -> "Motion":
        tracks = {n: getattr(self, n) for n in TRACKS if getattr(self, n) is not None}
        changed: dict[str, Any] = {name: change(name, track) for name, track in tracks.items()}
        return replace(self, **changed)


def _in_order(expression: np.ndarray, header: dict[str, Any]) -> np.ndarray:
    """Columns (T, 52) by the names in the header; absent ones are 0."""
    names = header.get("expression_names", ARKIT_52)
    if list(names) == list(ARKIT_52):
        return expression
    unknown = [name for name in names if name not in ARKIT_INDEX]
    if unknown or expression.ndim != 2 or expression.shape[1] != len(names):
        raise UserError(f"Its expression columns are not ARKit's ({unknown[:1]}).")
    ordered = np.zeros((len(expression), len(ARKIT_52)), np.float32)
    ordered[:, [ARKIT_INDEX[name] for name in names]] = expression
    return ordered


def _ping_pong(index: np.ndarray, count: int) -> np.ndarray:
    if count == 1:
        return np.zeros_like(index)
    period = 2.0 * (count - 1)
    folded = np.mod(index, period)
    return np.minimum(folded, period - folded)


def nearest_rigid(transform: np.ndarray) -> np.ndarray:
    """Nearest rigid transforms to blends (N, 4, 4) of similar ones."""
    u, _, vt = np.linalg.svd(transform[:, :3, :3])
    result = transform.copy()
    result[:, :3, :3] = u @ vt
    return result
