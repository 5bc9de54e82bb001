"""What the check says, in a form for programs (`check.json`) and for the page."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["CheckReport", "Finding", "Series", "Stretch"]

State = Literal["good", "note", "limit", "fail"]


class Finding(BaseModel):
    """One thing that was looked at.

    Attributes:
        name: stable key, such as `face_size`; title: for people.
        state: good; note (worth knowing, harmless); limit (the avatar will suffer); fail.
        text: one sentence with the measured figure.
        remedy: what to do about it, or empty.
        first: seconds into the clip where it first shows, or None.
        values: the measured figures.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    title: str
    state: State
    text: str
    remedy: str = ""
    first: float | None = None
    values: dict[str, float] = {}


class Stretch(BaseModel):
    """Seconds from `start` to `stop` whose frames are not used, and why (`FRAME_REASONS`)."""

    model_config = ConfigDict(extra="forbid")

    start: float
    stop: float
    reason: str


class Series(BaseModel):
    """Measurements over time, one entry per look at the main person. Degrees and seconds.

    `mouth` is the lip gap in distances between the eyes.
    """

    model_config = ConfigDict(extra="forbid")

    time: list[float] = []
    yaw: list[float] = []
    pitch: list[float] = []
    mouth: list[float] = []
    eyes: list[float] = []


class CheckReport(BaseModel):
    """The verdict on a clip and everything it rests on.

    Attributes:
        source: name of the file.
        verdict: good, limits (usable, with limits) or fail (an avatar would not succeed).
        summary: the verdict as one sentence.
        first_bad: seconds of the first moment that is a limit or a failure, or None.
        fps, frames, width, height, seconds: of the captured part, size of the source.
        usable: share of the frames that training may use.
        offset: seconds by which the sound comes after the picture; None where unknown;
            offset_confidence: 0 to 1.
        cuts: seconds. unused: stretches that are left out.
    """

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    source: str
    verdict: Literal["good", "limits", "fail"]
    summary: str
    first_bad: float | None
    fps: float
    frames: int
    seconds: float
    width: int
    height: int
    usable: float
    offset: float | None
    offset_confidence: float
    cuts: list[float]
    unused: list[Stretch]
    findings: list[Finding]
    series: Series
