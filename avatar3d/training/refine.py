"""Photometric tracking: pose, expression, gaze and shoulders refined by rendering an avatar.

Training and driving frames alike are refined against a quick avatar without expression-dependent
colour, so that none of them can hide a colour error in its pose. Half a pixel of pose is worth more
than a decibel of the final picture.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig, draw_face
from avatar3d.geometry import rotation_from_vector
from avatar3d.kernels import l1_ssim_loss
from avatar3d.subject import Subject, Tracking
from avatar3d.training.data import region_weights
from avatar3d.training.schedule import Schedule

__all__ = ["Refiner", "face_parameters"]

# Step sizes: rotation rad, translation m (the depth is seen least), expression, gaze rad, and
# the shoulders' rotation and translation.
_STEPS = {
    "rotation": 1.2e-3,
    "translation": 3e-4,
    "weights": 8e-3,
    "gaze": 8e-3,
    "torso_rotation": 8e-4,
    "torso_translation": 2e-4,
}
_RIGID = ("rotation", "translation", "torso_rotation", "torso_translation")
_CARRY = 0.9  # of a frame's rigid correction, as the start of the next frame's
_DEPTH_GAIN = 2.0
_PULL = 0.02  # per step, of the expression towards the captured one


def face_parameters(
    tracking: Tracking, index: int | np.ndarray, device: str | torch.device = "cpu"
) -> FaceParameters:
    """Tensors of a tracked frame, or of several, in memory of torch's own (see `SplatRig`)."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.tensor(array, dtype=torch.float32, device=device)

    return FaceParameters(
        weights=tensor(np.concatenate([tracking.expression[index], tracking.residual[index]], -1)),
        gaze=tensor(tracking.gaze[index]),
        T_camera_head=tensor(tracking.T_camera_head[index]),
        T_camera_torso=tensor(tracking.T_camera_torso[index]),
    )


@dataclass
class _Target:
    image: Tensor
    weight: Tensor


class Refiner:
    """Refines a tracking frame by frame against a frozen avatar.

    Args:
        subject, tracking: what to refine.
        rig, parameters: the avatar, rendered without blendshapes.
        scale: image scale to work at.
        first: times as many steps for the first frame of a shot.
    """

    def __init__(
        self,
        subject: Subject,
        tracking: Tracking,
        rig: SplatRig,
        parameters: SplatParameters,
        scale: float,
        first: int = 1,
    ) -> None:
        self.subject, self.tracking = subject, tracking
        self.rig, self.parameters = rig, parameters
        self.first = first
        self.device = rig.vertices.device
        self.camera = tracking.camera.scaled(scale)
        self.background = self._resized(subject.background)
        self.head = tracking.T_camera_head.copy()
        self.torso = tracking.T_camera_torso.copy()
        self.weights = tracking.weights.copy()
        self.gaze = tracking.gaze.copy()
        self.corrections = np.zeros((len(tracking), 3 * len(_RIGID)), np.float32)

    def run(self, schedule: Schedule, start: int = 0) -> Iterator[int]:
        """Refine frames `start`.. in order, yielding each number when it is done."""
        with ThreadPoolExecutor(1) as pool:
            indices = range(start, len(self.tracking))
            ahead = pool.submit(self._target, start) if start < len(self.tracking) else None
            for index in indices:
                assert ahead is not None
                target = ahead.result()
                if index + 1 < len(self.tracking):
                    ahead = pool.submit(self._target, index + 1)
                steps = schedule.refine_steps(index, len(self.tracking) - index)
                if self.tracking.valid[index]:
                    begun = time.monotonic()
                    self._refine(index, target, steps)
                    schedule.refined(steps, time.monotonic() - begun)
                yield index

    def adopt(self, refined: Tracking, corrections: np.ndarray) -> None:
        """Take over frames, and their rigid corrections, from an earlier, interrupted run."""
        self.corrections[:] = corrections
        self.head[:] = refined.T_camera_head
        self.torso[:] = refined.T_camera_torso
        self.weights[:] = refined.weights
        self.gaze[:] = refined.gaze

    def result(self) -> Tracking:
        """The tracking with what has been refined so far."""
        return replace(
            self.tracking,
            T_camera_head=self.head,
            T_camera_torso=self.torso,
            expression=self.weights[:, :52],
            residual=self.weights[:, 52:],
            gaze=self.gaze,
        )

    def _refine(self, index: int, target: _Target, steps: int) -> None:
        start = face_parameters(self.tracking, index, self.device)
        # Landmarks err the same way for a while, so the frame before knows most of the correction.
        segments = self.tracking.segments
        follows = index > 0 and segments[index] == segments[index - 1]
        steps *= 1 if follows else self.first
        carry = _CARRY if steps else 1.0
        before = torch.tensor(carry * self.corrections[index - 1]) if follows else torch.zeros(12)
        before = before.to(self.device)
        change = {n: row.clone() for n, row in zip(_RIGID, before.view(-1, 3), strict=True)}
        change |= {"weights": start.weights.clone(), "gaze": start.gaze.clone()}
        for value in change.values():
            value.requires_grad_(True)
        groups = [{"params": [v], "lr": _STEPS[k], "full": _STEPS[k]} for k, v in change.items()]
        optimizer = torch.optim.Adam(groups, betas=(0.7, 0.9), eps=1e-15)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = group["full"] * (1 - 0.7 * step / max(steps - 1, 1))
            optimizer.zero_grad()
            self._loss(_apply(start, change), target).backward()
            optimizer.step()
            with torch.no_grad():
                change["weights"].lerp_(start.weights, _PULL).clamp_(0, 1)
        refined = _apply(start, {name: value.detach() for name, value in change.items()})
        self.corrections[index] = torch.cat([change[name].detach() for name in _RIGID]).cpu()
        self.head[index] = refined.T_camera_head.double().cpu()
        self.torso[index] = refined.T_camera_torso.double().cpu()
        self.weights[index] = refined.weights.cpu()
        self.gaze[index] = refined.gaze.cpu()

    def _loss(self, face: FaceParameters, target: _Target) -> Tensor:
        image, _ = draw_face(
            self.rig, self.parameters, face, self.camera, self.background, use_basis=False
        )
        return l1_ssim_loss(image, target.image, weight=target.weight)

    def _target(self, index: int) -> _Target:
        scale = self.camera.width / self.tracking.camera.width
        landmarks = self.tracking.landmarks_fit[index] * scale
        weight = region_weights(landmarks, self.camera.height, self.camera.width, 3.0, 2.0)
        return _Target(self._resized(self.subject.frame(index)), weight.to(self.device))

    def _resized(self, image: np.ndarray) -> Tensor:
        planar = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
        size = (self.camera.height, self.camera.width)
        if planar.shape[1:] != size:
            planar = interpolate(planar[None], size=size, mode="area")[0]
        return planar.permute(1, 2, 0).contiguous().to(self.device)


def _apply(start: FaceParameters, change: dict[str, Tensor]) -> FaceParameters:
    depth_gain = start.weights.new_tensor([1.0, 1.0, _DEPTH_GAIN])

    def moved(transform: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
        top = torch.cat(
            [
                rotation_from_vector(rotation) @ transform[:3, :3],
                (transform[:3, 3] + translation * depth_gain)[:, None],
            ],
            1,
        )
        return torch.cat([top, transform[3:]])

    return FaceParameters(
        weights=change["weights"],
        gaze=change["gaze"],
        T_camera_head=moved(start.T_camera_head, change["rotation"], change["translation"]),
        T_camera_torso=moved(
            start.T_camera_torso, change["torso_rotation"], change["torso_translation"]
        ),
    )
