"""`train`: run a training, show its progress, and write the avatar."""

import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar3d.avatar import PosedAvatar, SplatAvatar, load
from avatar3d.config import save_config
from avatar3d.errors import UserError
from avatar3d.head import HeadModel
from avatar3d.head.library import load_head
from avatar3d.io.atomic import atomic_write, sweep_temporaries
from avatar3d.progress import say, track
from avatar3d.subject import Subject, Tracking
from avatar3d.training.config import RunConfig, TrainingConfig
from avatar3d.training.continuing import check_same_person
from avatar3d.training.data import train_count
from avatar3d.training.events import Done, Event, FrameRefined, Step
from avatar3d.training.listeners import PreviewWriter, sayer, tensorboard_log
from avatar3d.training.loop import SplatTraining
from avatar3d.training.nerf.config import NerfConfig
from avatar3d.training.nerf.loop import NerfTraining
from avatar3d.training.report import RunReport
from avatar3d.training.run import TrainingRun

if TYPE_CHECKING:
    from avatar3d.motion.audio_driver import AudioDriver

__all__ = ["run_folder", "train"]


def train(
    subject: Subject | str | Path,
    output: str | Path,
    config: RunConfig | None = None,
    listeners: Sequence[Callable[[Event], None]] = (),
    continue_from: str | Path | None = None,
) -> PosedAvatar:
    """Train an avatar and write it to `output`.

    Beside the file a folder `NAME.run` keeps the config, checkpoints, log, previews and the
    refined tracking. The same call goes on where an interrupted one stopped; Ctrl-C, SIGTERM and
    SIGUSR1 write a checkpoint first.

    Args:
        subject: a Subject or its folder.
        output: the avatar file, `NAME.a3d`.
        config: a `TrainingConfig` for an avatar of splats, a `NerfConfig` for a field.
        listeners: called with every `Event`.
        continue_from: an avatar file of the same person, to which this clip is added. It keeps its
            head, its picture and its Gaussians, and rehearses what it knew between the new frames.

    Raises:
        UserError: unusable subject, another person, or a run folder of other settings in the way.
        KeyboardInterrupt: stopped by a signal, after the checkpoint.
    """
    started = time.monotonic()
    subject = subject if isinstance(subject, Subject) else Subject(subject)
    config = config or TrainingConfig()
    output = Path(output)
    if output.suffix != ".a3d":
        raise UserError(f"The avatar file must be named NAME.a3d, got {output}.")
    run = run_folder(output)
    subject.audio_features  # noqa: B018, damaged ones must be found before the work, not after it
    model = load_head(subject.tracking.head_model)
    start = None
    if continue_from is not None:
        config = replace(config, warmup_iterations=0)  # there is an avatar to track with
        start = _to_go_on_with(continue_from, config)
    _claim(run, subject, config, continue_from)
    save_config(config, run / "config.yaml")
    if start is not None:
        check_same_person(subject, model, start)
    training = _training(subject, model, config, run, start)
    training.schedule.started = started
    avatar = None
    report = RunReport(run, f"Training of {output.stem}")
    everyone: list[Callable[[Event], None]] = [
        sayer, tensorboard_log(run), PreviewWriter(run), report, *listeners,
    ]  # fmt: skip
    with _stop_on_signals(training):
        progress = _tell(training.events(), everyone)
        for event in track(progress, "Training the avatar", len(training) + 1):
            if isinstance(event, Done):
                avatar = event.avatar
    if avatar is None:
        raise KeyboardInterrupt
    training.tracking.save(run / "tracking.npz")
    driver = _fit_driver(subject, training.tracking, model, config)
    avatar.driver = _better(driver, avatar.driver)
    avatar.save(output)
    return avatar


def _training(
    subject: Subject, model: HeadModel, config: RunConfig, run: Path, start: SplatAvatar | None
) -> TrainingRun:
    if isinstance(config, NerfConfig):
        return NerfTraining(subject, model, config, run)
    assert isinstance(config, TrainingConfig)
    return SplatTraining(subject, model, config, run, start)


def _to_go_on_with(path: str | Path, config: RunConfig) -> SplatAvatar:
    avatar = load(path)
    if not isinstance(avatar, SplatAvatar) or isinstance(config, NerfConfig):
        raise UserError(
            f"Only an avatar of splats can go on with another clip ({path}); train a NeRF avatar "
            "from one clip, without --continue-from."
        )
    return avatar


def _tell(events: Iterator[Event], listeners: Sequence[Callable[[Event], None]]) -> Iterator[Event]:
    """Pass every event to the listeners, and on those that count as progress."""
    for event in events:
        for listener in listeners:
            listener(event)
        if isinstance(event, Step | FrameRefined | Done):
            yield event


def run_folder(output: str | Path) -> Path:
    """Where the run of an avatar file keeps its things: `NAME.run` beside `NAME.a3d`."""
    return Path(output).with_suffix(".run")


def _better(one: "AudioDriver | None", other: "AudioDriver | None") -> "AudioDriver | None":
    """That which heard more speech."""
    if one is None or other is None:
        return one or other
    seconds = [float(driver.report.get("speech_seconds", 0)) for driver in (one, other)]
    return one if seconds[0] >= seconds[1] else other


def _claim(
    run: Path, subject: Subject, config: RunConfig, continue_from: str | Path | None
) -> None:
    """Start or continue `run`; a finished or interrupted run of other settings is set aside."""
    tracking = subject.folder / "tracking.npz"
    if not tracking.is_file():
        raise UserError(
            f"{subject.folder} has no tracking yet; run `avatar3d capture` again to finish it."
        )
    stages = subject.info.stages
    described: dict[str, Any] = {"config": asdict(config), "subject": stages}
    if continue_from is not None:
        described["start"] = hashlib.sha256(Path(continue_from).read_bytes()).hexdigest()
    key = json.dumps(described, sort_keys=True, indent=1)
    marker = run / "run.json"
    if marker.is_file() and marker.read_text() != key:
        aside = next(p for n in count(1) if not (p := run.with_name(f"{run.name}.{n}")).exists())
        run.rename(aside)
        say(f"Other settings or another capture than last time: the old run is now {aside}.")
    run.mkdir(parents=True, exist_ok=True)
    sweep_temporaries(run)
    atomic_write(marker, key)


@contextmanager
def _stop_on_signals(training: TrainingRun) -> Iterator[None]:
    """Turn the first signal into a checkpoint and an orderly end, the second into an interrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        if training.stopping:
            raise KeyboardInterrupt
        training.stopping = True
        say("Stopping after a checkpoint; run the same command again to continue.")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGUSR1"):
        numbers.append(signal.SIGUSR1)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fit_driver(
    subject: Subject, tracking: Tracking, model: HeadModel, config: RunConfig
) -> "AudioDriver | None":
    """The audio driver from the training part of the clip, or None without enough speech."""
    from avatar3d.audio import load_audio
    from avatar3d.motion.audio_driver import AudioDriver
    from avatar3d.motion.voices import ENOUGH_FRAMES, other_voices

    features = subject.audio_features
    if subject.audio_path is None or not features:
        return None
    stop = train_count(len(tracking), config.train_fraction)
    usable = np.zeros(len(tracking), bool)
    usable[:stop] = tracking.valid[:stop]
    voices: list[dict[str, np.ndarray]] = []
    if "speech" in features and len(tracking) <= ENOUGH_FRAMES:
        samples, _ = load_audio(subject.audio_path)
        voices = other_voices(samples, subject.fps, len(tracking))
    return AudioDriver.fit(features, tracking, model, subject.fps, usable, voices=voices)
