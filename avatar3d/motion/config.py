"""Options of making a motion from speech."""

from dataclasses import dataclass

from avatar3d.errors import UserError

__all__ = ["MotionConfig"]

_CHOICES = {
    "driver": ("auto", "personal", "universal", "energy"),
    "pose": ("captured", "idle", "orbit", "nod", "shake", "still"),
    "eyes": ("captured", "idle"),
}


@dataclass(frozen=True)
class MotionConfig:
    """How sound becomes the motion of a face."""

    driver: str = "auto"
    """What moves the mouth. personal: the driver trained on this person's speech; universal: one
    learnt from synthetic speech, for any voice; energy: the loudness and colour of the sound;
    auto: the first of these that can be had."""

    pose: str = "captured"
    """Head motion: captured (the recorded performance, forth and back), idle, orbit, nod, shake or
    still."""

    eyes: str = "captured"
    """Blinks, gaze and brows: captured or idle (made up)."""

    opening: float = 1.0
    """Scale of the jaw for the universal and energy drivers; a personal one keeps the person's."""

    seed: int = 0
    """Of made-up blinks, glances and head motion."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(
                    f"motion.{name} must be one of {', '.join(choices)}, "
                    f"got {getattr(self, name)!r}."
                )
        if not 0 <= self.opening <= 3:
            raise UserError(f"motion.opening must be within 0 to 3, got {self.opening}.")
