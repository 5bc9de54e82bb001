"""What the trainings of all kinds of avatar share: phases, checkpoints in time, and their end."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.avatar import PosedAvatar
from avatar3d.errors import UserError
from avatar3d.head import HeadModel
from avatar3d.kernels import torch_on_one_thread
from avatar3d.kernels.device import pick_device
from avatar3d.motion import Motion
from avatar3d.subject import Subject
from avatar3d.training.config import RunConfig
from avatar3d.training.data import hold_back, select_frames, train_count
from avatar3d.training.events import Checkpointed, Done, Event, Preview, PreviewClip, Said, Started
from avatar3d.training.schedule import Schedule

__all__ = ["TrainingRun"]

_IDLE_SECONDS = 20  # of captured motion that travels with the avatar
_CLIP_SECONDS = 2  # of the preview video
_SHEET = 5  # frames shown at the end


class TrainingRun(ABC):
    """A training, phase after phase, as a stream of events.

    It is a function of the subject, the head model and the config. Its state is saved in
    checkpoints, and a new object with the same arguments goes on from the newest one.

    Args:
        subject: what to learn from.
        model: the head model of its tracking.
        config: see `RunConfig`.
        run: folder for checkpoints.

    Attributes:
        tracking: as far as it is refined.
        frames, held_back: indices of the frames to train on and only to look at.
        phase, iteration: where the run is.
        stopping: set it, and the run ends after a checkpoint.
    """

    phases: tuple[str, ...]

    def __init__(self, subject: Subject, model: HeadModel, config: RunConfig, run: Path) -> None:
        self.subject, self.run = subject, run
        self.tracking = subject.tracking
        if self.tracking.head_model_fingerprint != model.fingerprint:
            raise UserError(
                f"{subject.folder} was tracked with another version of the head model "
                f"{self.tracking.head_model!r}; run `avatar3d capture` again."
            )
        self._config = config
        self.schedule = Schedule(config)
        self.rng = np.random.default_rng(config.seed)
        self.usable = select_frames(self.tracking, config.train_fraction, config.max_frames)
        count = config.held_back if config.patience else 0
        self.frames, self.held_back = hold_back(self.usable, count)
        self.device = pick_device(config.device)
        self.phase, self.iteration = self.phases[0], 0
        self.order = np.empty(0, np.int64)
        self.stopping = False
        self._last_save = time.monotonic()

    @abstractmethod
    def __len__(self) -> int:
        """Steps and refined frames still to come, at most."""

    @abstractmethod
    def avatar(self) -> PosedAvatar:
        """The avatar as it is now."""

    @abstractmethod
    def _work(self, phase: str) -> Iterator[Event]:
        """What happens in a phase, from `iteration` on."""

    @abstractmethod
    def _enter(self, phase: str) -> None:
        """Get ready for the next phase, and make it the run's."""

    @abstractmethod
    def _save(self) -> Checkpointed:
        """Write a checkpoint."""

    @abstractmethod
    def _preview(self, frame: int) -> Preview:
        """A frame beside its render."""

    @abstractmethod
    def _pair(self, frame: int) -> np.ndarray:
        """(H / 2, W, 3) uint8: a frame and its render at half their size."""

    def events(self) -> Iterator[Event]:
        """Train, yielding what happens; ends after `Done`, or early once `stopping` is set."""
        with torch_on_one_thread():
            self.schedule.begin()
            yield Started(self.avatar, self._preview, self.frames)
            yield from self.work()
            if not self.stopping:
                yield from self._ending()

    def work(self) -> Iterator[Event]:
        """The phases, each to its end, and checkpoints."""
        for phase in self.phases[self.phases.index(self.phase) :]:
            if phase != self.phase:
                self._enter(phase)
            for event in self._work(phase):
                yield event
                if self.stopping:
                    yield self._save()
                    return
                if time.monotonic() - self._last_save > self._config.checkpoint_seconds:
                    yield self._save()
        yield self._save()

    def _ending(self) -> Iterator[Event]:
        for place in np.linspace(0, len(self.frames) - 1, _SHEET):
            yield self._preview(int(self.frames[int(place)]))
        yield PreviewClip(self._clip, self.subject.fps)
        if said := self._pace():
            yield Said(said)
        yield Done(self.avatar())

    def _pace(self) -> str:
        """How fast the work of this process went, as a sentence."""
        return ""

    def _clip(self) -> Iterator[np.ndarray]:
        """Frames beside their renders, for as long as a preview lasts."""
        for frame in self.frames[: round(_CLIP_SECONDS * self.subject.fps)]:
            yield self._pair(int(frame))

    def _next_frame(self) -> int:
        """Every frame once, in random order, and then again."""
        if not len(self.order):
            self.order = self.rng.permutation(self._seen_together())
        frame, self.order = int(self.order[0]), self.order[1:]
        return frame

    def _seen_together(self) -> np.ndarray:
        """Frames that are looked at in turn."""
        return self.frames

    def _idle_motion(self) -> Motion:
        motion = self.tracking.motion(self.subject.fps)
        return motion.slice(0, min(len(motion), round(_IDLE_SECONDS * motion.fps)))

    def _info(self) -> dict[str, Any]:
        """What an avatar says of itself."""
        return {
            "name": self.subject.folder.name,
            "source_sha256": self.subject.info.source_sha256,
            "consent": self.subject.info.consent_data,
            "train_frames": train_count(len(self.tracking), self._config.train_fraction),
            "training": asdict(self._config),
            "head_model": self.tracking.head_model,
            "identity": np.round(self.tracking.identity, 5).tolist(),
        }
