"""Fits the head model to landmarks: one face shape, and pose, expression and gaze per frame.

The objective is Charbonnier-robust in percent of the inter-ocular distance. Time enters only
through second differences, which have no lag. Gauss-Newton in two phases: everything, then
expression and gaze at a fixed pose with more weight on lips, eyes and brows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avatar3d.capture.gauss_newton import Blocks, Coupling, bounded_step
from avatar3d.capture.slide import TURNS, Slide, turn_terms
from avatar3d.geometry import rotation_from_vector
from avatar3d.head import HeadModel
from avatar3d.head.landmarks import BROWS, EYE_LEFT, EYE_RIGHT, LIPS, inter_ocular
from avatar3d.head.model import PARTS
from avatar3d.kernels import normal_equations

__all__ = [
    "DenseTargets", "FaceFit", "FaceShape", "LandmarkModel", "fit_frames", "fit_shape",
    "refit_frames",
]  # fmt: skip

PHASE_SHARE = 0.6
SOLVER_STEPS = 12
SETTLED = 4e-3
CHARBONNIER = 0.25
SIGMA_FLOOR, MIN_WEIGHT = 0.002, 0.3
LAMBDA_IDENTITY = 2e-3
LAMBDA_OFFSET = 7.0
LAMBDA_EXPRESSION_L2, LAMBDA_EXPRESSION_L1 = 1e-2, 2e-3
RESIDUAL_FACTOR = 4.0
REST_UNSEEN = 1e-3  # keeps the pose where no landmark and no frame beside it says anything
LAMBDA_EXPRESSION_MEAN = 0.3
SMOOTH_EXPRESSION, SMOOTH_ROTATION, SMOOTH_DEPTH, SMOOTH_SHIFT = 0.2, 1e3, 1e3, 1e2
LAMBDA_GAZE, LAMBDA_VERGENCE = 0.01, 0.02
DENSE_WEIGHT = 2.0
LID_GAP_WEIGHT, LIP_GAP_WEIGHT = 1.0, 0.3

LID_PAIRS = (
    (386, 374), (385, 380), (387, 373), (384, 381), (388, 390),
    (159, 145), (158, 153), (160, 144), (157, 154), (161, 163),
)  # fmt: skip
LIP_PAIRS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402), (80, 88), (310, 318))
_GAPS = torch.tensor(LID_PAIRS + LIP_PAIRS, dtype=torch.int32)
_FIRST, _SECOND = _GAPS.long().unbind(1)
_RIGID, _GAZE = slice(0, 6), slice(6, 10)
_OWN = 10
"""Unknowns of a frame before its expression: rotation 3, shift 2, logarithm of depth, gaze 4."""
_BATCH = 32


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


@dataclass(frozen=True)
class DenseTargets:
    """Further points of the skin and where the pictures show them.

    Attributes:
        neutral: (K, 3) metres, of the person's neutral head.
        expression: (E, K, 3) their displacements by the expression rows.
        points: (T, K, 2) pixels; weights: (T, K), 0 where not seen, in sum about 1 a frame.
    """

    neutral: np.ndarray
    expression: np.ndarray
    points: np.ndarray
    weights: np.ndarray


class LandmarkModel:
    """The head model reduced to its landmarks, as tensors.

    Args:
        head: the model; K: (3, 3) pixels.
        slide: of the detector that found the landmarks; none where they are points of the skin.
    """

    def __init__(self, head: HeadModel, K: np.ndarray, slide: Slide | None = None) -> None:
        def tensor(array: np.ndarray) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32)

        self.head, self.K = head, K
        self.focal = float(K[0, 0])
        self.center = tensor(K[:2, 2])
        self.template = tensor(head.landmarks_of(head.template))
        self.identity = tensor(head.landmarks_of(head.identity).reshape(len(head.identity), -1))
        moved = head.landmarks_of(head.expression)
        moved[:, 468:] = 0  # the eyeballs turn instead
        self.turn = torch.zeros(TURNS, 478 * 3)
        if slide is not None:
            self.template = self.template + tensor(slide.rest)
            self.turn = tensor(slide.turn.reshape(TURNS, -1))
        self.expression = tensor(moved.reshape(len(moved), -1))
        self.eye_centers = tensor(head.eye_centers)
        self.eye_centers_identity = tensor(
            head.eye_centers_identity.reshape(len(head.identity), -1)
        )
        self.spread = tensor(landmark_spread(head, head.template))
        self.weights = tensor(_landmark_weights(head))
        self.detail_weights = self.weights.clone()
        self.detail_weights[list(LIPS)] *= 7
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


def fit_shape(
    model: LandmarkModel, points: np.ndarray, poses: np.ndarray, iterations: int = 10
) -> FaceShape:
    """Shape of the face from frames spread over the clip.

    Args:
        model: forward model.
        points: (S, 478, 2) pixels of S frames, any order.
        poses: (S, 4, 4) initial T_camera_head.
        iterations: most steps; it ends when nothing changes any more.
    """
    alone = np.arange(len(points))
    problem = _Problem(model, points, poses, np.ones(len(points), bool), alone)
    problem.solve(iterations, None)
    return problem.shape()


def fit_frames(
    model: LandmarkModel,
    shape: FaceShape,
    points: np.ndarray,
    found: np.ndarray,
    poses: np.ndarray,
    iterations: int = 10,
    segments: np.ndarray | None = None,
) -> FaceFit:
    """Pose, expression and gaze of T successive frames for a known face.

    Args:
        points: (T, 478, 2) pixels; ignored where `found` (T,) is False.
        poses: (T, 4, 4) initial T_camera_head.
        iterations: most steps; it ends when nothing changes any more.
        segments: (T,) number of the uncut stretch that each frame belongs to; nothing is smoothed
            from one to the next. One stretch unless given.
    """
    segments = np.zeros(len(points), int) if segments is None else segments
    problem = _Problem(model, points, poses, found, segments)
    problem.solve(iterations, shape)
    return problem.result()


def refit_frames(
    model: LandmarkModel,
    shape: FaceShape,
    points: np.ndarray,
    found: np.ndarray,
    start: FaceFit,
    dense: DenseTargets,
    iterations: int = 4,
    segments: np.ndarray | None = None,
) -> FaceFit:
    """`fit_frames` from an earlier fit on, with the landmarks and further points as targets."""
    segments = np.zeros(len(points), int) if segments is None else segments
    problem = _Problem(model, points, start.poses, found, segments, dense)
    problem.weights = torch.as_tensor(start.weights).clone()
    problem.gaze = torch.as_tensor(start.gaze).reshape(-1, 4).clone()
    problem.solve(iterations, shape)
    return problem.result()


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


def _turned(points: Tensor, center: Tensor, gaze: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points (n, 3) of an eyeball turned by gaze (T, 2), and their slopes by yaw and pitch.

    Each (T, n, 3). As `head.model.eye_rotation`.
    """
    ray = points - center
    yaw, pitch = gaze[:, :1], -gaze[:, 1:]
    cy, sy, cp, sp = torch.cos(yaw), torch.sin(yaw), torch.cos(pitch), torch.sin(pitch)
    x = ray[:, 0].expand(len(gaze), -1)
    y, z = cp * ray[:, 1] - sp * ray[:, 2], sp * ray[:, 1] + cp * ray[:, 2]
    dy, dz = -sp * ray[:, 1] - cp * ray[:, 2], cp * ray[:, 1] - sp * ray[:, 2]
    moved = torch.stack([cy * x + sy * z, y, cy * z - sy * x], -1)
    by_yaw = torch.stack([cy * z - sy * x, torch.zeros_like(y), -sy * z - cy * x], -1)
    by_pitch = -torch.stack([sy * dz, dy, cy * dz], -1)
    return moved + center, by_yaw, by_pitch


class _Problem:
    """Unknowns, objective and linearisation of one set of frames."""

    def __init__(
        self,
        model: LandmarkModel,
        points: np.ndarray,
        poses: np.ndarray,
        found: np.ndarray,
        segments: np.ndarray,
        dense: DenseTargets | None = None,
    ) -> None:
        self.model, self.dense = model, None
        self.expression = model.expression
        frames, rows = len(points), len(model.head.expression)
        self.target = torch.as_tensor(points, dtype=torch.float32)
        if dense is not None:
            self.dense = torch.as_tensor(dense.neutral), torch.as_tensor(dense.weights)
            self.target = torch.cat([self.target, torch.as_tensor(dense.points)], 1)
            more = torch.as_tensor(dense.expression).flatten(1)
            self.expression = torch.cat([model.expression, more], 1)
        self.count = self.target.shape[1]
        # (Q, 3, E), in this order in memory: the slopes are made of it point by point.
        by_point = self.expression.view(-1, self.count, 3).permute(1, 2, 0)
        self.expression_by_point = by_point.contiguous()
        self.found = torch.as_tensor(found, dtype=torch.float32)
        self.unit = max(float(np.median(inter_ocular(points[found]))), 1.0) / 100
        start = torch.as_tensor(poses, dtype=torch.float32)
        self.R = start[:, :3, :3].clone()
        self.depth = torch.log(start[:, 2, 3])
        self.shift = start[:, :2, 3] / start[:, 2:3, 3] * model.focal / (100 * self.unit)
        self.weights = torch.full((frames, rows), 0.02)
        self.gaze = torch.zeros(frames, 4)  # left yaw, pitch, right yaw, pitch
        self.identity = torch.zeros(len(model.identity))
        self.offsets = torch.zeros(478, 3)  # centimetres
        self.cost = torch.ones(rows)
        self.cost[52:] = RESIDUAL_FACTOR
        same = segments[2:] == segments[:-2]
        inside = torch.as_tensor(same & (segments[1:-1] == segments[2:]), dtype=torch.float32)
        bend = torch.zeros(_OWN + rows)
        bend[:3] = 2 * SMOOTH_ROTATION  # |[w]x R|^2 is 2 |w|^2
        bend[3:5], bend[5], bend[_OWN:] = SMOOTH_SHIFT, SMOOTH_DEPTH, SMOOTH_EXPRESSION
        mean = torch.zeros(_OWN + rows)
        mean[_OWN:] = LAMBDA_EXPRESSION_MEAN
        self.coupling = Coupling(bend, inside, mean, self.found / self.found.sum())

    def solve(self, iterations: int, shape: FaceShape | None) -> None:
        if shape is not None:
            self.identity = torch.as_tensor(shape.identity)
            self.offsets = torch.as_tensor(shape.offsets) * 100
        first = max(1, round(PHASE_SHARE * iterations))
        for detail, count in ((False, first), (True, iterations - first)):
            for _ in range(count):
                if self._step(detail, shape_free=shape is None) < SETTLED:
                    break

    def shape(self) -> FaceShape:
        return FaceShape(self.identity.numpy().copy(), self.offsets.numpy() * 0.01)

    def result(self) -> FaceFit:
        neutral, eyes = self._neutral()
        parts = [self._project(neutral, eyes, rows)[0][:, :478] for rows in self._batches()]
        poses = np.tile(np.eye(4), (len(self.R), 1, 1))
        poses[:, :3, :3] = _orthonormal(self.R.double().numpy())
        z = torch.exp(self.depth)[:, None]
        shift = self.shift * (100 * self.unit / self.model.focal)
        poses[:, :3, 3] = torch.cat([shift * z, z], 1).numpy()
        gaze = self.gaze.view(-1, 2, 2).numpy()
        return FaceFit(poses, self.weights.numpy(), gaze, torch.cat(parts).numpy())

    def _neutral(self) -> tuple[Tensor, Tensor]:
        points, eyes = self.model.neutral(self.identity, self.offsets * 0.01)
        return (points if self.dense is None else torch.cat([points, self.dense[0]])), eyes

    def _batches(self) -> list[slice]:
        return [slice(s, s + _BATCH) for s in range(0, len(self.R), _BATCH)]

    def _step(self, detail: bool, shape_free: bool) -> float:
        """One step for all unknowns; returns the root mean square change of the expression."""
        frames, count = len(self.R), _OWN + self.weights.shape[1]
        blocks = self._linearised(detail, shape_free)
        low = torch.full((frames, count), -torch.inf)
        high = torch.full((frames, count), torch.inf)
        low[:, :6], high[:, :6] = -0.2, 0.2
        low[:, _OWN:], high[:, _OWN:] = -self.weights, 1 - self.weights
        free = torch.ones(frames, count, dtype=torch.bool)
        free[:, _RIGID] = not detail
        step, shared = bounded_step(blocks, self.coupling, low, high, free, SOLVER_STEPS)
        self.R = rotation_from_vector(step[:, :3]) @ self.R
        self.shift = self.shift + step[:, 3:5]
        self.depth = self.depth + step[:, 5]
        self.gaze = self.gaze + step[:, _GAZE]
        self.weights = (self.weights + step[:, _OWN:]).clamp_(0, 1)
        if shared is not None:
            modes = len(self.identity)
            self.identity = self.identity + shared[:modes]
            self.offsets = self.offsets + shared[modes:].view(478, 3)
        return float(step[:, _OWN:].square().mean().sqrt())

    def _project(
        self, neutral: Tensor, eyes: Tensor, rows: slice
    ) -> tuple[Tensor, Tensor, Tensor, list[tuple[slice, Tensor, Tensor]]]:
        """Pixels (t, 478, 2), points turned into the camera (t, 478, 3), their depth (t, 478),
        and the eyes' landmarks with their slopes."""
        model, weights, gaze, R = self.model, self.weights[rows], self.gaze[rows], self.R[rows]
        points = neutral + (weights @ self.expression).view(len(weights), -1, 3)
        slopes = []
        for side, marks in ((1, slice(468, 473)), (0, slice(473, 478))):
            own = gaze[:, 2 * side : 2 * side + 2]
            moved, by_yaw, by_pitch = _turned(neutral[marks], eyes[side], own)
            points[:, marks] = moved
            slopes.append((marks, by_yaw, by_pitch))
        # The slide with the turn is taken as it stands; its slope is small beside the turn's own.
        points[:, :478] += (turn_terms(R) @ model.turn).view(-1, 478, 3)
        turned = points @ R.transpose(1, 2)
        z = torch.exp(self.depth[rows])
        depth = turned[..., 2] + z[:, None]
        shift = self.shift[rows] * (100 * self.unit)
        xy = (model.focal * turned[..., :2] + (shift * z[:, None])[:, None]) / depth[..., None]
        return xy + model.center, turned, depth, slopes

    def _linearised(self, detail: bool, shape_free: bool) -> Blocks:
        model, frames = self.model, len(self.R)
        count = _OWN + self.weights.shape[1]
        neutral, eyes = self._neutral()
        base = model.detail_weights if detail else model.weights
        H, g = torch.empty(frames, count, count), torch.empty(frames, count)
        views, pulls, slopes, strengths = [], torch.zeros(478, 3), [], []
        for rows in self._batches():
            own, view, error = self._slopes(neutral, eyes, rows)
            strength = self._strength(error, base, rows) * self.found[rows, None]
            H[rows], g[rows] = normal_equations(
                own, view, self.expression_by_point, error, strength, _GAPS
            )
            if shape_free:
                pulls += _pulled(view, strength[..., None] * error).sum(0)
                views.append(view)
                slopes.append(_with_gaps(own))
                strengths.append(strength)
        self._add_priors(H, g)
        if not shape_free:
            return Blocks(H, g)
        view, own, strength = (torch.cat(parts) for parts in (views, slopes, strengths))
        return self._with_shape(H, g, pulls, view, own, strength)

    def _slopes(self, neutral: Tensor, eyes: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Slopes (t, Q, 2, 10) by a frame's own unknowns, view (t, Q, 2, 3) and error (t, Q + G, 2)
        in units of the objective.

        The errors of the Q points are followed by those of the G gaps of lids and lips; `view` is
        the slope of pixels by points in the head frame.
        """
        model, unit = self.model, self.unit
        xy, turned, depth, slopes = self._project(neutral, eyes, rows)
        R, z = self.R[rows], torch.exp(self.depth[rows])
        local = (xy - model.center) / unit
        frames = len(R)
        by_camera = torch.zeros(frames, self.count, 2, 3)
        by_camera[..., 0, 0] = by_camera[..., 1, 1] = model.focal / unit / depth
        by_camera[..., 2] = -local / depth[..., None]
        view = torch.bmm(by_camera.flatten(1, 2), R).view_as(by_camera)
        J = torch.zeros(frames, self.count, 2, _OWN)
        x, y, w = turned.unbind(-1)
        for axis, cross in enumerate(((None, -w, y), (w, None, -x), (-y, x, None))):
            for column, value in enumerate(cross):
                if value is not None:
                    J[..., axis] += by_camera[..., column] * value[..., None]
        J[..., 0, 3] = J[..., 1, 4] = 100 * z[:, None] / depth
        shift = 100 * self.shift[rows]
        J[..., 5] = (shift[:, None] - local) * (z[:, None] / depth)[..., None]
        for column, (marks, by_yaw, by_pitch) in zip((8, 6), slopes, strict=True):
            J[:, marks, :, column] = (view[:, marks] @ by_yaw[..., None])[..., 0]
            J[:, marks, :, column + 1] = (view[:, marks] @ by_pitch[..., None])[..., 0]
        error = local - (self.target[rows] - model.center) / unit
        return J, view, _with_gaps(error)

    def _strength(self, error: Tensor, base: Tensor, rows: slice) -> Tensor:
        """(t, Q) weights that make the squares of the residuals behave like the objective."""
        gaps = [LID_GAP_WEIGHT / len(LID_PAIRS)] * len(LID_PAIRS)
        gaps += [LIP_GAP_WEIGHT / len(LIP_PAIRS)] * len(LIP_PAIRS)
        parts = [(base / 478).expand(len(error), -1), torch.tensor(gaps).expand(len(error), -1)]
        if self.dense is not None:
            parts.insert(1, DENSE_WEIGHT * self.dense[1][rows])
        return torch.cat(parts, 1) / torch.sqrt((error * error).sum(-1) + CHARBONNIER)

    def _add_priors(self, H: Tensor, g: Tensor) -> None:
        """Everything but the landmarks, of which H and g hold half the second derivative."""
        own = H.diagonal(dim1=1, dim2=2)
        own[:, :6] += REST_UNSEEN * (1 - self.found)[:, None]
        l2 = 2 * LAMBDA_EXPRESSION_L2 * self.cost
        own[:, _OWN:] += l2
        g[:, _OWN:] += l2 * self.weights + LAMBDA_EXPRESSION_L1 * self.cost
        difference = self.gaze[:, :2] - self.gaze[:, 2:]
        own[:, _GAZE] += 2 * (LAMBDA_GAZE + LAMBDA_VERGENCE)
        g[:, _GAZE] += 2 * LAMBDA_GAZE * self.gaze
        for axis in range(2):
            H[:, 6 + axis, 8 + axis] -= 2 * LAMBDA_VERGENCE
            H[:, 8 + axis, 6 + axis] -= 2 * LAMBDA_VERGENCE
        g[:, 6:8] += 2 * LAMBDA_VERGENCE * difference
        g[:, 8:10] -= 2 * LAMBDA_VERGENCE * difference
        state = torch.cat([self.R.new_zeros(len(g), 3), self.shift, self.depth[:, None],
                           self.gaze, self.weights], 1)  # fmt: skip
        g += 2 * self.coupling.product(state)
        g[:, :3] += self._rotation_slope()

    def _rotation_slope(self) -> Tensor:
        """(T, 3) slope of the rotations' squared second differences by small turns."""
        R, result = self.R, torch.zeros(len(self.R), 3)
        if len(R) < 3:
            return result
        second = self.coupling.inside[:, None, None] * (R[2:] - 2 * R[1:-1] + R[:-2])
        pull = torch.zeros_like(R)
        pull[2:] += second
        pull[1:-1] -= 2 * second
        pull[:-2] += second
        skew = pull @ R.transpose(1, 2)
        skew = skew - skew.transpose(1, 2)
        return 2 * SMOOTH_ROTATION * torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], 1)

    def _with_shape(
        self, H: Tensor, g: Tensor, pulls: Tensor, view: Tensor, own: Tensor, strength: Tensor
    ) -> Blocks:
        """The blocks of the frames together with identity and offsets."""
        model, frames = self.model, len(H)
        modes, spread = len(self.identity), model.spread * 0.01
        # Rows times matrices take a quarter of matrices times columns.
        spread_back = spread.T.contiguous()

        def outward(s: Tensor) -> Tensor:
            """Shared unknowns to movements (478, 3)."""
            by_offsets = (s[modes:].view(478, 3).T.contiguous() @ spread_back).T
            return (s[:modes] @ model.identity).view(478, 3) + by_offsets

        def inward(u: Tensor) -> Tensor:
            by_offsets = (u.T.contiguous() @ spread).T
            return torch.cat([model.identity @ u.flatten(), by_offsets.flatten()])

        prior = torch.cat([
            torch.full((modes,), 2 * LAMBDA_IDENTITY * frames),
            torch.full((478 * 3,), 2 * LAMBDA_OFFSET / 478 * frames),
        ])  # fmt: skip
        state = torch.cat([self.identity, self.offsets.flatten()])
        flat = own.flatten(1, 2)
        by_unknown = flat.transpose(1, 2).contiguous()

        def product(x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
            # Movements of points rather than columns of the slopes: few large products, not many.
            seen = strength[..., None] * _with_gaps(_seen(view, outward(s)))
            pulled = _pulled(view, seen)
            by_own = torch.bmm(seen.flatten(1)[:, None], flat)[:, 0]
            by_expression = pulled.flatten(1) @ model.expression.T
            moved = (x[:, _OWN:] @ model.expression).view(frames, 478, 3)
            other = _with_gaps(_seen(view, moved))
            other = other + torch.bmm(x[:, None, :_OWN], by_unknown)[:, 0].view_as(other)
            both = pulled.sum(0) + _pulled(view, strength[..., None] * other).sum(0)
            return torch.cat([by_own, by_expression], 1), inward(both) + prior * s

        stiffness = torch.einsum("tk,tkij->kj", strength[:, :478], view**2)
        basis = model.identity * stiffness.flatten().sqrt()
        factor = torch.linalg.cholesky(basis @ basis.T + torch.diag(prior[:modes]))
        diagonal = (spread.T**2 @ stiffness).flatten() + prior[modes:]

        def precondition(q: Tensor) -> Tensor:
            first = torch.cholesky_solve(q[:modes, None], factor)[:, 0]
            return torch.cat([first, q[modes:] / diagonal])

        return Blocks(H, g, inward(pulls) + prior * state, precondition, product)


def _with_gaps(values: Tensor) -> Tensor:
    """Rows (t, 478, ...) of the landmarks, and after them the differences of facing lids, lips."""
    return torch.cat([values, values[:, _FIRST] - values[:, _SECOND]], 1)


def _seen(view: Tensor, movement: Tensor) -> Tensor:
    """Movements (478, 3) or (t, 478, 3) of points as (t, 478, 2) in the picture."""
    # Term by term: a sum over so few is five times as slow.
    x, y, z = movement[..., None, :].unbind(-1)
    return view[..., 0] * x + view[..., 1] * y + view[..., 2] * z


def _pulled(view: Tensor, residual: Tensor) -> Tensor:
    """(t, 478, 3): residuals (t, Q, 2) carried back to the points; undoes `_with_gaps`."""
    own = residual[:, :478].clone()
    own.index_add_(1, _FIRST, residual[:, 478:])
    own.index_add_(1, _SECOND, residual[:, 478:], alpha=-1)
    return view[..., 0, :] * own[..., :1] + view[..., 1, :] * own[..., 1:]


def _orthonormal(rotations: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(rotations)
    return u @ vt
