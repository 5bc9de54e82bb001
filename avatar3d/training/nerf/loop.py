"""The training run of a NeRF avatar, as a stream of events."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar import NerfAvatar, PosedAvatar, SplatAvatar, load
from avatar3d.avatar.nerf.audio import heard, spoken_weights
from avatar3d.avatar.nerf.avatar import occupancy_of
from avatar3d.avatar.nerf.build import initial_field
from avatar3d.avatar.nerf.state import NerfState
from avatar3d.avatar.nerf.trace import trace
from avatar3d.avatar.nerf.warp import WarpRig
from avatar3d.avatar.rig import FaceParameters
from avatar3d.errors import UserError
from avatar3d.head import HeadModel
from avatar3d.kernels import encode_pixels, l1_ssim_loss
from avatar3d.motion.sliders import columns_named
from avatar3d.subject import Subject
from avatar3d.training import checkpoint
from avatar3d.training.data import FrameStore
from avatar3d.training.events import Checkpointed, Event, HeldBack, Preview, PreviewClip, Said, Step
from avatar3d.training.loop import SplatTraining
from avatar3d.training.nerf.config import NerfConfig
from avatar3d.training.nerf.draw import Drawn, FieldDrawing
from avatar3d.training.nerf.looks import Look, Looks
from avatar3d.training.nerf.occupied import Occupied
from avatar3d.training.nerf.parameters import FieldAdam, TrainedField
from avatar3d.training.nerf.sides import Sides
from avatar3d.training.nerf.snapshot import FieldSnapshot
from avatar3d.training.optimize import Average, set_rate
from avatar3d.training.run import TrainingRun
from avatar3d.training.schedule import CHECK_EVERY

__all__ = ["NerfTraining"]

_QUICK, _FINAL = "quick", "final"
_CLOSED, _CLOSED_SHARE, _MOST_TIMES = 0.4, 0.2, 8  # of eyes, of the frames looked at, each
_CLIP_EVERY = 4000  # iterations between two preview videos
_SIDE_WEIGHT = 0.3  # of pictures of the quick avatar, which is not as sharp


class NerfTraining(TrainingRun):
    """A quick avatar of splats, photometric tracking with it, then the field.

    Args:
        subject, model, config, run: see `TrainingRun`. The quick avatar's own run is in RUN/quick,
            and the avatar itself stays as RUN/quick.a3d.
    """

    phases = (_QUICK, _FINAL)

    def __init__(self, subject: Subject, model: HeadModel, config: NerfConfig, run: Path) -> None:
        super().__init__(subject, model, config, run)
        self.config = config
        self._worked = 0, 0.0
        self.quick: SplatTraining | None = None
        found = checkpoint.latest(run)
        if found is None:
            folder = run / "quick"
            folder.mkdir(parents=True, exist_ok=True)
            phases = ("warmup", "refine")
            self.quick = SplatTraining(subject, model, config.quick(), folder, phases=phases)
            return
        header, tensors = found
        snapshot = FieldSnapshot.read(header["extra"], tensors, self.tracking)
        self.tracking, self.phase, self.iteration = snapshot.tracking, _FINAL, snapshot.iteration
        self._start(snapshot.state)
        snapshot.parameters_into(self.field)
        self.average.restore(snapshot.average, snapshot.averaged)
        self.occupied.restore(snapshot.occupied)
        self.looks.choice.errors = snapshot.errors
        checkpoint.restore(header, tensors, self.optimizer, self.rng)
        self.order = snapshot.order
        self.schedule.restore(snapshot.schedule)

    def __len__(self) -> int:
        left = self.schedule.length(_FINAL) - self.iteration
        return left if self.quick is None else left + len(self.quick)

    def avatar(self) -> PosedAvatar:
        if self.quick is not None:
            return self.quick.avatar()
        state = replace(self.state)
        with self.average.shown():
            self.field.write_to(state)
        state.occupancy = self.occupied.grid.bits.cpu().numpy().copy()
        return NerfAvatar(
            state=state,
            background=self.subject.background,
            idle_motion=self._idle_motion(),
            driver=None,
            info=self._info(),
        )

    def _work(self, phase: str) -> Iterator[Event]:
        if self.quick is None:
            yield from self._optimize()
            return
        for event in self.quick.work():
            if not isinstance(event, Checkpointed):
                yield event

    def _enter(self, phase: str) -> None:
        assert self.quick is not None
        self.quick.adopt_tracking()
        self.quick.avatar().save(self.run / "quick.a3d")
        self.tracking, self.rng = self.quick.tracking, self.quick.rng
        self.quick, self.phase, self.iteration = None, phase, 0
        splats = self._quick_avatar().state
        features, size = self.subject.audio_features, self.config.size()
        self._start(initial_field(splats, self.tracking, self.frames, features, size, self.rng))
        self.schedule.fit(0)

    def _quick_avatar(self) -> SplatAvatar:
        """As a resumed run knows it too."""
        avatar = load(self.run / "quick.a3d")
        assert isinstance(avatar, SplatAvatar)
        return avatar

    def _start(self, state: NerfState) -> None:
        """Everything that the field's training needs before its first iteration."""
        config, camera = self.config, self.tracking.camera
        self.state = state
        self.rig = WarpRig(state, self.device)
        self.field = TrainedField(state, len(self.usable), self.device)
        self.average = Average(self.field, TrainedField.NAMES)
        self.optimizer = FieldAdam(self.field, config)
        self.occupied = Occupied(occupancy_of(state, self.device))
        largest = max(camera.width, camera.height)
        self.camera = camera.scaled(min(1.0, config.resolution / largest))
        self.known: Tensor | None = None
        if state.hears:
            known = heard(state, self.subject.audio_features)[self.usable]
            self.known = torch.tensor(known, device=self.device)
        sides = None
        if config.sides:
            own = np.random.default_rng([config.seed, 1])  # for a resumed run to draw the same ones
            weights = self.tracking.weights[self.frames]
            sides = Sides(self._quick_avatar(), weights, self.camera, own)
        size = self.camera.width, self.camera.height
        store = FrameStore(self.subject, self.usable, self.run, self.device, size)
        self.looks = Looks(self.tracking, store, self.camera, config, sides)
        self.draw = FieldDrawing(state, self.camera, self.rig, self.field, config.pose_rate > 0)

    def _optimize(self) -> Iterator[Event]:
        while self.iteration < self.schedule.length(_FINAL):
            begun = time.monotonic()
            self.occupied.update(self.iteration, self._density, self.rng)
            set_rate(self.optimizer, self.schedule.rate(_FINAL, self.iteration))
            self.optimizer.zero_grad(set_to_none=True)
            terms = self._terms()
            loss = torch.stack([*terms.values()]).sum()
            loss.backward()
            self.optimizer.step()
            self.iteration += 1
            if self.average.due(self.iteration):
                self.average.update()
            before, seconds = self._worked
            self._worked = before + 1, seconds + time.monotonic() - begun
            self.schedule.iterated(_FINAL, self.iteration)
            seen = list(self._look())  # before anything is told: a checkpoint may follow each event
            values = {name: float(term.detach()) for name, term in terms.items()}
            if not np.isfinite(sum(values.values())):
                raise UserError(
                    f"The field's training has come to numbers that are not finite after "
                    f"{self.iteration} iterations; lower table_rate and network_rate."
                )
            yield Step(_FINAL, self.iteration, float(loss.detach()), values)
            yield from seen
            if self.iteration % self.config.preview_iterations == 0:
                yield self._preview(int(self.frames[len(self.frames) // 2]))
            if self.iteration % _CLIP_EVERY == 0:
                yield PreviewClip(self._clip, self.subject.fps)
        self.average.settle()

    def _terms(self) -> dict[str, Tensor]:
        """The weighted terms of an iteration's loss, by name:

        picture: L1, and for squares SSIM. distortion: density spread along rays. gates: how open
        they are. appearance: of the frames. agreement: of the mouth's codes from sound and
        expression.
        """
        config, draws = self.config, self.rng.random(3)
        late = self.iteration >= config.patches_from * self.schedule.length(_FINAL)
        from_side = self.looks.sides is not None and draws[0] < config.sides
        square = not from_side and late and draws[1] < config.patches
        looks = self._looks(from_side, square)
        known, spoken = None, None
        if self.known is not None and not from_side:
            known = self.known[[look.row for look in looks]]
            if draws[2] < config.sound:
                spoken = self._spoken(looks, known)
        drawn = self.draw(looks, self.occupied.grid, self.rng, known, spoken)
        self.occupied.see(drawn.points, drawn.rays.weights)
        terms = self._compared(looks, drawn, square)
        terms["distortion"] = config.distortion_weight * drawn.rays.distortion.mean()
        if len(drawn.gates):
            terms["gates"] = config.gate_weight * drawn.gates[:, :-1].mean()
        terms["appearance"] = config.appearance_weight * self.field.appearances.square().mean()
        if drawn.disagreement is not None:
            terms["agreement"] = config.agreement_weight * drawn.disagreement
        return terms

    def _seen_together(self) -> np.ndarray:
        """Those with closed eyes several times, as a clip has few of them."""
        blink = self.tracking.weights[self.frames][:, columns_named("eyeBlink")].mean(1)
        closed = self.frames[blink > _CLOSED]
        wanted = _CLOSED_SHARE * len(self.frames) / max(len(closed), 1)
        times = int(np.clip(round(wanted), 1, _MOST_TIMES))
        return np.concatenate([self.frames, np.repeat(closed, times - 1)])

    def _looks(self, from_side: bool, square: bool) -> list[Look]:
        rays = self.config.rays
        if from_side:
            return [self.looks.side(rays, self.rng)]
        if square:
            return [self.looks.square(self._next_frame(), int(rays**0.5), self.rng)]
        count = self.config.frames_together
        each = max(1, rays // count)
        return [self.looks.some(self._next_frame(), each, self.rng) for _ in range(count)]

    def _compared(self, looks: list[Look], drawn: Drawn, square: bool) -> dict[str, Tensor]:
        background = torch.cat([look.background for look in looks])
        target = torch.cat([look.target for look in looks])
        image = drawn.rays.color + (1 - drawn.rays.alpha)[:, None] * background
        errors = (image - target).abs().mean(1)
        if looks[0].row is None:
            return {"picture": _SIDE_WEIGHT * errors.mean()}
        pixels = torch.cat([look.pixels for look in looks])
        self.looks.choice.learn(pixels, errors.detach())
        if not square:
            return {"picture": errors.mean()}
        width = int(looks[0].pixels.diff().eq(1).logical_not().nonzero()[0]) + 1
        drawn_square, wanted = (p.view(-1, width, 3).contiguous() for p in (image, target))
        loss = l1_ssim_loss(drawn_square, wanted, ssim_weight=self.config.ssim_weight)
        return {"picture": loss}

    def _spoken(self, looks: list[Look], known: Tensor) -> list[FaceParameters]:
        weights = torch.stack([look.face.weights for look in looks])
        said = spoken_weights(self.state, known, weights)
        return [replace(look.face, weights=w) for look, w in zip(looks, said, strict=True)]

    @torch.no_grad()
    def _density(self, points: Tensor) -> Tensor:
        """Of some points with the face of one of the frames."""
        face = self.looks.face(int(self.rng.choice(self.frames)))
        codes = self.field.codes(self.rig.signal(face.weights, face.gaze)[None])
        rows = torch.zeros(len(points), dtype=torch.int32, device=self.device)
        return self.field(points, rows, self.field.vectors(codes)).density

    def _look(self) -> Iterator[Event]:
        """Every now and then, how well the frames held back are met."""
        if self.iteration % CHECK_EVERY or not len(self.held_back):
            return
        errors = []
        for frame in self.held_back:
            image, target = self._shown(int(frame))
            errors.append(float((image - target).abs().mean()))
        loss = float(np.mean(errors))
        yield HeldBack(self.iteration, loss)
        if self.schedule.looked(self.iteration, loss):
            yield Said(
                f"No more gain on {len(self.held_back)} frames held back after {self.iteration} "
                f"iterations; settling until {self.schedule.total}."
            )

    @torch.no_grad()
    def _shown(self, frame: int) -> tuple[Tensor, Tensor]:
        """Render and recording (H, W, 3) of a frame."""
        store, face = self.looks.store, self.looks.face(frame)
        with self.average.shown():
            self.field.appearance.copy_(self.field.appearances.mean(0))
            where = self.field, self.rig, self.occupied.grid, float(self.state.ray_step)
            seen = trace(*where, face, self.camera)
        return seen.over(store.background), store.image(frame)

    def _preview(self, frame: int) -> Preview:
        if self.quick is not None:
            return self.quick._preview(frame)
        rendered, image = self._shown(frame)
        panels = torch.cat([image, rendered, ((rendered - image) * 5).abs()], 1)
        return Preview(self.iteration, frame, encode_pixels(panels).cpu().numpy())

    def _pair(self, frame: int) -> np.ndarray:
        rendered, image = self._shown(frame)
        pair = torch.cat([image, rendered], 1)
        return encode_pixels(pair[::2, ::2].contiguous()).cpu().numpy()

    def _pace(self) -> str:
        iterations, seconds = self._worked
        return f"Field training {iterations / seconds:.1f} iterations a second." if seconds else ""

    def _save(self) -> Checkpointed:
        if self.quick is not None:
            return self.quick._save()
        field = self.field
        snapshot = FieldSnapshot(
            iteration=self.iteration,
            tracking=self.tracking,
            state=self.state,
            parameters={name: getattr(field, name) for name in TrainedField.NAMES},
            average=self.average.values,
            averaged=self.average.count,
            occupied=self.occupied.tensors(),
            errors=self.looks.choice.errors,
            order=self.order,
            schedule=self.schedule.state(),
        )
        tensors, extra = snapshot.tensors(), snapshot.described()
        path = checkpoint.save(
            self.run, self.iteration, tensors, self.optimizer, self.rng, extra, self.schedule.score
        )
        self._last_save = time.monotonic()
        return Checkpointed(path)
