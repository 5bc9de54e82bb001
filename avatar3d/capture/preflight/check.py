"""`check`: look at a clip before any long work and say what will come of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.parallel import single_threaded
from avatar3d.capture.preflight.findings import judge
from avatar3d.capture.preflight.measures import Measures
from avatar3d.capture.preflight.page import report_page
from avatar3d.capture.preflight.people import People, find_people
from avatar3d.capture.preflight.report import CheckReport
from avatar3d.capture.preflight.scan import Scan, frame_rate, scan
from avatar3d.capture.preflight.sound import Sound, estimate_offset, hear, talking_ranges
from avatar3d.io.atomic import atomic_write
from avatar3d.io.video import VideoInfo, probe

__all__ = ["Checked", "check", "check_clip"]

_DENSE_SECONDS = 10.0
"""How much of the clip is looked at frame by frame, for blinks and the lips' time."""


@dataclass(frozen=True)
class Checked:
    """A report and what it was made of."""

    report: CheckReport
    info: VideoInfo
    scan: Scan
    people: People
    sound: Sound
    measures: Measures


def check(
    video: str | Path, config: CaptureConfig | None = None, html: str | Path | None = None
) -> CheckReport:
    """Judge a clip for capture and training, in a fraction of its length.

    A few frames a second are searched for faces, ten seconds frame by frame; every frame is looked
    at for cuts. No head model is needed.

    Args:
        video: any container, codec, size, rotation and frame rate.
        config: capture's options; start, duration, rate and detector matter here.
        html: where to write a page with pictures and plots.

    Raises:
        UserError: the file is missing, damaged or no video.
    """
    checked = check_clip(Path(video), config or CaptureConfig())
    if html is not None:
        atomic_write(html, report_page(checked.report, checked.measures))
    return checked.report


def check_clip(path: Path, config: CaptureConfig) -> Checked:
    """`check` with everything that was measured, for capture and the page."""
    info = probe(path)
    fps = frame_rate(info, config)
    seconds = config.duration or max(info.duration - config.start, 1 / fps)
    sound = hear(path, fps, max(1, round(seconds * fps)), config.start)
    dense = talking_ranges(sound.speech, fps, _DENSE_SECONDS)
    with single_threaded():
        found = scan(path, info, config, dense, config.threads)
    people = find_people(found, config)
    offset = estimate_offset(sound, _gaps(found, people, dense), fps)
    measures = Measures(info, found, people, sound, offset, config)
    return Checked(judge(path.name, measures), info, found, people, sound, measures)


def _gaps(
    found: Scan, people: People, ranges: list[tuple[int, int]]
) -> list[tuple[int, np.ndarray]]:
    """Lip gaps of the main person, frame by frame, of each range; NaN where unknown."""
    gap = np.full(found.frames, np.nan)
    for sample in found.samples:
        box = people.boxes[sample.index]
        for face in sample.faces[:1] if sample.dense else sample.faces:
            inside = (box[:2] < face.center).all() and (face.center < box[2:]).all()
            if inside and face.seen and people.reasons[sample.index] == 0:
                gap[sample.index] = face.lip_gap
    return [(low, gap[low : min(high, found.frames)]) for low, high in ranges if low < found.frames]
