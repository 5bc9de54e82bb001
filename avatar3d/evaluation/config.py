"""What can be set about an evaluation; the presets of `conf/evaluation/` are the protocols."""

from dataclasses import dataclass

from avatar3d.errors import UserError

__all__ = ["EvaluationConfig"]

_CHOICES = {
    "kind": ("reconstruction", "reenactment", "speech", "cameras", "nersemble"),
    "mouth": ("tracking", "audio", "heard"),
    "background": ("own", "white", "black"),
}


@dataclass(frozen=True)
class EvaluationConfig:
    """Options of `avatar3d evaluate`."""

    kind: str = "reconstruction"
    """reconstruction: frames of the subject that training did not see, against the recording.
    reenactment: another person's performance, speech: sounds and languages that were never
    recorded, both without a truth to compare with. cameras: a synthetic person, seen from where
    no camera stood. nersemble: one person of that benchmark, and the videos to submit to it."""

    mouth: str = "tracking"
    """What moves the mouth in a reconstruction: the tracked parameters, or the clip's sound alone
    by the avatar's driver (audio) or heard by a NeRF's field itself (heard), with pose, eyes and
    brows as tracked."""

    last_frames: int = 0
    """Test on exactly so many last frames, which training must not have seen; 0 takes all that it
    left."""

    background: str = "own"
    """What is behind the person, in recording and render alike: own (the avatar's plate against
    the recording as it is), or a flat white or black, put behind the recording by its matte."""

    first_frame: int = -1
    """Frame of the subject that the first of another system's pictures shows; -1 finds out from
    how many there are."""

    performer: str = ""
    """For a reenactment: a clip, a subject or a motion of somebody else."""

    sound: str = ""
    """For speech: a sound file that the avatar speaks besides the languages."""

    languages: tuple[str, ...] = ("en", "de", "fr", "cmn", "ja")
    """For speech: languages that a synthetic voice speaks."""

    seconds: float = 12.0
    """For a reenactment and a sound file: at most so much of it."""

    person: int = 0
    """For cameras: the seed that the synthetic person was made with."""

    benchmark: str = ""
    """For nersemble: the person's folder, as nersemble-benchmark-download makes it."""

    identity_model: str = ""
    """Network for CSIM: an ONNX file of ArcFace's kind; empty takes dlib's, where the asset
    face-identity is there."""

    fid_model: str = ""
    """Network for FID: an ONNX file from pictures (N, 3, 299, 299) in [0, 1] to features."""

    syncnet: str = ""
    """SyncNet's weights for LSE-C and LSE-D, as safetensors under their own names."""

    recogniser: str = ""
    """For speech, word error rate: folder of a Vosk model of the first of the languages; empty
    takes pocketsphinx for English, where that is installed."""

    openface_render: str = ""
    """Table of action units that OpenFace wrote of the renders, for its AUE."""

    openface_recording: str = ""
    """Likewise of the recording; each of the test frames or of the whole clip."""

    video: bool = True
    """Put a side-by-side video into the report."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(
                    f"evaluation.{name} must be one of {', '.join(choices)}, "
                    f"got {getattr(self, name)!r}."
                )
        for name in ("last_frames", "person"):
            if getattr(self, name) < 0:
                raise UserError(f"evaluation.{name} cannot be negative.")
        if self.seconds <= 0:
            raise UserError(f"evaluation.seconds must be positive, got {self.seconds:g}.")
