"""The training run of a splat avatar, as a stream of events."""

import time
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar import SplatAvatar
from avatar3d.avatar.build import driving_signal, initial_state
from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig, draw_face
from avatar3d.avatar.state import SplatState
from avatar3d.avatar.torso import torso_statistics
from avatar3d.errors import UserError
from avatar3d.head import HeadModel
from avatar3d.kernels import l1_ssim_loss, torch_on_one_thread
from avatar3d.kernels.device import pick_device
from avatar3d.subject import Subject, Tracking
from avatar3d.training import checkpoint
from avatar3d.training.config import TrainingConfig
from avatar3d.training.data import FrameStore, region_weights, select_frames, train_count
from avatar3d.training.events import Checkpointed, Done, Event, FrameRefined, Preview, Step
from avatar3d.training.optimize import SplatAdamW, keep_in_bounds, raise_eps, set_rate
from avatar3d.training.priors import Priors
from avatar3d.training.refine import Refiner, face_parameters

__all__ = ["SplatTraining"]

_EPS_AFTER = 100  # iterations of a phase after which Adam's eps is set from what it has seen
_PHASES = ("warmup", "refine", "final")
_IDLE_SECONDS = 20  # of captured motion that travels with the avatar


class SplatTraining:
    """One training run: a quick avatar, photometric tracking with it, then the final training.

    The run is a function of the subject, the head model and the config. Its state is saved in
    checkpoints, and a new object with the same arguments goes on from the newest one.

    Args:
        subject: what to learn from.
        model: the head model of its tracking.
        config: see `TrainingConfig`.
        run: folder for checkpoints.
    """

    def __init__(
        self, subject: Subject, model: HeadModel, config: TrainingConfig, run: Path
    ) -> None:
        self.subject, self.config, self.run = subject, config, run
        self.tracking = subject.tracking
        if self.tracking.head_model_fingerprint != model.fingerprint:
            raise UserError(
                f"{subject.folder} was tracked with another version of the head model "
                f"{self.tracking.head_model!r}; run `avatar3d capture` again."
            )
        self.rng = np.random.default_rng(config.seed)
        self.frames = select_frames(self.tracking, config.train_fraction, config.max_frames)
        self.device = pick_device(config.device)
        self.store = FrameStore(subject, self.frames, self.device)
        self.phase, self.iteration = "warmup", 0
        self.order = np.empty(0, np.int64)
        self.stopping = False
        self._last_save = time.monotonic()
        self.refiner: Refiner | None = None
        self._load_or_start(model)

    def __len__(self) -> int:
        """Steps and refined frames still to come."""
        remaining = {
            "warmup": self.config.warmup_iterations,
            "refine": len(self.tracking) if self.config.refine_steps else 0,
            "final": self.config.iterations,
        }
        later = _PHASES[_PHASES.index(self.phase) :]
        return sum(remaining[phase] for phase in later) - self.iteration

    def events(self) -> Iterator[Event]:
        """Train, yielding what happens; ends after `Done`, or early once `stopping` is set."""
        with torch_on_one_thread():
            yield from self._events()

    def _events(self) -> Iterator[Event]:
        for phase in _PHASES[_PHASES.index(self.phase) :]:
            if phase != self.phase:
                self._enter(phase)
            for event in self._refine() if phase == "refine" else self._optimize():
                yield event
                if self.stopping:
                    yield self._save()
                    return
                if time.monotonic() - self._last_save > self.config.checkpoint_seconds:
                    yield self._save()
        yield self._save()
        yield Done(self.avatar())

    def _optimize(self) -> Iterator[Event]:
        total = self.config.warmup_iterations if self.phase == "warmup" else self.config.iterations
        while self.iteration < total:
            frame = self._next_frame()
            set_rate(self.optimizer, self._rate(self.iteration / total))
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._loss(frame)
            loss.backward()
            self.optimizer.step()
            keep_in_bounds(self.parameters)
            self.iteration += 1
            if self.iteration == _EPS_AFTER:
                raise_eps(self.optimizer)
            yield Step(self.phase, self.iteration, float(loss.detach()))
            if self.iteration % self.config.preview_iterations == 0:
                yield Preview(self.iteration, self._preview())

    def _loss(self, frame: int) -> Tensor:
        if self.rng.random() < self.config.random_background:
            flat = self.rng.random(3)
            background = torch.tensor(flat, dtype=torch.float32, device=self.device)
            image = self.store.on_flat(frame, background)
        else:
            image, background = self.store.image(frame), self.store.background
        rendered = self._render(frame, background)
        camera = self.tracking.camera
        weight = region_weights(
            self.tracking.landmarks_fit[frame],
            camera.height,
            camera.width,
            self.config.mouth_weight,
            self.config.eye_weight,
        ).to(self.device)
        data = l1_ssim_loss(rendered, image, weight=weight, ssim_weight=self.config.ssim_weight)
        return data + self.priors(self.parameters, self.rng)

    def _render(self, frame: int, background: Tensor) -> Tensor:
        face, camera = self._face(frame), self.tracking.camera
        blended = self.phase == "final"
        image, _ = draw_face(self.rig, self.parameters, face, camera, background, blended)
        return image

    def _face(self, frame: int) -> FaceParameters:
        """What the face does in a frame, with the head's vertices, which stay for the phase."""
        if frame not in self._faces:
            face = face_parameters(self.tracking, frame, self.device)
            vertices = self.rig.head_vertices(face.weights, face.gaze)
            self._faces[frame] = replace(face, vertices=vertices)
        return self._faces[frame]

    def _refine(self) -> Iterator[Event]:
        if not self.config.refine_steps:
            return
        refiner = self._make_refiner()
        for frame in refiner.run(self.iteration):
            self.iteration = frame + 1
            yield FrameRefined(frame)

    def _enter(self, phase: str) -> None:
        if phase == "final":
            if self.refiner is not None:
                self.tracking = self.refiner.result()
                self.refiner = None
            self._adopt_tracking()
            self.optimizer = SplatAdamW(self.parameters)
            self.order = np.empty(0, np.int64)
        self.phase, self.iteration = phase, 0

    def _adopt_tracking(self) -> None:
        """Make the state's statistics those of the refined tracking."""
        self.parameters.write_to(self.state)
        signal = driving_signal(self.tracking, self.frames, self.config.basis)
        for name, value in signal.items():
            setattr(self.state, name, value)
        self.state.torso_map, self.state.torso_limit = torso_statistics(
            self.tracking, self.frames, self.subject.fps
        )
        self._set_state(self.state)

    def _set_state(self, state: SplatState) -> None:
        self.state = state
        self.priors = Priors(state, self.config, self.device)
        self.rig = SplatRig(state, self.device)
        self.parameters = SplatParameters(state, self.device)
        self._faces: dict[int, FaceParameters] = {}

    def _make_refiner(self) -> Refiner:
        if self.refiner is None:
            self.refiner = Refiner(
                self.subject,
                self.tracking,
                self.rig,
                self.parameters.requires_grad_(False),
                self.config.refine_steps,
                self.config.refine_scale,
            )
        return self.refiner

    def _next_frame(self) -> int:
        if not len(self.order):
            self.order = self.rng.permutation(self.frames)
        frame, self.order = int(self.order[0]), self.order[1:]
        return frame

    def _rate(self, progress: float) -> float:
        if self.phase == "warmup":
            return 1.0
        return self.config.final_rate**progress

    @torch.no_grad()
    def _preview(self) -> np.ndarray:
        frame = int(self.frames[len(self.frames) // 2])
        truth, rendered = self.store.image(frame), self._render(frame, self.store.background)
        panels = torch.cat([truth, rendered, ((rendered - truth) * 5).abs()], 1)
        return (panels.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()

    def avatar(self) -> SplatAvatar:
        """The avatar as it is now."""
        self.parameters.write_to(self.state)
        motion = self.tracking.motion(self.subject.fps)
        return SplatAvatar(
            state=self.state,
            background=self.subject.background,
            idle_motion=motion.slice(0, min(len(motion), round(_IDLE_SECONDS * motion.fps))),
            driver=None,
            info={
                "name": self.subject.folder.name,
                "source_sha256": self.subject.info.source_sha256,
                "consent": self.subject.info.consent,
                "train_frames": train_count(len(self.tracking), self.config.train_fraction),
                "training": asdict(self.config),
                "head_model": self.tracking.head_model,
            },
        )

    def _load_or_start(self, model: HeadModel) -> None:
        found = checkpoint.latest(self.run)
        if found is None:
            state = initial_state(
                self.subject,
                self.tracking,
                model,
                self.frames,
                self.config.gaussians,
                self.config.basis,
                self.rng,
            )
            self._set_state(state)
            self.optimizer = SplatAdamW(self.parameters)
            return
        header, tensors = found
        state_arrays = {
            name.removeprefix("state."): value.numpy()
            for name, value in tensors.items()
            if name.startswith("state.")
        }
        self._set_state(SplatState(**state_arrays))
        for name in SplatParameters.NAMES:
            getattr(self.parameters, name).data.copy_(tensors[f"parameters.{name}"])
        self.optimizer = SplatAdamW(self.parameters)
        checkpoint.restore(header, tensors, self.optimizer, self.rng)
        self.order = tensors["order"].numpy()
        self.phase, self.iteration = header["extra"]["phase"], header["extra"]["iteration"]
        if "tracking.head" in tensors:
            refined = self._with_refined(tensors)
            if self.phase == "refine":
                self._make_refiner().adopt(refined, tensors["tracking.corrections"].numpy())
            else:
                self.tracking = refined

    def _with_refined(self, tensors: dict[str, Tensor]) -> Tracking:
        weights = tensors["tracking.weights"].numpy()
        return replace(
            self.tracking,
            T_camera_head=tensors["tracking.head"].numpy(),
            T_camera_torso=tensors["tracking.torso"].numpy(),
            expression=weights[:, :52],
            residual=weights[:, 52:],
            gaze=tensors["tracking.gaze"].numpy(),
        )

    def _save(self) -> Checkpointed:
        tracking = self.refiner.result() if self.refiner is not None else self.tracking
        tensors = {f"parameters.{n}": getattr(self.parameters, n) for n in SplatParameters.NAMES}
        tensors |= {
            f"state.{f.name}": torch.as_tensor(np.array(getattr(self.state, f.name), order="C"))
            for f in fields(SplatState)
        }
        if self.refiner is not None:
            tensors["tracking.corrections"] = torch.as_tensor(self.refiner.corrections)
        tensors |= {
            "order": torch.as_tensor(self.order.copy()),
            "tracking.head": torch.as_tensor(tracking.T_camera_head),
            "tracking.torso": torch.as_tensor(tracking.T_camera_torso),
            "tracking.weights": torch.as_tensor(tracking.weights),
            "tracking.gaze": torch.as_tensor(tracking.gaze),
        }
        step = _PHASES.index(self.phase) * 10_000_000 + self.iteration
        extra: dict[str, Any] = {"phase": self.phase, "iteration": self.iteration}
        path = checkpoint.save(self.run, step, tensors, self.optimizer, self.rng, extra)
        self._last_save = time.monotonic()
        return Checkpointed(path)
