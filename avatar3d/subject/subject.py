"""The Subject noun: a folder that capture writes and everything else reads."""

from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from avatar3d.errors import UserError
from avatar3d.io.arrays import read_arrays
from avatar3d.io.atomic import atomic_write
from avatar3d.io.images import read_image
from avatar3d.subject.consent import Consent
from avatar3d.subject.tracking import Tracking

__all__ = ["PARSING_LABELS", "Subject", "SubjectInfo"]

PARSING_LABELS: tuple[str, ...] = (
    "background", "skin", "left_eye", "right_eye", "brows", "nose", "lips", "mouth_interior",
    "teeth", "hair", "ears", "neck", "clothes",
)  # fmt: skip
"""Values of the label images in `parsing/`."""


_MAX_INFO = 64 << 20  # bytes
_MAX_FEATURES = 1 << 33  # bytes, unpacked


class SubjectInfo(BaseModel):
    """`subject.json`.

    `stages` maps a finished stage to the hash of everything it depended on; `origin` says what the
    subject was made from, and `split` which frames that source sets aside for "train" and "test".
    """

    model_config = ConfigDict(extra="forbid")

    version: int = 1
    source_name: str
    source_sha256: str
    fps: float = Field(ge=1, le=1000)
    frames: int = Field(ge=1, le=10_000_000)
    width: int = Field(ge=16, le=16384)
    height: int = Field(ge=16, le=16384)
    has_audio: bool = False
    head_model: str = "anny"
    stages: dict[str, str] = {}
    warnings: list[str] = []
    timings: dict[str, float] = {}
    consent: Consent | str | None = None
    frame_format: Literal["jpg", "png"] = "jpg"
    origin: str = "video"
    split: dict[str, list[int]] = {}

    @property
    def consent_data(self) -> dict[str, str] | str | None:
        """`consent` as JSON data."""
        consent = self.consent
        return consent.model_dump(mode="json") if isinstance(consent, Consent) else consent


class Subject:
    """One captured person on disk.

        subject.json  frames/000000.jpg  mattes/000000.png  parsing/000000.png  tracking.npz
        background.png  audio.wav  audio_features.npz

    Frame numbers start at 0 and are those of `tracking`. Imported frames may be PNG. Images are
    RGB uint8 (H, W, 3).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / "subject.json"
        if not path.is_file():
            raise UserError(
                f"{self.folder} is not a subject folder (no subject.json); "
                "make one with `avatar3d capture VIDEO -o FOLDER`."
            )
        try:
            if path.stat().st_size > _MAX_INFO:
                raise UserError(f"{path} is too large to be that of a subject; capture it again.")
            self.info = SubjectInfo.model_validate_json(self._inside(path).read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(
                f"{path} is damaged ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
                "run `avatar3d capture` again."
            ) from error

    def __len__(self) -> int:
        return self.info.frames

    @property
    def fps(self) -> float:
        return self.info.fps

    @cached_property
    def tracking(self) -> Tracking:
        tracking = Tracking.load(self._inside(self.folder / "tracking.npz"))
        if len(tracking) != self.info.frames:
            raise UserError(
                f"{self.folder} is inconsistent: {self.info.frames} frames but tracking for "
                f"{len(tracking)}; run `avatar3d capture` again."
            )
        width, height = tracking.size
        if (width, height) != (self.info.width, self.info.height):
            raise UserError(
                f"{self.folder} is inconsistent: frames of {self.info.width}x{self.info.height} "
                f"pixels but tracking in {width}x{height}; run `avatar3d capture` again."
            )
        return tracking

    def frame(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return self._image("frames", index, self.info.frame_format)

    def matte(self, index: int) -> np.ndarray:
        """(H, W) uint8 alpha of the person; 255 is person."""
        return self._image("mattes", index, "png")

    def parsing(self, index: int) -> np.ndarray:
        """(H, W) uint8 labels, indices into `PARSING_LABELS`."""
        return self._image("parsing", index, "png")

    @cached_property
    def background(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the empty plate behind the person."""
        return self._read(self.folder / "background.png")

    @property
    def audio_path(self) -> Path | None:
        """16 kHz mono WAV, or None when the clip has no sound."""
        path = self.folder / "audio.wav"
        return self._inside(path) if self.info.has_audio and path.is_file() else None

    @cached_property
    def audio_features(self) -> dict[str, np.ndarray]:
        """Feature sets by name, each (T, C) float32, one row per video frame."""
        path = self.folder / "audio_features.npz"
        if not path.is_file():
            return {}
        try:
            features = read_arrays(self._inside(path), _MAX_FEATURES)
        except (OSError, ValueError) as error:
            raise UserError(
                f"Cannot read {path} ({error}); run `avatar3d capture` again."
            ) from error
        for name, rows in features.items():
            if len(rows) != self.info.frames:
                raise UserError(
                    f"{path} is inconsistent: {name} has {len(rows)} rows for "
                    f"{self.info.frames} frames; run `avatar3d capture` again."
                )
        return features

    def save_info(self) -> None:
        atomic_write(self.folder / "subject.json", self.info.model_dump_json(indent=2) + "\n")

    def _inside(self, path: Path) -> Path:
        """`path`, unless a link leads out of the folder: a subject is its own folder's files."""
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise UserError(
                f"{path} is a link to somewhere else; put a copy of the file in its place."
            )
        return path

    def _image(self, kind: str, index: int, suffix: str) -> np.ndarray:
        return self._read(self.folder / kind / f"{index:06d}.{suffix}")

    def _read(self, path: Path) -> np.ndarray:
        image = read_image(self._inside(path), (self.info.width, self.info.height))
        if image.shape[:2] != (self.info.height, self.info.width):
            raise UserError(
                f"{path} is {image.shape[1]}x{image.shape[0]}, expected "
                f"{self.info.width}x{self.info.height}; run `avatar3d capture` again."
            )
        return image
