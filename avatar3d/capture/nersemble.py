"""One person of the NeRSemble benchmark's task "Mono FLAME Avatar" (Kirschstein et al.), read.

The layout is that of the package `nersemble_benchmark` 0.2, which downloads it:
`PERSON/calibration/camera_params.json`, and in `PERSON/sequences/NAME/` the videos
`images/cam_SERIAL.mp4` and `alpha_maps/cam_SERIAL.mp4` and `tracking/flame2023_tracking_v2.npz`.
Test sequences have the tracking only; their pictures are the benchmark's secret.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError

__all__ = [
    "FPS", "HOLD_OUT_CAMERAS", "PEOPLE", "SIZE", "TEST_SEQUENCES", "TRAIN_CAMERA", "FlameTrack",
    "Participant", "read_participant",
]  # fmt: skip

FPS, SIZE = 24.3, 512
PEOPLE = (393, 404, 461, 477, 486)
TRAIN_CAMERA = "222200037"
HOLD_OUT_CAMERAS = ("222200046", "220700191", "222200039")
"""Left, centre and right."""
TEST_SEQUENCES = (
    "FREE", "EMO-1-shout+laugh", "SEN-09-frown_events_bad", "SEN-10-port_strong_smokey",
)  # fmt: skip
_MAX_JSON = 4 << 20
_MAX_FRAMES = 100_000
_NEEDED = {"expression": 100, "jaw": 3, "neck": 3, "eyes": 6}


@dataclass(frozen=True)
class FlameTrack:
    """FLAME 2023 over the T frames of a sequence.

    Attributes:
        values: (T, 112) expression, jaw, neck and eyes, as the file has them.
        T_world_model: (T, 4, 4) rigid, the model's frame to the world; metres.
    """

    values: np.ndarray
    T_world_model: np.ndarray

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Participant:
    """What a person's folder holds.

    Attributes:
        folder: named by the person's number; number: that.
        K: (3, 3) intrinsics in pixels of pictures of 512x512, by camera.
        T_camera_world: (4, 4) world to camera, OpenCV axes, by camera.
        recorded: sequences with pictures of the training camera, in the order of their names.
        tested: sequences of the test whose tracking is there.
    """

    folder: Path
    number: int
    K: dict[str, np.ndarray]
    T_camera_world: dict[str, np.ndarray]
    recorded: tuple[str, ...]
    tested: tuple[str, ...]

    def video(self, sequence: str, kind: str = "images") -> Path:
        """Pictures of the training camera; `kind` is "images" or "alpha_maps"."""
        return self.folder / "sequences" / sequence / kind / f"cam_{TRAIN_CAMERA}.mp4"

    def flame(self, sequence: str) -> FlameTrack:
        """Raises UserError where the tracking is missing or is not version 2 of it."""
        return _flame(_flame_path(self.folder, sequence))


def read_participant(folder: str | Path) -> Participant:
    """Read the calibration, and see which sequences there are.

    Raises:
        UserError: not such a folder, or its files are damaged.
    """
    folder = Path(folder)
    path = folder / "calibration" / "camera_params.json"
    sequences = folder / "sequences"
    if not path.is_file() or not sequences.is_dir() or not folder.name.isdigit():
        raise UserError(
            f"{folder} is not a person of NeRSemble's benchmark; give a folder such as "
            "mono_flame_avatar/393 that `nersemble-benchmark-download` made."
        )
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ValueError("too large")
        content = json.loads(path.read_bytes())
        K = _matrices(content["intrinsics"], 3)
        poses = _matrices(content["world_2_cam"], 4)
        K[TRAIN_CAMERA], poses[TRAIN_CAMERA]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"Cannot read {path} ({error}); download it again.") from error
    names = sorted(path.name for path in sequences.iterdir() if path.is_dir())
    found = Participant(folder, int(folder.name), K, poses, (), ())
    return Participant(
        folder, int(folder.name), K, poses,
        tuple(name for name in names if found.video(name).is_file()),
        tuple(name for name in TEST_SEQUENCES if _flame_path(folder, name).is_file()),
    )  # fmt: skip


def _flame_path(folder: Path, sequence: str) -> Path:
    return folder / "sequences" / sequence / "tracking" / "flame2023_tracking_v2.npz"


def _matrices(content: dict[str, Any], size: int) -> dict[str, np.ndarray]:
    found = {str(name): np.array(rows, np.float64) for name, rows in content.items()}
    for name, matrix in found.items():
        if matrix.shape != (size, size) or not np.isfinite(matrix).all():
            raise ValueError(f"camera {name} has no {size}x{size} matrix")
    return found


def _flame(path: Path) -> FlameTrack:
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = [np.asarray(file[name], np.float64) for name in _NEEDED]
            turned = np.asarray(file["rotation_matrices"], np.float64)
            moved = np.asarray(file["translation"], np.float64)
        count = len(moved)
        if not 0 < count <= _MAX_FRAMES or turned.shape != (count, 3, 3):
            raise ValueError(f"{turned.shape} rotations for {count} frames")
        for part, (name, width) in zip(parts, _NEEDED.items(), strict=True):
            if part.shape != (count, width):
                raise ValueError(f"{name} has shape {part.shape}, not ({count}, {width})")
        poses = np.tile(np.eye(4), (count, 1, 1))
        poses[:, :3, :3], poses[:, :3, 3] = turned, moved.reshape(count, 3)
        values = np.concatenate(parts, 1)
        if not (np.isfinite(values).all() and np.isfinite(poses).all()):
            raise ValueError("values that are no numbers")
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(
            f"Cannot read {path} as a FLAME tracking of version 2 ({error}); run "
            "`nersemble-benchmark-download FOLDER mono_flame_avatar --assets "
            "flame2023_tracking_v2`."
        ) from error
    return FlameTrack(values, poses)
