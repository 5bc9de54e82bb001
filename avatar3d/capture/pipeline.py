"""`capture`: runs the stages in a hidden folder and puts the finished Subject in place."""

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

from avatar3d.audio.transformer import check_speech_model
from avatar3d.capture.config import CaptureConfig
from avatar3d.capture.embedding import detected_embedding
from avatar3d.capture.parallel import single_threaded
from avatar3d.capture.stages import STAGES, models_in_use
from avatar3d.capture.workspace import RejectedClip, Stage, Workspace, run_stages, stage_keys
from avatar3d.config import save_config
from avatar3d.errors import UserError
from avatar3d.head import HeadModel, load_head
from avatar3d.io.atomic import atomic_write, partial_beside
from avatar3d.io.video import probe
from avatar3d.progress import say
from avatar3d.subject import Consent, Subject, SubjectInfo, read_consent

__all__ = ["build_subject", "capture"]


def capture(
    video: str | Path,
    output: str | Path,
    config: CaptureConfig | None = None,
    head: HeadModel | None = None,
) -> Subject:
    """Turn a video of one person into a Subject folder.

    The work happens in the hidden folder `.NAME.capture` beside `output`, stage by stage. Killed at
    any time, the same call continues from there; the Subject appears when everything is done. Run
    again with changed options, only the stages that depend on them are redone.

    Args:
        video: any container, codec, size, rotation and frame rate.
        output: folder to make, or a Subject made before.
        config: options; default `CaptureConfig()`.
        head: head model to fit instead of `load_head(config.head_model)`.

    Raises:
        UserError: unreadable video, no face, too few frames, or `output` is something else.
    """
    video = Path(video)
    probe(video)
    _check_output(Path(output))
    return build_subject(video, _hash_file(video), STAGES, output, config, head)


def build_subject(
    source: Path,
    sha256: str,
    stages: tuple[Stage, ...],
    output: str | Path,
    config: CaptureConfig | None = None,
    head: HeadModel | None = None,
    origin: str = "video",
    split: dict[str, tuple[int, ...]] | None = None,
) -> Subject:
    """Run stages over any source and put the finished Subject in place; see `capture`.

    Args:
        source: where the recording lies; sha256: of its content.
        stages: what to do, in order.
        origin: what kind of source it is; split: frames that it sets aside for "train" and "test".
    """
    output, config = Path(output), config or CaptureConfig()
    consent = read_consent(config.consent)
    start = time.monotonic()
    _check_output(output)
    if config.speech_model:
        check_speech_model(config.speech_model)
    models = models_in_use(config)
    folder = output.absolute().with_name(f".{output.absolute().name}.capture")
    if head is None and not output.exists():
        _check_first(folder, source, sha256, stages, config, models)
    head = head or load_head(config.head_model, detected_embedding(config))
    keys = stage_keys(stages, sha256, config, head, models)
    if _finished(output, keys):
        say(f"{output} is up to date.")
        save_config(config, output / "config.yaml")
        subject = Subject(output)
        if consent is not None and subject.info.consent != consent:
            subject.info.consent = consent
            subject.save_info()
        return subject
    if not folder.is_dir() and output.is_dir():
        _link_tree(output, folder)
    workspace = Workspace(folder, source, sha256, config, head)
    worked = _run(workspace, stages, keys)
    workspace.state.started = {}
    workspace.save_state()
    save_config(config, folder / "config.yaml")
    _write_info(workspace, keys, consent, origin, split or {})
    _put_in_place(folder, output)
    if consent is None:
        say(
            "No consent of the person shown is noted; --consent FILE records it (who, scope, date)."
        )
    _summarise(workspace, worked, time.monotonic() - start)
    return Subject(output)


def _check_first(
    folder: Path,
    source: Path,
    sha256: str,
    stages: tuple[Stage, ...],
    config: CaptureConfig,
    models: dict[str, str],
) -> None:
    """Run the stages that need nothing, not even a head model, which takes a while to build."""
    first = tuple(stage for stage in stages if stage.name == "check")
    keys = stage_keys(first, sha256, config, None, models)
    _run(Workspace(folder, source, sha256, config, None), first, keys)


def _run(workspace: Workspace, stages: tuple[Stage, ...], keys: dict[str, str]) -> list[str]:
    try:
        with single_threaded(torch_too=False):
            return run_stages(workspace, stages, keys)
    except RejectedClip:
        shutil.rmtree(workspace.folder, ignore_errors=True)
        raise


def _check_output(output: Path) -> None:
    if output.is_file():
        raise UserError(f"{output} is a file; give the name of a folder for the subject.")
    if output.is_dir() and any(output.iterdir()) and not (output / "subject.json").is_file():
        raise UserError(
            f"{output} exists and is not a subject folder; give another name or empty it."
        )


def _finished(output: Path, keys: dict[str, str]) -> bool:
    if not (output / "subject.json").is_file():
        return False
    try:
        return Subject(output).info.stages == keys
    except UserError:  # damaged: build it anew
        return False


def _hash_file(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _link_tree(source: Path, target: Path) -> None:
    """A second tree of the same files. Files are only ever replaced, so links are safe."""
    temporary = partial_beside(target)
    try:
        shutil.copytree(source, temporary, copy_function=_link)
        (temporary / "subject.json").unlink(missing_ok=True)
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write_info(
    workspace: Workspace,
    keys: dict[str, str],
    consent: Consent | str | None,
    origin: str,
    split: dict[str, tuple[int, ...]],
) -> None:
    state = workspace.state
    info = SubjectInfo(
        source_name=workspace.source.name,
        source_sha256=state.source_sha256,
        fps=workspace.fps,
        frames=workspace.frames,
        width=workspace.width,
        height=workspace.height,
        has_audio=bool(state.facts.get("has_audio")),
        head_model=workspace.head.name,
        stages=keys,
        warnings=[text for name in keys for text in state.warnings.get(name, [])],
        timings={name: state.timings.get(name, 0.0) for name in keys},
        consent=consent,
        frame_format=workspace.frame_format,
        origin=origin,
        split={name: list(frames) for name, frames in split.items()},
    )
    atomic_write(workspace.folder / "subject.json", info.model_dump_json(indent=2) + "\n")


def _put_in_place(folder: Path, output: Path) -> None:
    """Rename the finished folder to `output`; an older subject there goes away as a whole."""
    if output.is_dir():
        old = partial_beside(output.absolute(), replaced=True)
        os.rename(output, old)
        os.rename(folder, output)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(folder, output)


def _summarise(workspace: Workspace, worked: list[str], seconds: float) -> None:
    frames = workspace.frames
    parts = ", ".join(
        f"{name} {workspace.state.timings[name] / frames * 1e3:.1f}" for name in worked
    )
    say(
        f"Captured {frames} frames in {seconds:.1f} s, {seconds / frames * 1e3:.0f} ms/frame "
        f"({parts}); peak memory {_peak_memory_gb():.1f} GB."
    )


def _peak_memory_gb() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)
