"""The training run of a splat avatar, as a stream of events."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar import SplatAvatar
from avatar3d.avatar.build import driving_signal, initial_state
from avatar3d.avatar.deform import (
    FaceParameters,
    SplatParameters,
    SplatRig,
    compare_face,
    draw_face,
)
from avatar3d.avatar.gamut import Gamut
from avatar3d.avatar.state import SplatState
from avatar3d.avatar.torso import torso_statistics
from avatar3d.head import HeadModel
from avatar3d.kernels import FaceLoss, Wanted, encode_pixels
from avatar3d.subject import Subject
from avatar3d.training import checkpoint
from avatar3d.training.coarse import halved
from avatar3d.training.config import TrainingConfig
from avatar3d.training.continuing import Rehearsal, moved_onto, widened
from avatar3d.training.data import FrameStore, region_weights
from avatar3d.training.densify import densified, look
from avatar3d.training.detail import face_region
from avatar3d.training.events import (
    Checkpointed,
    Event,
    FrameRefined,
    HeldBack,
    Preview,
    PreviewClip,
    Said,
    Step,
)
from avatar3d.training.losses import Losses, Sample
from avatar3d.training.optimize import (
    Average,
    ColorLimits,
    SplatAdamW,
    keep_in_bounds,
    raise_eps,
    set_rate,
)
from avatar3d.training.priors import Priors
from avatar3d.training.refine import Refiner, face_parameters
from avatar3d.training.run import TrainingRun
from avatar3d.training.schedule import CHECK_EVERY
from avatar3d.training.snapshot import Snapshot
from avatar3d.training.soundness import StepGuard

__all__ = ["SplatTraining"]

_EPS_AFTER = 100  # iterations of a phase after which Adam's eps is set from what it has seen
_PHASES = ("warmup", "refine", "final")
_LOOKED_AT = 24  # frames that tell where Gaussians are wanted
_CLIP_EVERY = 1000  # iterations of the final phase between two preview videos
_FIRST_TIMES = 8  # as many steps to find a shot's first frame with an avatar of another clip


class SplatTraining(TrainingRun):
    """One training run: a quick avatar, photometric tracking with it, then the final training.

    Args:
        subject, model, config, run: see `TrainingRun`.
        start: an avatar of the same person to go on with instead of a new one.
        phases: the first of "warmup", "refine" and "final", default all.
    """

    phases: tuple[str, ...] = _PHASES

    def __init__(
        self,
        subject: Subject,
        model: HeadModel,
        config: TrainingConfig,
        run: Path,
        start: SplatAvatar | None = None,
        phases: tuple[str, ...] = _PHASES,
    ) -> None:
        super().__init__(subject, model, config, run)
        self.config, self.phases = config, phases
        self.start = start
        if start is not None:
            self.tracking = moved_onto(self.tracking, model, start)
        self.store = FrameStore(subject, self.usable, run, self.device)
        self.rehearsal = Rehearsal(start, self.device) if start is not None else None
        self._weight = torch.empty(subject.info.height, subject.info.width)
        self._worked = {"refine": (0, 0.0), "final": (0, 0.0)}  # pieces and their seconds
        self.guard = StepGuard()
        self.refiner: Refiner | None = None
        self.limits: ColorLimits
        self._load_or_start(model)

    def __len__(self) -> int:
        lengths = {phase: self.schedule.length(phase) for phase in ("warmup", "final")}
        lengths["refine"] = len(self.tracking) if self.config.refine_steps else 0
        later = self.phases[self.phases.index(self.phase) :]
        return sum(lengths[phase] for phase in later) - self.iteration

    def _work(self, phase: str) -> Iterator[Event]:
        return self._refine() if phase == "refine" else self._optimize()

    def _optimize(self) -> Iterator[Event]:
        while self.iteration < self.schedule.length(self.phase):
            begun = time.monotonic()
            frame = self._next_frame()
            set_rate(self.optimizer, self.schedule.rate(self.phase, self.iteration))
            self.optimizer.zero_grad(set_to_none=True)
            sample = self._sample(frame)
            if self.phase == "warmup" and self.iteration < self.config.coarse_iterations:
                sample = halved(sample)
            loss, terms = self.losses(self._draw, self._compare, sample, self.parameters, self.rng)
            loss.backward()
            what = f"iteration {self.iteration} of the {self.phase} phase, frame {frame}"
            unsound = [*self.guard.step(self.optimizer, loss, what)]
            self.iteration += 1
            if self.average.due(self.iteration):
                keep_in_bounds(self.parameters, self.limits)
                self.average.update()
            if self.iteration == _EPS_AFTER:
                raise_eps(self.optimizer)
            self._note(self.phase, 1, begun)
            self.schedule.iterated(self.phase, self.iteration)
            seen = list(self._look())  # before anything is told: a checkpoint may follow each event
            values = {name: float(term.detach()) for name, term in terms.items()}
            yield from unsound
            yield Step(self.phase, self.iteration, float(loss.detach()), values)
            yield from seen
            if self.iteration % self.config.preview_iterations == 0:
                yield self._preview(int(self.frames[len(self.frames) // 2]))
            if self.phase == "final" and self.iteration % _CLIP_EVERY == 0:
                yield PreviewClip(self._clip, self.subject.fps)
        keep_in_bounds(self.parameters, self.limits)
        self.average.settle()

    def _look(self) -> Iterator[Event]:
        """Every now and then, how well the frames held back are met."""
        if self.phase != "final" or self.iteration % CHECK_EVERY or not len(self.held_back):
            return
        with torch.no_grad(), self.average.shown():
            samples = (self._sample(int(frame), flat=False) for frame in self.held_back)
            losses = [
                float(self.losses.picture(self._draw(sample)[0], sample)) for sample in samples
            ]
        loss = float(np.mean(losses))
        yield HeldBack(self.iteration, loss)
        if self.schedule.looked(self.iteration, loss):
            yield Said(
                f"No more gain on {len(self.held_back)} frames held back after {self.iteration} "
                f"iterations; settling until {self.schedule.total}."
            )

    def _sample(self, frame: int, flat: bool | None = None) -> Sample:
        """A frame, over its own background or, now and then, a random colour.

        Below 0 are the frames of the rehearsal, counted from -1 down.
        """
        config, camera = self.config, self.tracking.camera
        if flat is None:
            flat = frame < 0 or self.rng.random() < config.random_background
        if flat:
            background = torch.tensor(self.rng.random(3), dtype=torch.float32, device=self.device)
            if self.rehearsal is not None and frame < 0:
                return self.rehearsal.sample(-1 - frame, background)
            image = self.store.on_flat(frame, background)
        else:
            image, background = self.store.image(frame), self.store.background
        landmarks = self.tracking.landmarks_fit[frame]
        weight = region_weights(
            landmarks,
            camera.height,
            camera.width,
            config.mouth_weight,
            config.eye_weight,
            self._weight,
        ).to(self.device)
        sample = Sample(self._face(frame), camera, image, background, weight)
        if (config.detail_weight or config.perceptual_weight) and self.phase == "final":
            sample.region = face_region(landmarks, camera.height, camera.width)
        if config.matte_weight:
            sample.matte = self.store.matte(frame)
        if config.temporal_weight and not flat and frame - 1 in self.store.row:
            earlier = self.store.image(frame - 1)
            face = self._face(frame - 1)
            sample.before = Sample(face, camera, earlier, background, sample.weight)
        return sample

    def _draw(self, sample: Sample) -> tuple[Tensor, Tensor]:
        blended = self.phase == "final"
        return draw_face(
            self.rig, self.parameters, sample.face, sample.camera, sample.background, blended
        )

    def _compare(self, sample: Sample, wanted: Wanted) -> FaceLoss:
        blended = self.phase == "final"
        return compare_face(self.rig, self.parameters, sample.face, sample.camera, wanted, blended)

    def _face(self, frame: int) -> FaceParameters:
        """What the face does in a frame, with the head's vertices, which stay for the phase."""
        row = self.store.row[frame]
        tracks = self._tracks
        face = FaceParameters(
            tracks.weights[row],
            tracks.gaze[row],
            tracks.T_camera_head[row],
            tracks.T_camera_torso[row],
            self._vertices[row],
        )
        if not self._posed[row]:
            self._vertices[row] = self.rig.head_vertices(face.weights, face.gaze)
            self._posed[row] = True
        return face

    def _refine(self) -> Iterator[Event]:
        if not self.config.refine_steps:
            return
        refiner = self._make_refiner()
        begun = time.monotonic()
        for frames in refiner.run(self.schedule, self.iteration):
            self.iteration += len(frames)  # before anything is told, as in `_optimize`
            self._note("refine", len(frames), begun)
            for frame in frames:
                yield FrameRefined(frame)
            begun = time.monotonic()

    def _note(self, phase: str, pieces: int, begun: float) -> None:
        if phase in self._worked:
            before, seconds = self._worked[phase]
            self._worked[phase] = before + pieces, seconds + time.monotonic() - begun

    def _pace(self) -> str:
        """How fast the work of this process went."""
        (frames, tracking), (iterations, training) = self._worked.values()
        said = []
        if frames:
            said.append(f"photometric tracking {1e3 * tracking / frames:.0f} ms a frame")
        if iterations:
            said.append(f"final training {iterations / training:.0f} iterations a second")
        return f"{', '.join(said).capitalize()}." if said else ""

    def _enter(self, phase: str) -> None:
        if phase == "final":
            self.adopt_tracking()
            self._densify()
            self.schedule.fit(0)
            self.optimizer = SplatAdamW(self.parameters)
            self.order = np.empty(0, np.int64)
        self.phase, self.iteration = phase, 0

    def _densify(self) -> None:
        """Place what has been kept of the budget where the warm-up's pictures err."""
        if not self.config.densify or self.start is not None:
            return
        places = np.linspace(0, len(self.frames) - 1, min(_LOOKED_AT, len(self.frames)))
        samples = (self._sample(int(self.frames[int(place)]), flat=False) for place in places)
        seen = look(self.rig, self.parameters, samples, self.losses.picture)
        state, gamut = densified(self.state, self.limits.gamut, seen, self.config.gaussians)
        self.limits = ColorLimits(gamut, self.device)
        self._set_state(state)

    def adopt_tracking(self) -> None:
        """Make the state's statistics those of the refined tracking."""
        if self.refiner is not None:
            self.tracking = self.refiner.result()
            self.refiner = None
        self.parameters.write_to(self.state)
        if self.start is None:
            changed = driving_signal(self.tracking, self.frames, self.config.basis)
            changed["torso_map"], changed["torso_limit"] = torso_statistics(
                self.tracking, self.frames, self.subject.fps
            )
        else:
            changed = widened(self.start, self.tracking, self.frames)
        self._set_state(replace(self.state, **changed))

    def _set_state(self, state: SplatState) -> None:
        self.state = state
        self.losses = Losses(self.config, Priors(state, self.config, self.device), self.device)
        self.rig = SplatRig(state, self.device)
        self.parameters = SplatParameters(state, self.device)
        self.average = Average(self.parameters)
        # In few blocks: pieces between the pictures that come and go would scatter the memory.
        self._tracks = face_parameters(self.tracking, self.store.indices, self.device)
        count = len(self.store.indices)
        self._vertices = torch.empty(count, len(state.vertices), 3, device=self.device)
        self._posed = np.zeros(count, bool)

    def _make_refiner(self) -> Refiner:
        if self.refiner is None:
            self.refiner = Refiner(
                self.subject,
                self.tracking,
                self.rig,
                self.parameters.requires_grad_(False),
                self.config.refine_scale,
                **({} if self.start is None else {"first": _FIRST_TIMES}),
            )
        return self.refiner

    def _seen_together(self) -> np.ndarray:
        if self.rehearsal is None:
            return self.frames
        count = min(len(self.frames), len(self.rehearsal))
        rehearsed = self.rng.choice(len(self.rehearsal), count, replace=False)
        return np.r_[self.frames, -1 - rehearsed]

    @torch.no_grad()
    def _preview(self, frame: int) -> Preview:
        sample = self._sample(frame, flat=False)
        with self.average.shown():
            rendered, _ = self._draw(sample)
        panels = torch.cat([sample.image, rendered, ((rendered - sample.image) * 5).abs()], 1)
        return Preview(self.iteration, frame, encode_pixels(panels).cpu().numpy())

    @torch.no_grad()
    def _pair(self, frame: int) -> np.ndarray:
        sample = self._sample(frame, flat=False)
        with self.average.shown():
            pair = torch.cat([sample.image, self._draw(sample)[0]], 1)
        return encode_pixels(pair[::2, ::2].contiguous()).cpu().numpy()

    def avatar(self) -> SplatAvatar:
        """The avatar as it is now."""
        with self.average.shown():
            self.parameters.write_to(self.state)
        if self.start is not None:
            return self._continued(self.start)
        return SplatAvatar(
            state=replace(self.state),  # its arrays are replaced, not changed, as training goes on
            background=self.subject.background,
            idle_motion=self._idle_motion(),
            driver=None,
            gamut=self.limits.gamut if self.config.limit_colors else None,
            info=self._info(),
        )

    def _continued(self, start: SplatAvatar) -> SplatAvatar:
        """The avatar as it is now, of this and earlier clips; those stay named."""
        own = ("source_sha256", "consent", "train_frames", "training")
        info = start.info | {name: self._info()[name] for name in own}
        info["earlier"] = [*start.info.get("earlier", []), _origin(start.info)]
        return replace(start, state=replace(self.state), info=info)

    def _load_or_start(self, model: HeadModel) -> None:
        found = checkpoint.latest(self.run)
        if found is None:
            if self.start is not None:
                gamut = self.start.gamut or Gamut.unlimited(len(self.start.state))
                self.limits = ColorLimits(gamut, self.device)
                self._set_state(replace(self.start.state))
            else:
                at_first = round((1 - self.config.densify) * self.config.gaussians)
                amounts = at_first, self.config.basis
                state, gamut = initial_state(
                    self.subject, self.tracking, model, self.frames, *amounts, self.rng
                )
                if not self.config.limit_colors:
                    gamut = Gamut.unlimited(len(state))
                self.limits = ColorLimits(gamut, self.device)
                self._set_state(state)
            self.optimizer = SplatAdamW(self.parameters)
            return
        header, tensors = found
        snapshot = Snapshot.read(header["extra"], tensors, self.tracking)
        self.phase, self.iteration = snapshot.phase, snapshot.iteration
        if self.phase == "final":
            self.tracking = snapshot.tracking
        self.limits = ColorLimits(snapshot.gamut, self.device)
        self._set_state(snapshot.state)
        for name, value in snapshot.parameters.items():
            getattr(self.parameters, name).data.copy_(value)
        self.optimizer = SplatAdamW(self.parameters)
        checkpoint.restore(header, tensors, self.optimizer, self.rng)
        self.order = snapshot.order
        self.schedule.restore(snapshot.schedule)
        self.average.restore(snapshot.average, snapshot.averaged)
        if self.phase == "refine" and snapshot.corrections is not None:
            self._make_refiner().adopt(snapshot.tracking, snapshot.corrections)

    def _save(self) -> Checkpointed:
        refiner = self.refiner
        snapshot = Snapshot(
            phase=self.phase,
            iteration=self.iteration,
            tracking=self.tracking if refiner is None else refiner.result(),
            state=self.state,
            gamut=self.limits.gamut,
            parameters={name: getattr(self.parameters, name) for name in SplatParameters.NAMES},
            average=self.average.values,
            averaged=self.average.count,
            order=self.order,
            schedule=self.schedule.state(),
            corrections=None if refiner is None else refiner.corrections,
        )
        step = _PHASES.index(self.phase) * 10_000_000 + self.iteration
        tensors, extra = snapshot.tensors(), snapshot.described()
        path = checkpoint.save(
            self.run, step, tensors, self.optimizer, self.rng, extra, self.schedule.score
        )
        self._last_save = time.monotonic()
        return Checkpointed(path)


def _origin(info: dict[str, Any]) -> dict[str, Any]:
    return {name: info.get(name) for name in ("name", "source_sha256", "consent")}
