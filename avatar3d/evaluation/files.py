"""From avatar files, and other systems' pictures, to reports on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avatar3d.avatar import load
from avatar3d.errors import UserError
from avatar3d.evaluation.benchmark import evaluate_benchmark
from avatar3d.evaluation.comparison import compare
from avatar3d.evaluation.config import EvaluationConfig
from avatar3d.evaluation.landmarks import face_detector
from avatar3d.evaluation.protocol import evaluate, evaluate_frames
from avatar3d.evaluation.split import is_its_clip
from avatar3d.progress import say
from avatar3d.subject import Subject, Tracking
from avatar3d.training.train import run_folder

__all__ = ["evaluate_files"]


def evaluate_files(
    avatars: Sequence[Path],
    subject: Path | None,
    output: Path,
    config: EvaluationConfig | None = None,
    foreign: Sequence[Path] = (),
) -> list[dict[str, Any]]:
    """Evaluate avatar files, and videos or folders of pictures by other systems.

    One of them is reported in `output`, several in a folder each and, where there is a recording
    to compare with, against the first of them.

    Raises:
        UserError: nothing to evaluate, or no subject where the protocol needs one.
    """
    config = config or EvaluationConfig()
    names = _names([*avatars, *foreign])
    if not names:
        raise UserError("Name an avatar file to evaluate, or another system's --frames.")
    if config.kind not in ("reconstruction", "nersemble"):
        return _unseen(avatars, foreign, names, subject, output, config)
    if subject is None:
        raise UserError("Say with --subject FOLDER which recording to compare with.")
    clip, detect = Subject(subject), face_detector()
    reports = []
    frames, tracking = None, None
    for path, name in zip([*avatars, *foreign], names, strict=True):
        folder = output / name if len(names) > 1 else output
        if len(names) > 1:
            say(f"{name}:")
        if path in avatars:
            avatar = load(path)
            refined = run_folder(path) / "tracking.npz"
            own = refined.is_file() and is_its_clip(avatar, clip)
            tracking = Tracking.load(refined) if own else None
            if config.kind == "nersemble":
                report = evaluate_benchmark(avatar, clip, folder, config, tracking, detect, name)
            else:
                report = evaluate(avatar, clip, folder, tracking, detect, config, name)
            frames = range(report["frames"][0], report["frames"][-1] + 1)
        else:
            report = evaluate_frames(path, clip, folder, detect, config, frames, tracking, name)
        reports.append(report)
    if len(reports) > 1:
        compare(reports, output)
    return reports


def _unseen(
    avatars: Sequence[Path],
    foreign: Sequence[Path],
    names: Sequence[str],
    subject: Path | None,
    output: Path,
    config: EvaluationConfig,
) -> list[dict[str, Any]]:
    from avatar3d.evaluation.unseen import evaluate_unseen

    if foreign:
        raise UserError(
            f"--frames cannot be scored by a {config.kind}, which has no recording to compare "
            "with; take a protocol of reconstruction."
        )
    clip = None if subject is None else Subject(subject)
    detect = face_detector()
    return [
        evaluate_unseen(load(path), clip, output / name if len(names) > 1 else output,
                        config, detect, name)
        for path, name in zip(avatars, names, strict=True)
    ]  # fmt: skip


def _names(paths: Sequence[Path]) -> list[str]:
    """A name each, none twice."""
    names: list[str] = []
    for path in paths:
        name = path.stem if path.is_file() else path.name
        count = 2
        while name in names:
            name = f"{path.stem}_{count}"
            count += 1
        names.append(name)
    return names
