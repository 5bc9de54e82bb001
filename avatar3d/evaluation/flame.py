"""FLAME parameters as motions of an avatar, learnt from frames that have both.

A benchmark hands out FLAME parameters for frames whose pictures it keeps. Our avatars have another
head, and no FLAME model is needed to get there: on the training frames, whose pictures were
captured, the change of frame and scale between the two heads is solved for, and what is left of
pose, expression, gaze and shoulders is regressed.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from avatar3d.capture.nersemble import FlameTrack
from avatar3d.subject import Tracking

__all__ = ["FlameConversion"]

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # of a standardised input, per frame
_FOLDS = 5
_FIXED = 1e-6


@dataclass(frozen=True)
class FlameConversion:
    """From FLAME in a world to our head in the camera that filmed the training frames.

    Attributes:
        T_camera_world: (4, 4) of that camera, in the world's metres.
        scale: our metres in one of the world's, because a single camera sees no size.
        T_model_head: (4, 4) our head in FLAME's frame, our metres.
        mean, deviation: (118,) of the inputs; weights: (119, O) of the regression, the last row
            a constant.
        penalty: that was chosen; error: share of the outputs' variance that it leaves on frames it
            was not fitted to, mean over the expression weights that vary.
    """

    T_camera_world: np.ndarray
    scale: float
    T_model_head: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    weights: np.ndarray
    penalty: float
    error: float

    @classmethod
    def fit(
        cls, flame: FlameTrack, tracking: Tracking, frames: np.ndarray, T_camera_world: np.ndarray
    ) -> "FlameConversion":
        """Learn from `frames` (N,) of a tracking (T,) and the FLAME parameters of all T frames."""
        ours = tracking.T_camera_head[frames]
        model = T_camera_world @ flame.T_world_model[frames]
        # Places of our origin: t_ours = scale (R x + t), linear in scale and scale x.
        places = np.concatenate([model[:, :3, 3, None], model[:, :3, :3]], 2).reshape(-1, 4)
        solved, *_ = np.linalg.lstsq(places, ours[:, :3, 3].reshape(-1), rcond=None)
        T_model_head = np.eye(4)
        turns = model[:, :3, :3].transpose(0, 2, 1) @ ours[:, :3, :3]
        T_model_head[:3, :3] = Rotation.from_matrix(turns).mean().as_matrix()
        T_model_head[:3, 3] = solved[1:]
        empty = cls(T_camera_world, float(solved[0]), T_model_head, *(np.zeros(0),) * 3, 0.0, 0.0)
        inputs = empty._inputs(flame, tracking)[frames]
        outputs = empty._outputs(flame, tracking)[frames]
        mean, deviation = inputs.mean(0), inputs.std(0)
        # What never varied in training says nothing, however far it goes in the test.
        deviation = np.where(deviation > _FIXED, deviation, np.inf)
        x = np.column_stack([(inputs - mean) / deviation, np.ones(len(inputs))])
        left = [_unexplained(x, outputs, penalty) for penalty in _PENALTIES]
        best = int(np.argmin(left))
        return replace(
            empty, mean=mean, deviation=deviation, weights=_ridge(x, outputs, _PENALTIES[best]),
            penalty=_PENALTIES[best], error=left[best],
        )  # fmt: skip

    def apply(self, flame: FlameTrack, tracking: Tracking) -> Tracking:
        """A tracking as of these T frames, seen by the training camera; the person's own else.

        What only pictures tell (landmarks, confidence) is kept where the lengths agree, and zero
        otherwise.
        """
        x = (self._inputs(flame, tracking) - self.mean) / self.deviation
        found = np.column_stack([x, np.ones(len(x))]) @ self.weights
        rows = tracking.residual.shape[1]
        expression, residual, gaze, moved, torso = np.split(
            found, np.cumsum([52, rows, 4, 6]), axis=1
        )
        count = len(flame)
        kept: dict[str, Any] = {}
        if count != len(tracking.T_camera_head):
            nothing = np.zeros((count, 478, 2))
            kept = {
                "landmarks": nothing, "landmarks_fit": nothing, "confidence": np.zeros(count),
                "valid": np.ones(count, bool), "segments": np.zeros(count, np.int32),
                "reasons": np.zeros(count, np.uint8),
            }  # fmt: skip
        return replace(
            tracking,
            T_camera_head=self._head(flame) @ _poses(moved),
            T_camera_torso=tracking.T_camera_rest @ _poses(torso),
            expression=expression.clip(0, 1).astype(np.float32),
            residual=residual.astype(np.float32),
            gaze=gaze.reshape(-1, 2, 2).astype(np.float32),
            **kept,
        )

    def seen_from(self, tracking: Tracking, T_other_world: np.ndarray) -> Tracking:
        """The same as another camera (4, 4 world to camera, the world's metres) sees it."""
        move = self._scaled(T_other_world @ np.linalg.inv(self.T_camera_world))
        return replace(
            tracking,
            T_camera_head=move @ tracking.T_camera_head,
            T_camera_torso=move @ tracking.T_camera_torso,
        )

    def _scaled(self, poses: np.ndarray) -> np.ndarray:
        poses = poses.copy()
        poses[..., :3, 3] *= self.scale
        return poses

    def _head(self, flame: FlameTrack) -> np.ndarray:
        """(T, 4, 4) our head, were it fixed to FLAME's frame."""
        return self._scaled(self.T_camera_world @ flame.T_world_model) @ self.T_model_head

    def _inputs(self, flame: FlameTrack, tracking: Tracking) -> np.ndarray:
        """(T, 118): FLAME's values, and where the head is; the neck's share is in the former."""
        place = np.linalg.inv(tracking.T_camera_rest) @ self._head(flame)
        return np.column_stack([flame.values, _vectors(place)])

    def _outputs(self, flame: FlameTrack, tracking: Tracking) -> np.ndarray:
        moved = np.linalg.inv(self._head(flame)) @ tracking.T_camera_head
        torso = np.linalg.inv(tracking.T_camera_rest) @ tracking.T_camera_torso
        gaze = tracking.gaze.reshape(len(moved), 4)
        return np.column_stack(
            [tracking.expression, tracking.residual, gaze, _vectors(moved), _vectors(torso)]
        )


def _vectors(poses: np.ndarray) -> np.ndarray:
    """(T, 6) rotation vectors in radians and places in metres of (T, 4, 4)."""
    turns = Rotation.from_matrix(poses[:, :3, :3]).as_rotvec()
    return np.column_stack([turns, poses[:, :3, 3]])


def _poses(vectors: np.ndarray) -> np.ndarray:
    poses = np.tile(np.eye(4), (len(vectors), 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(vectors[:, :3]).as_matrix()
    poses[:, :3, 3] = vectors[:, 3:]
    return poses


def _ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    weights = np.full(x.shape[1], penalty * len(x))
    weights[-1] = 0  # the constant
    return np.linalg.solve(x.T @ x + np.diag(weights), x.T @ y)


def _unexplained(x: np.ndarray, y: np.ndarray, penalty: float) -> float:
    """Share of the variance of the expressions that is left on frames that were left out."""
    fold = np.arange(len(x)) * _FOLDS // len(x)
    errors = np.zeros(52)
    for number in range(_FOLDS):
        out = fold == number
        wrong = x[out] @ _ridge(x[~out], y[~out], penalty) - y[out]
        errors += (wrong[:, :52] ** 2).sum(0)
    spread = ((y - y.mean(0)) ** 2).sum(0)[:52]
    varies = spread > _FIXED * len(y)
    return float((errors[varies] / spread[varies]).mean()) if varies.any() else float("nan")
