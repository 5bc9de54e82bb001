"""Fits the head model to landmarks: one face shape, and pose, expression and gaze per frame.

The objective is Charbonnier-robust in percent of the inter-ocular distance. Time enters only
through second differences, which have no lag. Optimised by Adam in two phases: everything, then
expression and gaze at a fixed pose with more weight on lips, eyes and brows.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avatar3d.geometry import rotation_from_vector
from avatar3d.head import HeadModel
from avatar3d.head.landmarks import BROWS, EYE_LEFT, EYE_RIGHT, LIPS, inter_ocular
from avatar3d.head.model import PARTS

__all__ = ["FaceFit", "FaceShape", "LandmarkModel", "fit_frames", "fit_shape"]

PHASE_SPLIT = 0.7
CHARBONNIER = 0.25
SIGMA_FLOOR, MIN_WEIGHT = 0.002, 0.3
LAMBDA_IDENTITY = 2e-3
LAMBDA_OFFSET = 30.0
LAMBDA_EXPRESSION_L2, LAMBDA_EXPRESSION_L1 = 2e-2, 2e-3
RESIDUAL_FACTOR = 4.0
LAMBDA_EXPRESSION_MEAN = 0.3
SMOOTH_EXPRESSION, SMOOTH_ROTATION, SMOOTH_DEPTH, SMOOTH_SHIFT = 0.2, 1e3, 1e3, 1e2
LAMBDA_GAZE, LAMBDA_VERGENCE = 0.01, 0.02
LID_GAP_WEIGHT, LIP_GAP_WEIGHT = 0.4, 0.15

LID_PAIRS = (
    (386, 374), (385, 380), (387, 373), (384, 381), (388, 390),
    (159, 145), (158, 153), (160, 144), (157, 154), (161, 163),
)  # fmt: skip
LIP_PAIRS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402), (80, 88), (310, 318))


@dataclass(frozen=True)
class FaceShape:
    """What does not change over the clip: identity (I,), landmark offsets (478, 3) in metres."""

    identity: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True)
class FaceFit:
    """T frames: poses (T, 4, 4), weights (T, E), gaze (T, 2, 2), points (T, 478, 2) in pixels."""

    poses: np.ndarray
    weights: np.ndarray
    gaze: np.ndarray
    points: np.ndarray


class LandmarkModel:
    """The head model reduced to its landmarks, as tensors; `project` is the forward model."""

    def __init__(self, head: HeadModel, K: np.ndarray) -> None:
        def tensor(array: np.ndarray) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32)

        self.head, self.K = head, K
        self.focal = float(K[0, 0])
        self.center = tensor(K[:2, 2])
        self.template = tensor(head.landmarks_of(head.template))
        self.identity = tensor(head.landmarks_of(head.identity).reshape(len(head.identity), -1))
        self.expression = tensor(
            head.landmarks_of(head.expression).reshape(len(head.expression), -1)
        )
        self.eye_centers = tensor(head.eye_centers)
        self.eye_centers_identity = tensor(
            head.eye_centers_identity.reshape(len(head.identity), -1)
        )
        self.spread = tensor(landmark_spread(head, head.template))
        self.weights = tensor(_landmark_weights(head))
        self.detail_weights = self.weights.clone()
        self.detail_weights[list(LIPS)] *= 4
        self.detail_weights[[*EYE_LEFT, *EYE_RIGHT]] *= 2
        self.detail_weights[list(BROWS)] *= 3
        self.detail_weights /= self.detail_weights.mean()

    def face(self, shape: FaceShape) -> np.ndarray:
        """Neutral landmarks (478, 3) of one face, metres."""
        identity, offsets = torch.as_tensor(shape.identity), torch.as_tensor(shape.offsets)
        return self.neutral(identity, offsets)[0].numpy()

    def neutral(self, identity: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks (478, 3) and eye centres (2, 3) of one face; offsets (478, 3) metres."""
        points = self.template + (identity @ self.identity).view(-1, 3) + self.spread @ offsets
        eyes = self.eye_centers + (identity @ self.eye_centers_identity).view(2, 3)
        return points, eyes

    def project(
        self, neutral: Tensor, eyes: Tensor, weights: Tensor, gaze: Tensor, R: Tensor, t: Tensor
    ) -> Tensor:
        """Pixels (T, 478, 2) for weights (T, E), gaze (T, 2, 2), R (T, 3, 3), t (T, 3)."""
        points = neutral + (weights @ self.expression).view(len(weights), -1, 3)
        right = _turn(points[:, 468:473], eyes[1], gaze[:, 1])
        left = _turn(points[:, 473:478], eyes[0], gaze[:, 0])
        points = torch.cat([points[:, :468], right, left], 1)
        camera = points @ R.transpose(1, 2) + t[:, None]
        return self.focal * camera[..., :2] / camera[..., 2:] + self.center


def fit_shape(
    model: LandmarkModel, points: np.ndarray, poses: np.ndarray, iterations: int
) -> FaceShape:
    """Shape of the face from frames spread over the clip.

    Args:
        model: forward model.
        points: (S, 478, 2) pixels of S frames, any order.
        poses: (S, 4, 4) initial T_camera_head.
        iterations: optimiser steps.
    """
    problem = _Problem(model, points, poses, np.ones(len(points), bool), smooth=False)
    shape, _ = problem.solve(iterations, None)
    return shape


def fit_frames(
    model: LandmarkModel,
    shape: FaceShape,
    points: np.ndarray,
    found: np.ndarray,
    poses: np.ndarray,
    iterations: int,
) -> FaceFit:
    """Pose, expression and gaze of T successive frames for a known face.

    Args:
        points: (T, 478, 2) pixels; ignored where `found` (T,) is False.
        poses: (T, 4, 4) initial T_camera_head.
    """
    problem = _Problem(model, points, poses, found, smooth=len(points) > 2)
    return problem.solve(iterations, shape)[1]


def landmark_spread(head: HeadModel, vertices: np.ndarray) -> np.ndarray:
    """(478, 478) matrix from landmark offsets to what they do to the landmarks.

    `HeadModel.shaped` spreads offsets smoothly over the skin, so a landmark moves by a weighted
    mean of the offsets around it; the fit has to know. Follows `HeadModel.shaped`, and a test
    holds the two together.
    """
    corners = head.faces[head.landmark_faces]
    skin = np.isin(head.part[corners], [PARTS.index("face"), PARTS.index("lips")])
    landmarks = head.landmarks_of(vertices)[:468]
    squared = ((vertices[corners][:, :, None] - landmarks) ** 2).sum(-1)
    weight = np.exp(-squared / (2 * 0.005**2))
    weight = weight / (weight.sum(-1, keepdims=True) + 0.3) * skin[..., None]
    matrix = np.zeros((478, 478), np.float32)
    matrix[:, :468] = (weight * head.landmark_bary[:, :, None]).sum(1)
    return matrix


def _landmark_weights(head: HeadModel) -> np.ndarray:
    """Inverse variance of each landmark (its slide over the surface), bounded, with mean 1."""
    sigma = np.clip(head.landmark_sigma, 8e-4, 0.03)
    weights = np.clip(0.0015**2 / (sigma**2 + SIGMA_FLOOR**2), 0.003, 2.0)
    weights[:468] = np.maximum(weights[:468], MIN_WEIGHT)
    weights[[*EYE_LEFT, *EYE_RIGHT]] *= 1.5
    return weights / weights.mean()


def _turn(points: Tensor, center: Tensor, gaze: Tensor) -> Tensor:
    """Points (T, n, 3) of an eyeball turned by gaze (T, 2); as `head.model.eye_rotation`."""
    yaw, pitch = gaze[:, 0], -gaze[:, 1]
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    cy, sy, cp, sp = torch.cos(yaw), torch.sin(yaw), torch.cos(pitch), torch.sin(pitch)
    around_y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).view(-1, 3, 3)
    around_x = torch.stack([one, zero, zero, zero, cp, -sp, zero, sp, cp], -1).view(-1, 3, 3)
    return (points - center) @ (around_y @ around_x).transpose(1, 2) + center


class _Problem:
    """Unknowns, objective and optimiser of one set of frames."""

    def __init__(
        self,
        model: LandmarkModel,
        points: np.ndarray,
        poses: np.ndarray,
        found: np.ndarray,
        smooth: bool,
    ) -> None:
        self.model, self.smooth = model, smooth
        frames, rows = len(points), len(model.head.expression)
        self.target = torch.as_tensor(points, dtype=torch.float32)
        self.found = torch.as_tensor(found, dtype=torch.float32)
        self.unit = max(float(np.median(inter_ocular(points[found]))), 1.0) / 100
        start = torch.as_tensor(poses, dtype=torch.float32)
        self.R0, self.z0 = start[:, :3, :3], start[:, 2, 3]
        self.shift0 = start[:, :2, 3] / self.z0[:, None] * model.focal
        self.turn = torch.zeros(frames, 3, requires_grad=True)
        self.shift = torch.zeros(frames, 2, requires_grad=True)  # inter-ocular distances
        self.depth = torch.zeros(frames, requires_grad=True)  # logarithm
        self.weights = torch.full((frames, rows), 0.02).requires_grad_(True)
        self.gaze = torch.zeros(frames, 2, 2, requires_grad=True)
        self.identity = torch.zeros(len(model.identity), requires_grad=True)
        self.offsets = torch.zeros(478, 3, requires_grad=True)  # centimetres
        cost = torch.ones(rows)
        cost[52:] = RESIDUAL_FACTOR
        self.cost = cost

    def solve(self, iterations: int, shape: FaceShape | None) -> tuple[FaceShape, FaceFit]:
        groups = [
            {"params": [self.turn, self.shift, self.depth], "lr": 5e-3, "first_only": True},
            {"params": [self.weights], "lr": 2e-2},
            {"params": [self.gaze], "lr": 1e-2},
        ]
        if shape is None:
            groups.append({"params": [self.identity], "lr": 5e-2, "first_only": True})
            groups.append({"params": [self.offsets], "lr": 1e-2})
        else:
            with torch.no_grad():
                self.identity.copy_(torch.as_tensor(shape.identity))
                self.offsets.copy_(torch.as_tensor(shape.offsets) * 100)
            self.identity.requires_grad_(False)
            self.offsets.requires_grad_(False)
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.98), foreach=False, fused=True)
        rates = [group["lr"] for group in optimizer.param_groups]
        for step in range(iterations):
            progress = step / iterations
            detail = progress >= PHASE_SPLIT
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                frozen = detail and group.get("first_only", False)
                group["lr"] = 0.0 if frozen else rate * _schedule(step, progress)
            optimizer.zero_grad(set_to_none=True)
            self._objective(detail, shape is None).backward()
            optimizer.step()
            with torch.no_grad():
                self.weights.clamp_(0, 1)
        with torch.no_grad():
            return self._result()

    def _pose(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """R (T, 3, 3), t (T, 3), image shift (T, 2) pixels and depth (T,)."""
        R = rotation_from_vector(self.turn) @ self.R0
        z = self.z0 * torch.exp(self.depth)
        shift = self.shift0 + self.shift * (100 * self.unit)
        t = torch.cat([shift * z[:, None] / self.model.focal, z[:, None]], 1)
        return R, t, shift, z

    def _objective(self, detail: bool, shape_free: bool) -> Tensor:
        model = self.model
        R, t, shift, z = self._pose()
        neutral, eyes = model.neutral(self.identity, self.offsets * 0.01)
        xy = model.project(neutral, eyes, self.weights, self.gaze, R, t)
        share = self.found / self.found.sum()
        weight = model.detail_weights if detail else model.weights
        error = (xy - self.target) / self.unit
        loss = (share[:, None] * weight * _robust(error)).sum() / 478
        for pairs, gap_weight in ((LID_PAIRS, LID_GAP_WEIGHT), (LIP_PAIRS, LIP_GAP_WEIGHT)):
            first, second = [p[0] for p in pairs], [p[1] for p in pairs]
            gap = error[:, first] - error[:, second]
            loss = loss + gap_weight * (share[:, None] * _robust(gap)).sum() / len(pairs)
        loss = loss + self._expression_prior(share)
        vergence = ((self.gaze[:, 0] - self.gaze[:, 1]) ** 2).sum(1).mean()
        loss = loss + LAMBDA_GAZE * (self.gaze**2).sum((1, 2)).mean() + LAMBDA_VERGENCE * vergence
        if shape_free:
            loss = loss + LAMBDA_IDENTITY * (self.identity**2).sum()
            loss = loss + LAMBDA_OFFSET * (self.offsets**2).sum(1).mean()
        if self.smooth:
            loss = loss + SMOOTH_ROTATION * _bend(R).sum((1, 2)).mean()
            loss = loss + SMOOTH_DEPTH * _bend(torch.log(z)).mean()
            loss = loss + SMOOTH_SHIFT * _bend(shift / (100 * self.unit)).sum(1).mean()
            loss = loss + SMOOTH_EXPRESSION * _bend(self.weights).sum(1).mean()
        return loss

    def _expression_prior(self, share: Tensor) -> Tensor:
        weights = self.weights
        l2 = LAMBDA_EXPRESSION_L2 * (weights**2 * self.cost).sum(1).mean()
        l1 = LAMBDA_EXPRESSION_L1 * (weights * self.cost).sum(1).mean()
        # Without this the clip's mean expression absorbs part of the identity.
        mean = LAMBDA_EXPRESSION_MEAN * ((share[:, None] * weights).sum(0) ** 2).sum()
        return l2 + l1 + mean

    def _result(self) -> tuple[FaceShape, FaceFit]:
        R, t, _, _ = self._pose()
        neutral, eyes = self.model.neutral(self.identity, self.offsets * 0.01)
        xy = self.model.project(neutral, eyes, self.weights, self.gaze, R, t)
        poses = np.tile(np.eye(4), (len(R), 1, 1))
        poses[:, :3, :3], poses[:, :3, 3] = _orthonormal(R.double().numpy()), t.numpy()
        shape = FaceShape(
            self.identity.detach().numpy().copy(), self.offsets.detach().numpy() * 0.01
        )
        fit = FaceFit(poses, self.weights.detach().numpy(), self.gaze.detach().numpy(), xy.numpy())
        return shape, fit


def _orthonormal(rotations: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(rotations)
    return u @ vt


def _robust(error: Tensor) -> Tensor:
    """Charbonnier norm of 2D errors (..., 2)."""
    return torch.sqrt((error * error).sum(-1) + CHARBONNIER) - math.sqrt(CHARBONNIER)


def _bend(track: Tensor) -> Tensor:
    """Squared second differences over time."""
    return (track[2:] - 2 * track[1:-1] + track[:-2]) ** 2


def _schedule(step: int, progress: float) -> float:
    """Warm-up over 20 steps, constant, then cosine decay; the second phase restarts at 0.3."""
    if progress < PHASE_SPLIT:
        part = progress / PHASE_SPLIT
    else:
        part = 0.3 + 0.7 * (progress - PHASE_SPLIT) / (1 - PHASE_SPLIT)
    decay = 1.0 if part < 0.5 else 0.5 * (1 + math.cos(math.pi * (part - 0.5) / 0.5)) + 0.01
    return min(1.0, (step + 1) / 20) * decay
