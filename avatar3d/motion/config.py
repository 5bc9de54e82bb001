"""Options of making a motion, from speech above all."""

from dataclasses import dataclass

from avatar3d.errors import UserError

__all__ = ["MotionConfig"]

_CHOICES = {
    "driver": ("auto", "personal", "universal", "visemes", "energy"),
    "pose": ("captured", "idle", "orbit", "nod", "shake", "still"),
    "eyes": ("captured", "idle"),
    "emotion": ("neutral", "smile", "serious", "surprised"),
}


@dataclass(frozen=True)
class MotionConfig:
    """How sound becomes the motion of a face."""

    driver: str = "auto"
    """What moves the mouth. personal: the driver trained on this person's speech; universal: one
    learnt from synthetic speech, for any voice; visemes: rules for phonemes whose times are known,
    as those of a text are; energy: the loudness and colour of the sound; auto: personal, which
    minds such phonemes too, else visemes where they are known, else the first of the others."""

    pose: str = "captured"
    """Head motion: captured (the recorded performance, forth and back), idle (new, after the
    recorded manner, livelier where more is said), orbit, nod, shake or still."""

    eyes: str = "captured"
    """Blinks, gaze and brows: captured, or idle (new, after the recorded manner)."""

    intensity: float = 1.0
    """Scale of idle motion: 0 is still but for the blinks, 1 as lively as recorded, at most 3."""

    emotion: str = "neutral"
    """A mood laid over everything: neutral, smile, serious or surprised."""

    emotion_intensity: float = 1.0
    """How much of it, 0 to 2."""

    opening: float = 1.0
    """Scale of the jaw for all drivers but the personal one, which keeps the person's."""

    seed: int = 0
    """Of idle blinks, glances and head motion."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(
                    f"motion.{name} must be one of {', '.join(choices)}, "
                    f"got {getattr(self, name)!r}."
                )
        ranges = {"opening": (0, 3), "intensity": (0, 3), "emotion_intensity": (0, 2)}
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(
                    f"motion.{name} must be within {low} to {high}, got {getattr(self, name)}."
                )
