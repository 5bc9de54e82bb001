"""The hidden folder that a capture is built in, and the bookkeeping that lets it resume."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.parallel import parallel_map
from avatar3d.errors import UserError
from avatar3d.head import HeadModel
from avatar3d.io.arrays import write_arrays
from avatar3d.io.atomic import atomic_write, sweep_temporaries
from avatar3d.io.images import read_image

__all__ = ["CACHE", "RejectedClip", "Stage", "Workspace", "run_stages", "spread", "stage_keys"]

_FLUSHED_TOGETHER = 16

CACHE = ".capture"
"""Folder inside a subject with what stages hand to each other and nobody else reads."""


class RejectedClip(UserError):
    """The clip itself is unusable, so nothing is worth keeping."""


@dataclass(frozen=True)
class Stage:
    """A pure function from the folder to the folder.

    Attributes:
        name: as in `subject.json`.
        run: does the work; may find files of an interrupted run with the same key.
        needs: names of stages whose output is read.
        options: names of the `CaptureConfig` fields that change the output.
        outputs: files and folders, relative to the subject, that this stage alone writes.
        version: raised when the code changes its output.
    """

    name: str
    run: Callable[["Workspace"], None]
    needs: tuple[str, ...]
    options: tuple[str, ...]
    outputs: tuple[str, ...]
    version: int = 1


@dataclass
class State:
    """`state.json`: which stages are done with which key, and what they found out."""

    source_sha256: str
    done: dict[str, str] = field(default_factory=dict)
    started: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)


class Workspace:
    """What a stage sees: the source, the options, the head model and the folder to write into."""

    def __init__(
        self,
        folder: Path,
        source: Path,
        sha256: str,
        config: CaptureConfig,
        head: HeadModel | None,
    ) -> None:
        self.folder, self.source, self.config, self._head = folder, source, config, head
        self._path = folder / CACHE / "state.json"
        for place in (folder, self._path.parent):  # a process may have been killed while writing
            sweep_temporaries(place)
        self.state = self._load(sha256)

    @property
    def head(self) -> HeadModel:
        assert self._head is not None, "the first stages do without a head model"
        return self._head

    @property
    def width(self) -> int:
        return int(self.state.facts["width"])

    @property
    def height(self) -> int:
        return int(self.state.facts["height"])

    @property
    def frames(self) -> int:
        return int(self.state.facts["frames"])

    @property
    def fps(self) -> float:
        return float(self.state.facts["fps"])

    @property
    def frame_format(self) -> Literal["jpg", "png"]:
        """Suffix of the pictures in frames/."""
        return "png" if self.state.facts.get("frame_format") == "png" else "jpg"

    @property
    def workers(self) -> int:
        return self.config.threads

    @cached_property
    def K(self) -> np.ndarray:
        """(3, 3) pixels: the assumed focal length, principal point in the middle."""
        focal = self.config.focal * max(self.width, self.height)
        return np.array([[focal, 0, self.width / 2], [0, focal, self.height / 2], [0, 0, 1]])

    def path(self, name: str) -> Path:
        return self.folder / name

    def frame_path(self, index: int) -> Path:
        return self.folder / "frames" / f"{index:06d}.{self.frame_format}"

    def matte_path(self, index: int) -> Path:
        return self.folder / "mattes" / f"{index:06d}.png"

    def parsing_path(self, index: int) -> Path:
        return self.folder / "parsing" / f"{index:06d}.png"

    def frame(self, index: int) -> np.ndarray:
        return _read(self.frame_path(index))

    def gray_frame(self, index: int) -> np.ndarray:
        """(H, W) uint8; a JPEG's brightness can be had without its colours."""
        import cv2

        image = cv2.imread(str(self.frame_path(index)), cv2.IMREAD_GRAYSCALE)
        if image is None:
            image = cv2.cvtColor(self.frame(index), cv2.COLOR_RGB2GRAY)
        return image

    def matte(self, index: int) -> np.ndarray:
        return _read(self.matte_path(index))

    def parsing(self, index: int) -> np.ndarray:
        return _read(self.parsing_path(index))

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write `.capture/NAME.npz` for later stages."""
        write_arrays(self.folder / CACHE / f"{name}.npz", arrays, compressed=False)

    def load_arrays(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.folder / CACHE / f"{name}.npz", allow_pickle=False) as data:
            return {key: data[key] for key in data.files}

    def has_arrays(self, name: str) -> bool:
        return (self.folder / CACHE / f"{name}.npz").is_file()

    def warn(self, stage: str, message: str) -> None:
        self.state.warnings.setdefault(stage, []).append(message)

    def save_state(self) -> None:
        atomic_write(self._path, json.dumps(self.state.__dict__, indent=1))

    def _load(self, sha256: str) -> State:
        try:
            values = json.loads(self._path.read_bytes())
            state = State(**{f.name: values[f.name] for f in fields(State)})
        except (OSError, ValueError, KeyError, TypeError):
            return State(sha256)
        return state if state.source_sha256 == sha256 else State(sha256)


def stage_keys(
    stages: tuple[Stage, ...],
    sha256: str,
    config: CaptureConfig,
    head: HeadModel | None,
    models: dict[str, str],
) -> dict[str, str]:
    """Hash of everything each stage's output depends on; `models` names those in use by stage."""
    keys: dict[str, str] = {}
    for stage in stages:
        material = {
            "stage": stage.name,
            "version": stage.version,
            "source": sha256,
            "needs": [keys[name] for name in stage.needs],
            "options": {name: getattr(config, name) for name in stage.options},
            "extra": models.get(stage.name, ""),
            "head": head.fingerprint if head is not None and stage.name == "fit" else "",
        }
        text = json.dumps(material, sort_keys=True)
        keys[stage.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return keys


def run_stages(workspace: Workspace, stages: tuple[Stage, ...], keys: dict[str, str]) -> list[str]:
    """Bring every stage up to date; return the names of those that had work to do."""
    state, worked = workspace.state, []
    for stage in stages:
        key = keys[stage.name]
        if state.done.get(stage.name) == key:
            continue
        worked.append(stage.name)
        if state.started.get(stage.name) != key:
            for name in stage.outputs:
                _remove(workspace.path(name))
            state.done.pop(stage.name, None)
            state.timings.pop(stage.name, None)
        state.started[stage.name] = key
        state.warnings.pop(stage.name, None)
        workspace.save_state()
        start = time.monotonic()
        stage.run(workspace)
        for name in stage.outputs:
            _flush(workspace.path(name))
        spent = state.timings.get(stage.name, 0.0) + time.monotonic() - start
        state.timings[stage.name] = round(spent, 2)
        state.done[stage.name] = key
        workspace.save_state()
    return worked


def spread(count: int, wanted: int) -> np.ndarray:
    """Up to `wanted` whole numbers from 0 to count - 1, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))


def _read(path: Path) -> np.ndarray:
    """`read_image` by OpenCV: the same pixels in half the time."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        return read_image(path)  # explains what is wrong
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 else image


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Put a file, or every file directly in a folder, on the disk, dropping stray temporaries.

    From several threads at a time: each file waits for the disk's journal, which takes many at
    once, twenty times as many a second.
    """
    if path.is_dir():
        entries = sorted(path.iterdir())
        for entry in entries:
            if entry.name.startswith(".partial-"):
                _remove(entry)
        whole = [e for e in entries if e.is_file() and not e.name.startswith(".partial-")]
        for _ in parallel_map(_flush_file, whole, _FLUSHED_TOGETHER):
            pass
    elif path.is_file():
        _flush_file(path)


def _flush_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # read-only descriptors cannot be flushed on some systems
        pass
    finally:
        os.close(descriptor)
