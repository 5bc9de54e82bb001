"""Options of capture."""

from dataclasses import dataclass

from avatar3d.cores import available_cores
from avatar3d.errors import UserError

__all__ = ["CaptureConfig"]


@dataclass(frozen=True)
class CaptureConfig:
    """How a video becomes a Subject. A changed option redoes only the stages that depend on it."""

    size: int = 512
    """Longest side of the captured frames in pixels; smaller sources are never enlarged."""

    crop: str = "auto"
    """auto: keep roughly square small pictures, else a square around head and shoulders;
    face: always that square; none: always the whole picture."""

    max_fps: float = 30.0
    """Faster videos are thinned to a whole fraction of their rate at or below this."""

    start: float = 0.0
    """Seconds of the video to skip."""

    duration: float | None = None
    """Seconds of the video to use; null uses all of it."""

    head_model: str = "anny"
    """Head model to fit: anny, ict or the path of a model: the folder FaceXModel of ICT-FaceKit,
    gnm_head.npz of Google's GNM, generic_model.pkl of FLAME 2020 or 2023, or a saved .npz."""

    detector: str = "auto"
    """Landmark models: tasks (the face_landmarker bundle), solutions (inside the mediapipe 0.10.21
    wheel) or auto (tasks where the bundle is at hand)."""

    face_landmarker: str | None = None
    """Path of a face_landmarker.task bundle; null looks in $AVATAR3D_FACE_LANDMARKER, then in the
    assets."""

    focal: float = 2.35
    """Focal length as a multiple of the longer side of the captured frame. Landmarks cannot tell
    it; 2.2 to 2.5 suits most clips."""

    identity_frames: int = 60
    """Frames, spread over the clip, that the shape of the face is fitted to."""

    iterations: int = 10
    """Most steps of each fit; it ends earlier once nothing changes any more."""

    refine: bool = True
    """Refine the fit by optical flow between the clip's mean face texture and every frame, where
    that makes the texture show held-out frames better."""

    parsing: str = "auto"
    """What tells skin, hair and clothes apart: default (colours learnt from the clip), multiclass
    (MediaPipe's selfie segmentation), bisenet (a face parsing network), or auto (the last, then the
    one before, where its asset has been fetched: `avatar3d assets fetch face-parsing`)."""

    parsing_model: str | None = None
    """File of the network that `parsing` names, instead of the asset."""

    chunk: int = 256
    """Frames fitted at a time; bounds memory and the work lost when interrupted."""

    workers: int = 0
    """Threads; 0 uses every processor."""

    sound_offset: str = "0"
    """Seconds by which the sound comes after the lips, to be put right; auto takes what
    `avatar3d check` estimates, where it is sure."""

    speech_model: str | None = None
    """Folder of a HuBERT, wav2vec 2.0 or WavLM model (config.json, model.safetensors) whose
    features are kept beside the others, for drivers of your own; needs the package transformers."""

    strict: bool = True
    """Stop at once where the check says that no avatar can come of the clip; false tries anyway."""

    consent: str | None = None
    """A note on the consent of the person shown, or a file with who, scope and date; kept with the
    subject and its avatars."""

    def __post_init__(self) -> None:
        allowed = {
            "crop": ("auto", "face", "none"),
            "detector": ("auto", "tasks", "solutions"),
            "parsing": ("auto", "default", "multiclass", "bisenet"),
        }
        for name, values in allowed.items():
            value = getattr(self, name)
            if value not in values:
                raise UserError(
                    f"capture.{name} must be one of {', '.join(values)}, got {value!r}."
                )
        ranges = {
            "size": (64, 4096),
            "max_fps": (1, 1000),
            "start": (0, 1e6),
            "focal": (0.3, 20),
            "identity_frames": (10, 2000),
            "iterations": (2, 1000),
            "chunk": (32, 4096),
            "workers": (0, 256),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(
                    f"capture.{name} must be within {low} to {high:g}, got {getattr(self, name)}."
                )
        if self.sound_offset != "auto" and not abs(_number(self.sound_offset)) <= 10:
            raise UserError(
                "capture.sound_offset must be auto or seconds within -10 to 10, got "
                f"{self.sound_offset!r}."
            )
        if self.parsing_model is not None and self.parsing not in ("multiclass", "bisenet"):
            raise UserError(
                "capture.parsing_model needs capture.parsing=multiclass or capture.parsing=bisenet."
            )
        if self.duration is not None and not self.duration > 0:
            raise UserError(f"capture.duration must be above 0 seconds, got {self.duration}.")

    @property
    def threads(self) -> int:
        return self.workers or available_cores()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
