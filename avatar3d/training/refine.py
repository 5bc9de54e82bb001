"""Photometric tracking: pose, expression, gaze and shoulders refined by rendering an avatar.

Training and driving frames alike are refined against an avatar without expression-dependent colour,
so that none of them can hide a colour error in its pose. Half a pixel of pose is worth more than a
decibel of the final picture. The same routine serves training, whose quick avatar it takes, and
`track_photometrically`, which fits a finished avatar to another clip of its person.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from avatar3d.avatar import PosedAvatar, SplatAvatar
from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig
from avatar3d.avatar.state import SplatState
from avatar3d.geometry import rotation_from_vector
from avatar3d.head.arkit import ARKIT_INDEX
from avatar3d.head.library import load_head
from avatar3d.kernels import Poses, face_gradients, torch_on_one_thread
from avatar3d.progress import track
from avatar3d.subject import Subject, Tracking
from avatar3d.training.config import TrainingConfig
from avatar3d.training.continuing import moved_onto
from avatar3d.training.data import region_weights
from avatar3d.training.schedule import Schedule

__all__ = ["Refiner", "face_parameters", "track_photometrically"]

# Step sizes: rotation rad, translation m (the depth is seen least), the shoulders' rotation and
# translation, expression, gaze rad.
_RIGID_STEPS = (1.2e-3, 3e-4, 8e-4, 2e-4)
_WEIGHT_STEP, _GAZE_STEP = 8e-3, 8e-3
_RIGID = 3 * len(_RIGID_STEPS)
_BETAS = 0.7, 0.9
_LAST_RATE = 0.3  # of the first step's
_CARRY = 0.9, 0.6, 0.9  # of a frame's change, pose, expression and gaze, to start the next with
_DEPTH_GAIN = 2.0
_PULL = 0.02  # per step, of the expression towards the captured one
_LANES, _SHORTEST = 8, 8  # stretches of the clip that are refined side by side; frames of one
_FIRST_TIMES = 3  # as many steps where no frame before has told the correction
_FAR_TIMES = 8  # and with an avatar of another clip, from which poses are farther off

# Brows are tried elsewhere, as landmark detectors take thick lashes for a raised brow, which is
# farther off than a gradient sees: up, half up, at rest, down, and one up with the other down.
_BROW_ROWS = [
    _RIGID + ARKIT_INDEX[f"brow{name}"]
    for name in ("InnerUp", "OuterUpLeft", "OuterUpRight", "DownLeft", "DownRight")
]
_BROWS = (
    (1.0, 1.0, 1.0, 0.0, 0.0), (0.5, 0.5, 0.5, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 1.0, 1.0), (0.5, 1.0, 0.0, 0.0, 0.7), (0.5, 0.0, 1.0, 0.7, 0.0),
)  # fmt: skip
_BETTER = 0.997  # of the loss, or the brows stay
_BROWS_EVERY = 4  # frames of a stretch, and wherever those of the frame before
_ASTRAY = 0.3  # were so far from the captured ones


def track_photometrically(
    subject: Subject,
    avatar: PosedAvatar,
    tracking: Tracking | None = None,
    steps: int = TrainingConfig.refine_steps,
    scale: float = TrainingConfig.refine_scale,
) -> Tracking:
    """Another clip of an avatar's person, tracked by rendering the avatar.

    The captured poses are moved onto the avatar's head and refined as training refines those of
    its own frames, so the result drives the avatar as its training frames did. Its blendshapes
    stay what they are on average: no frame can hide a colour error in its expression. An avatar
    that is not of splats is not rendered: its poses are only moved.

    Args:
        subject: the clip.
        avatar: of the same person, trained on another clip.
        tracking: what to start from; default the subject's.
        steps: per frame; scale: of the pictures that are compared.

    Returns:
        The tracking of all frames; those that are not valid are only moved.

    Raises:
        UserError: the avatar has another head model, or is of an older version.
    """
    tracking = tracking or subject.tracking
    tracking = moved_onto(tracking, load_head(tracking.head_model), avatar)
    if not isinstance(avatar, SplatAvatar):
        return tracking
    parameters = SplatParameters(_average(avatar), avatar.device).requires_grad_(False)
    rig = SplatRig(avatar.state, avatar.device)
    refiner = Refiner(subject, tracking, rig, parameters, scale, _FAR_TIMES)
    rounds = refiner.run(Schedule(TrainingConfig(refine_steps=steps)))
    with torch_on_one_thread():
        for _ in track(rounds, "Tracking photometrically", len(_rounds(len(tracking)))):
            pass
    return refiner.result()


def _average(avatar: SplatAvatar) -> SplatState:
    """The avatar's state with its blendshapes frozen at the average expression."""
    state = avatar.state
    weights = state.limit * np.tanh(state.bias / state.limit)
    delta = np.asarray(state.basis) @ weights
    moved = {name: np.array(getattr(state, name)) for name in ("position", "quat", "color")}
    for name, columns in zip(moved, (slice(0, 3), slice(3, 7), slice(7, 10)), strict=True):
        moved[name][: len(delta)] += delta[:, columns]
    return replace(state, **moved)


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
class _Targets:
    """What some frames show: images (F, H, W, 3) and the weights of their pixels (F, H, W)."""

    images: Tensor
    weights: Tensor

    def some(self, chosen: list[int]) -> "_Targets":
        return _Targets(self.images[chosen], self.weights[chosen])


class Refiner:
    """Refines a tracking against a frozen avatar, some frames at a time.

    The clip is cut into stretches of equal length that are refined side by side, in rounds of one
    frame from each: neighbours of one stretch pass their correction on, and the frames of a round
    keep all processors busy. The stretches do not depend on the machine, so neither does the
    result.

    Args:
        subject, tracking: what to refine.
        rig, parameters: the avatar, rendered without blendshapes.
        scale: image scale to work at.
        first: times as many steps for a frame that follows no other.
    """

    def __init__(
        self,
        subject: Subject,
        tracking: Tracking,
        rig: SplatRig,
        parameters: SplatParameters,
        scale: float,
        first: int = _FIRST_TIMES,
    ) -> None:
        self.subject, self.tracking = subject, tracking
        self.rig, self.parameters = rig, parameters
        self.first = first
        self.device = rig.vertices.device
        self.camera = tracking.camera.scaled(scale)
        self.K = torch.as_tensor(self.camera.K, dtype=torch.float32, device=self.device)
        self.background = self._resized(subject.background).to(self.device)
        self.head = tracking.T_camera_head.copy()
        self.torso = tracking.T_camera_torso.copy()
        self.weights = tracking.weights.copy()
        self.gaze = tracking.gaze.copy()
        self.corrections = np.zeros((len(tracking), _RIGID), np.float32)

    def run(self, schedule: Schedule, done: int = 0) -> Iterator[list[int]]:
        """Refine all frames but the first `done` of the order, yielding those of each round."""
        rounds = _rounds(len(self.tracking))
        start = int(np.searchsorted(np.cumsum([len(frames) for frames in rounds]), done, "right"))
        with ThreadPoolExecutor(1) as pool:
            ahead: Future[_Targets] | None = None
            for number in range(start, len(rounds)):
                frames = [i for i in rounds[number] if self.tracking.valid[i]]
                targets = self._targets(frames) if ahead is None else ahead.result()
                if number + 1 < len(rounds):
                    following = [i for i in rounds[number + 1] if self.tracking.valid[i]]
                    ahead = pool.submit(self._targets, following)
                steps = schedule.refine_steps(number, len(rounds) - number)
                if frames:
                    begun = time.monotonic()
                    self._refine(frames, targets, steps)
                    schedule.refined(steps, time.monotonic() - begun)
                yield rounds[number]

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

    def _refine(self, frames: list[int], targets: _Targets, steps: int) -> None:
        start = face_parameters(self.tracking, np.array(frames), self.device)
        change = torch.cat(
            [start.weights.new_zeros(len(frames), _RIGID), start.weights, start.gaze.flatten(1)], 1
        )
        follow = [self._follows(frame) for frame in frames]
        for row, frame in enumerate(frames):
            if follow[row]:
                # Landmarks err the same way for a while, so the frame before knows most of it.
                change[row] += self._carried(frame - 1, all_of_it=not steps).to(self.device)
        doubted = [row for row, frame in enumerate(frames) if steps and self._doubts(frame)]
        if doubted:
            some = _rows(start, doubted)
            change[doubted] = self._with_best_brows(some, change[doubted], targets.some(doubted))
        alone = [row for row, follows in enumerate(follow) if not follows]
        if alone and steps and self.first > 1:
            some = _rows(start, alone)
            more = self._optimize(
                some, change[alone], targets.some(alone), steps * (self.first - 1)
            )
            change[alone] = more
        change = self._optimize(start, change, targets, steps)
        refined = _apply(start, change)
        self.corrections[frames] = change[:, :_RIGID].cpu()
        self.head[frames] = refined.T_camera_head.double().cpu()
        self.torso[frames] = refined.T_camera_torso.double().cpu()
        self.weights[frames] = refined.weights.cpu()
        self.gaze[frames] = refined.gaze.cpu()

    def _follows(self, frame: int) -> bool:
        """Whether the frame before it is of the same shot and has been refined."""
        if frame in _starts(len(self.tracking)) or not self.tracking.valid[frame - 1]:
            return False
        return bool(self.tracking.segments[frame] == self.tracking.segments[frame - 1])

    def _doubts(self, frame: int) -> bool:
        """Whether to try other brows in a frame; told by what a resumed run knows as well."""
        starts = _starts(len(self.tracking))
        place = frame - max(start for start in starts if start <= frame)
        if place % _BROWS_EVERY == 0:
            return True
        rows = [row - _RIGID for row in _BROW_ROWS]
        moved = self.weights[frame - 1, rows] - self.tracking.weights[frame - 1, rows]
        return bool(np.abs(moved).max() > _ASTRAY)

    def _with_best_brows(self, start: FaceParameters, change: Tensor, targets: _Targets) -> Tensor:
        """`change` with those of `_BROWS` in each row that make its picture best, if any do."""
        best, least = change, _BETTER * self._look(start, change, targets)[0]
        for brows in _BROWS:
            tried = change.clone()
            tried[:, _BROW_ROWS] = change.new_tensor(brows)
            loss = self._look(start, tried, targets)[0]
            best = torch.where((loss < least)[:, None], tried, best)
            least = torch.minimum(loss, least)
        return best

    def _carried(self, frame: int, all_of_it: bool) -> Tensor:
        """(12 + E + 4,) what the change of a frame says of that of the next."""
        rigid, weights, gaze = (1.0, 0.0, 0.0) if all_of_it else _CARRY
        parts = (
            rigid * self.corrections[frame],
            weights * (self.weights[frame] - self.tracking.weights[frame]),
            gaze * (self.gaze[frame] - self.tracking.gaze[frame]).ravel(),
        )
        return torch.tensor(np.concatenate(parts), dtype=torch.float32)

    def _optimize(
        self, start: FaceParameters, change: Tensor, targets: _Targets, steps: int
    ) -> Tensor:
        """Adam on every row of `change`, whose rows do not know of each other."""
        expression = start.weights.shape[1]
        full = change.new_tensor(
            [step for step in _RIGID_STEPS for _ in range(3)]
            + [_WEIGHT_STEP] * expression
            + [_GAZE_STEP] * 4
        )
        mean, square = torch.zeros_like(change), torch.zeros_like(change)
        for step in range(steps):
            _, gradient = self._look(start, change, targets)
            mean.lerp_(gradient, 1 - _BETAS[0])
            square.lerp_(gradient.square(), 1 - _BETAS[1])
            unbiased = mean / (1 - _BETAS[0] ** (step + 1))
            size = (square / (1 - _BETAS[1] ** (step + 1))).sqrt().add_(1e-15)
            rate = 1 - (1 - _LAST_RATE) * step / max(steps - 1, 1)
            change = change - rate * full * unbiased / size
            weights = change[:, _RIGID : _RIGID + expression]
            weights.lerp_(start.weights, _PULL).clamp_(0, 1)
        return change

    def _look(
        self, start: FaceParameters, change: Tensor, targets: _Targets
    ) -> tuple[Tensor, Tensor]:
        """Loss (F,) of the pictures after a change, and its gradient (F, 12 + E + 4) there."""
        leaf = change.detach().requires_grad_()
        with torch.enable_grad():
            face = _apply(start, leaf)
            vertices = self.rig.head_vertices(face.weights, face.gaze)
        moved = vertices, face.T_camera_head, face.T_camera_torso
        found = face_gradients(
            self.rig.binding,
            self.parameters.attributes(),
            Poses(*(track.detach() for track in moved)),
            self.K,
            self.background,
            targets.images,
            targets.weights,
        )
        (gradient,) = torch.autograd.grad(moved, leaf, found[1:])
        return found[0], gradient

    def _targets(self, frames: list[int]) -> _Targets:
        scale = self.camera.width / self.tracking.camera.width
        height, width = self.camera.height, self.camera.width
        images = torch.empty(len(frames), height, width, 3)
        weights = torch.empty(len(frames), height, width)
        for row, frame in enumerate(frames):
            images[row] = self._resized(self.subject.frame(frame))
            landmarks = self.tracking.landmarks_fit[frame] * scale
            region_weights(landmarks, height, width, 3.0, 2.0, weights[row])
        return _Targets(images.to(self.device), weights.to(self.device))

    def _resized(self, image: np.ndarray) -> Tensor:
        return _shrunk(image, self.camera.height, self.camera.width)


def _shrunk(image: np.ndarray, height: int, width: int) -> Tensor:
    """(height, width, 3) in [0, 1]: the means of the pixels (H, W, 3) uint8 under each."""
    times = len(image) // height
    if image.shape == (height * times, width * times, 3) and times <= 16:  # or sums overflow
        total = np.zeros((height, width, 3), np.uint16)
        for y in range(times):
            for x in range(times):
                total += image[y::times, x::times]
        return torch.from_numpy(total.astype(np.float32) / np.float32(255 * times * times))
    planar = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
    resized = interpolate(planar[None], size=(height, width), mode="area")[0]
    return resized.permute(1, 2, 0).contiguous()


def _starts(count: int) -> list[int]:
    """The first frame of every stretch of a clip of `count` frames, and its end."""
    lanes = min(max(count // _SHORTEST, 1), _LANES)
    return [count * lane // lanes for lane in range(lanes + 1)]


def _rounds(count: int) -> list[list[int]]:
    """The frames of every round, one of each stretch that is long enough."""
    starts = _starts(count)
    lanes = [range(*ends) for ends in pairwise(starts)]
    longest = max(len(lane) for lane in lanes)
    return [[lane[k] for lane in lanes if k < len(lane)] for k in range(longest)]


def _rows(face: FaceParameters, rows: list[int]) -> FaceParameters:
    return FaceParameters(
        face.weights[rows], face.gaze[rows], face.T_camera_head[rows], face.T_camera_torso[rows]
    )


def _apply(start: FaceParameters, change: Tensor) -> FaceParameters:
    """Faces after a change (F, 12 + E + 4): head and shoulders moved, expression and gaze set."""
    depth_gain = change.new_tensor([1.0, 1.0, _DEPTH_GAIN])
    rigid = change[:, :_RIGID].unflatten(1, (-1, 3))

    def moved(transform: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
        turned = rotation_from_vector(rotation) @ transform[:, :3, :3]
        place = transform[:, :3, 3] + translation * depth_gain
        return torch.cat([torch.cat([turned, place[..., None]], 2), transform[:, 3:]], 1)

    return FaceParameters(
        weights=change[:, _RIGID:-4],
        gaze=change[:, -4:].unflatten(1, (2, 2)),
        T_camera_head=moved(start.T_camera_head, rigid[:, 0], rigid[:, 1]),
        T_camera_torso=moved(start.T_camera_torso, rigid[:, 2], rigid[:, 3]),
    )
