"""The first stage of capture: the check decides what is kept, who is followed and which frames."""

from dataclasses import dataclass

import numpy as np

from avatar3d.capture.framing import MIN_FRAMES, no_face
from avatar3d.capture.preflight import Checked, CheckReport, check_clip, report_page
from avatar3d.capture.workspace import CACHE, RejectedClip, Workspace
from avatar3d.io.atomic import atomic_write
from avatar3d.subject import FRAME_REASONS

__all__ = ["CHECK_OUTPUTS", "FrameChecks", "check", "frame_checks", "good_frames", "sound_offset"]

CHECK_OUTPUTS = ("check.json", "check.html", f"{CACHE}/check.npz")
_SURE = 0.35


@dataclass(frozen=True)
class FrameChecks:
    """What the check knows about every captured frame.

    Attributes:
        segments: (T,) int32, number of the shot.
        reasons: (T,) uint8, index into `FRAME_REASONS`, 0 usable.
        boxes: (T, 4) left, top, right, bottom of the main face, in pixels of the captured frames.
        exact: whether the boxes follow the face; else they are the clip's median.
    """

    segments: np.ndarray
    reasons: np.ndarray
    boxes: np.ndarray
    exact: bool

    @property
    def shows_person(self) -> np.ndarray:
        """(T,) bool: frames in which the main person may be looked for, fit for training or not."""
        strangers = [FRAME_REASONS.index(name) for name in ("other person", "other view")]
        return ~np.isin(self.reasons, strangers)


def check(workspace: Workspace) -> None:
    """check.json, check.html and .capture/check.npz; refuses clips that cannot succeed."""
    checked = check_clip(workspace.source, workspace.config)
    report, people = checked.report, checked.people
    _refuse(workspace, checked)
    left, top, width, height = people.crop
    scale = min(1.0, workspace.config.size / max(width, height))
    boxes = (people.boxes - [left, top, left, top]) * scale
    seen = np.array([face.box for _, face in checked.measures.looks])
    workspace.state.facts.update(
        fps=checked.scan.fps,
        width=round(width * scale),
        height=round(height * scale),
        crop=people.crop,
        face=((np.median(seen, 0) - [left, top, left, top]) * scale).tolist(),
        faces=people.most,
        cuts=checked.scan.cuts,
        sound_offset=report.offset if report.offset_confidence >= _SURE else None,
    )
    for finding in report.findings:
        if finding.state in ("limit", "fail"):
            workspace.warn("check", f"{finding.text} {finding.remedy}".strip())
    workspace.save_arrays(
        "check", segments=people.segments, reasons=people.reasons, boxes=boxes.astype(np.float32)
    )
    atomic_write(workspace.path("check.json"), report.model_dump_json(indent=1) + "\n")
    atomic_write(workspace.path("check.html"), report_page(report, checked.measures))


def _refuse(workspace: Workspace, checked: Checked) -> None:
    """Raise where the clip is hopeless; where it merely looks so, unless told to try."""
    report: CheckReport = checked.report
    fails = [finding for finding in report.findings if finding.state == "fail"]
    if any(finding.name == "length" for finding in fails):
        raise RejectedClip(_sentence(workspace, fails[0].text, fails[0].remedy))
    if not checked.measures.looks:
        raise RejectedClip(no_face(workspace.source))
    if fails and workspace.config.strict:
        finding = fails[0]
        raise RejectedClip(_sentence(workspace, finding.text, finding.remedy, finding.first))


def _sentence(workspace: Workspace, text: str, remedy: str, first: float | None = None) -> str:
    """One sentence out of two: what is wrong with the file, and what to do."""
    text, remedy = text.rstrip("."), remedy.rstrip(".")
    since = f", first at {first + workspace.config.start:.1f} s" if first else ""
    reason = f"{text[0].lower()}{text[1:]}"
    advice = f"{remedy[0].lower()}{remedy[1:]}"
    return f"{workspace.source} cannot become an avatar, because {reason}{since}: {advice}."


def frame_checks(workspace: Workspace) -> FrameChecks:
    """What `check` found; for sources that it was not run on, one shot with everything usable."""
    if workspace.has_arrays("check"):
        return FrameChecks(**workspace.load_arrays("check"), exact=True)
    frames = workspace.frames
    boxes = np.tile(np.array(workspace.state.facts["face"], np.float32), (frames, 1))
    return FrameChecks(np.zeros(frames, np.int32), np.zeros(frames, np.uint8), boxes, exact=False)


def good_frames(workspace: Workspace, found: np.ndarray) -> np.ndarray:
    """Numbers of the frames with a face (found (T,)) that show nothing amiss; else of all those."""
    good = np.flatnonzero(found & (frame_checks(workspace).reasons == 0))
    return good if len(good) >= MIN_FRAMES else np.flatnonzero(found)


def sound_offset(workspace: Workspace) -> float:
    """Seconds by which the sound is to be brought forward; 0 where auto cannot tell."""
    wanted = workspace.config.sound_offset
    if wanted != "auto":
        return float(wanted)
    found = workspace.state.facts.get("sound_offset")
    if found is None:
        workspace.warn("audio", "Whether the sound fits the lips is unsure, so it was left as is.")
    return found or 0.0
