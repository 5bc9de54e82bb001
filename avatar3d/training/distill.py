"""From a field to splats: sample its surface, then refine the Gaussians on pictures of the field.

Splats go where a field cannot: to the web viewer and into splat files.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar import NerfAvatar, SplatAvatar
from avatar3d.avatar.deform import SplatParameters, SplatRig, compare_face, draw_face
from avatar3d.avatar.gamut import Gamut
from avatar3d.avatar.nerf.splats import sampled_splats
from avatar3d.avatar.rig import FaceParameters
from avatar3d.avatar.state import SplatState
from avatar3d.errors import UserError
from avatar3d.geometry import yaw_pitch_roll
from avatar3d.kernels import FaceLoss, Wanted, torch_on_one_thread
from avatar3d.kernels.device import pick_device
from avatar3d.motion.motion import Motion
from avatar3d.progress import say, track
from avatar3d.training.config import TrainingConfig
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

__all__ = ["DistillConfig", "to_splats"]

_EPS_AFTER = 100  # iterations after which Adam's eps is set from what it has seen
_TURNED = 0.5  # fraction of the pictures with the head turned further than it was filmed
_TURN = np.deg2rad([30.0, 12.0, 5.0])  # yaw, pitch, roll
_HELD_BACK = 8  # pictures that only tell how well it went


@dataclass(frozen=True)
class DistillConfig:
    """Options of `avatar3d convert`."""

    gaussians: int = 25_000
    """Budget of Gaussians."""
    basis: int = 16
    """Number of learned attribute blendshapes."""
    pictures: int = 160
    """Pictures of the field to learn from."""
    iterations: int = 1500
    """Iterations of the refinement."""
    device: str = "auto"
    """Where to work: cpu, cuda, or auto."""
    seed: int = 0
    """Seed of every random choice."""


@dataclass(frozen=True)
class _Picture:
    """A face, and what the field shows of it: colour over black and alpha, in 255ths."""

    face: FaceParameters
    color: Tensor
    alpha: Tensor

    def over(self, background: Tensor) -> Tensor:
        """(H, W, 3) in [0, 1] over a background (3,) or (H, W, 3)."""
        clear = 1 - self.alpha.float().mul_(1 / 255)
        return self.color.float().mul_(1 / 255).addcmul_(clear[..., None], background)


def to_splats(avatar: NerfAvatar, config: DistillConfig | None = None) -> SplatAvatar:
    """The splat avatar that looks and moves like a field.

    Args:
        avatar: the field; its idle motion gives the expressions to learn.
        config: see `DistillConfig`.

    Raises:
        UserError: the field shows nothing, or there is no such device.
    """
    config = config or DistillConfig()
    rng = np.random.default_rng(config.seed)
    avatar = avatar.to(str(pick_device(config.device)))
    with torch_on_one_thread():
        try:
            state = sampled_splats(avatar, config.gaussians, config.basis, rng)
        except ValueError as error:
            raise UserError(
                f"This avatar cannot be converted: {error}; train it for longer."
            ) from error
        pictures = _pictures(avatar, config, rng)
        work = _Distillation(avatar, state, config, rng)
        for iteration in track(range(config.iterations), "Refining", config.iterations):
            work.step(pictures[_HELD_BACK:], iteration)
        psnr = work.finish(pictures[:_HELD_BACK])
    say(f"{len(state)} Gaussians; {psnr:.1f} dB against new pictures of the field.")
    return SplatAvatar(
        state=state,
        background=avatar.background,
        idle_motion=avatar.idle_motion,
        driver=avatar.driver,
        info=avatar.info | {"converted_from": "nerf", "conversion_psnr": round(psnr, 2)},
    )


class _Distillation:
    """The refinement's moving parts; `state` is written when it is finished."""

    def __init__(
        self,
        avatar: NerfAvatar,
        state: SplatState,
        config: DistillConfig,
        rng: np.random.Generator,
    ) -> None:
        device = avatar.device
        settings = TrainingConfig(gaussians=config.gaussians, basis=config.basis)
        self.state, self.config, self.rng = state, config, rng
        self.camera, self.device = avatar.camera, device
        self.rig, self.parameters = SplatRig(state, device), SplatParameters(state, device)
        self.losses = Losses(settings, Priors(state, settings, device), device)
        self.limits = ColorLimits(Gamut.unlimited(len(state)), device)
        self.optimizer = SplatAdamW(self.parameters)
        self.average = Average(self.parameters)
        self.final_rate = settings.final_rate
        self.weight = torch.ones(self.camera.height, self.camera.width, device=device)

    def step(self, pictures: list[_Picture], iteration: int) -> None:
        set_rate(self.optimizer, self.final_rate ** (iteration / self.config.iterations))
        self.optimizer.zero_grad(set_to_none=True)
        sample = self._sample(pictures[int(self.rng.integers(len(pictures)))])
        loss, _ = self.losses(self._draw, self._compare, sample, self.parameters, self.rng)
        loss.backward()
        self.optimizer.step()
        if self.average.due(iteration + 1):
            keep_in_bounds(self.parameters, self.limits)
            self.average.update()
        if iteration + 1 == _EPS_AFTER:
            raise_eps(self.optimizer)

    def finish(self, unseen: list[_Picture]) -> float:
        """Write the state, and say how well it meets some pictures: dB."""
        keep_in_bounds(self.parameters, self.limits)
        self.average.settle()
        self.parameters.write_to(self.state)
        self.state.validate()
        errors = []
        with torch.no_grad():
            for picture in unseen:
                sample = self._sample(picture)
                errors.append(float((self._draw(sample)[0] - sample.image).square().mean()))
        return float(-10 * np.log10(np.mean(errors)))

    def _sample(self, picture: _Picture) -> Sample:
        color = torch.tensor(self.rng.random(3), dtype=torch.float32, device=self.device)
        image = picture.over(color)
        return Sample(picture.face, self.camera, image, color, self.weight)

    def _draw(self, sample: Sample) -> tuple[Tensor, Tensor]:
        where = sample.face, sample.camera, sample.background
        return draw_face(self.rig, self.parameters, *where)

    def _compare(self, sample: Sample, wanted: Wanted) -> FaceLoss:
        return compare_face(self.rig, self.parameters, sample.face, sample.camera, wanted)


def _pictures(
    avatar: NerfAvatar, config: DistillConfig, rng: np.random.Generator
) -> list[_Picture]:
    """What the field shows of faces that the person made, some of them turned further."""
    nothing = torch.zeros(3, device=avatar.device)
    motion = _poses(avatar.idle_motion, config.pictures + _HELD_BACK, rng)
    pictures = []
    for face in track(avatar.faces(motion), "Looking at the field", len(motion)):
        color, alpha = avatar.picture(face, avatar.camera, nothing)
        pictures.append(_Picture(face, _bytes(color), _bytes(alpha)))
    return pictures


def _poses(motion: Motion, count: int, rng: np.random.Generator) -> Motion:
    """`count` moments of a motion; half of them with the head turned by some angle more."""
    moments = motion.at(rng.uniform(0, len(motion) - 1, count))
    head = moments.head_pose
    head = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1)) if head is None else head.copy()
    for row in np.flatnonzero(rng.random(count) < _TURNED):
        turn = (torch.tensor(angle) for angle in rng.uniform(-_TURN, _TURN))
        head[row, :3, :3] = head[row, :3, :3] @ yaw_pitch_roll(*turn).float().numpy()
    return Motion(
        fps=motion.fps,
        expression=moments.expression,
        head_pose=head,
        gaze=moments.gaze,
        residual=moments.residual,
        torso_pose=moments.torso_pose,
        source="conversion",
    )


def _bytes(values: Tensor) -> Tensor:
    return values.clamp(0, 1).mul(255).round_().to(torch.uint8)
