"""Going on with an avatar: a second clip of the same person, and what the avatar already knows."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar import PosedAvatar, SplatAvatar
from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig, draw_face
from avatar3d.capture.identity import load_identity
from avatar3d.errors import UserError
from avatar3d.head import HeadModel
from avatar3d.progress import say
from avatar3d.subject import Subject, Tracking
from avatar3d.training.losses import Sample

__all__ = ["Rehearsal", "check_same_person", "moved_onto", "widened"]

_FACES = 5  # pictures of each to compare
_SAME, _OTHER = 0.6, 0.75  # descriptors closer than the one are of one person, beyond the other not


def moved_onto(tracking: Tracking, model: HeadModel, avatar: PosedAvatar) -> Tracking:
    """A tracking whose poses hold for the avatar's head instead of its own.

    Two clips of one person give two heads of slightly different shape and, because a camera cannot
    tell near and small from far and large, of different size. The avatar keeps its head: the poses
    take over the similarity between the two neutral faces, with the size as distance, which leaves
    every picture as it was. Photometric tracking then finds what remains.

    Raises:
        UserError: the avatar has another head model, or was written before it knew its identity.
    """
    identity = avatar.info.get("identity")
    if avatar.info.get("head_model") != tracking.head_model or identity is None:
        raise UserError(
            "This avatar cannot take another clip, because it has another head model than the clip "
            "or is from an older version; train it again from its first clip."
        )
    own = model.landmarks_of(model.shaped(tracking.identity).vertices)
    kept = model.landmarks_of(model.shaped(np.asarray(identity)).vertices)
    T_own_kept, size = _similarity(kept, own)

    def moved(T_camera_own: np.ndarray) -> np.ndarray:
        # K (R (s A p + a) + t) and K (R (A p + a / s) + t / s) are the same pixel.
        scaled = T_camera_own @ T_own_kept
        scaled[..., :3, 3] /= size
        return scaled

    return replace(
        tracking,
        identity=np.asarray(identity),
        landmark_offsets=np.zeros_like(tracking.landmark_offsets),
        T_camera_rest=np.asarray(avatar.state.T_camera_rest, np.float64),
        T_camera_head=moved(tracking.T_camera_head),
        T_camera_torso=moved(tracking.T_camera_torso),
    )


def _similarity(points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Rotation and translation (4, 4), and the size s: target ~ s R points + t (Umeyama 1991)."""
    mean, target_mean = points.mean(0), target.mean(0)
    a, b = points - mean, target - target_mean
    u, spread, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    size = float((spread * np.diag(sign)).sum() / (a * a).sum())
    transform = np.eye(4)
    transform[:3, :3] = rotation
    transform[:3, 3] = target_mean - size * rotation @ mean
    return transform, size


def widened(avatar: SplatAvatar, tracking: Tracking, frames: np.ndarray) -> dict[str, np.ndarray]:
    """The range of the avatar's driving signal, widened by that of the frames."""
    signal = np.concatenate([tracking.weights, tracking.gaze.reshape(len(tracking), 4)], 1)[frames]
    state = avatar.state
    return {
        "signal_min": np.minimum(state.signal_min, signal.min(0)).astype(np.float32),
        "signal_max": np.maximum(state.signal_max, signal.max(0)).astype(np.float32),
    }


class Rehearsal:
    """The avatar as it was, performing the motion that travels with it, as further frames.

    Training on the new clip alone would forget the first one.
    """

    def __init__(self, avatar: SplatAvatar, device: str | torch.device) -> None:
        self._rig = SplatRig(avatar.state, device)
        self._parameters = SplatParameters(avatar.state, device).requires_grad_(False)
        self._camera = avatar.camera
        self._faces = list(avatar.to(str(device)).faces(avatar.idle_motion))
        self._weight = torch.ones(self._camera.height, self._camera.width, device=device)
        self._device = device

    def __len__(self) -> int:
        return len(self._faces)

    def sample(self, index: int, color: Tensor) -> Sample:
        """A frame of the motion over a colour (3,)."""
        face: FaceParameters = self._faces[index]
        image, _ = draw_face(self._rig, self._parameters, face, self._camera, color)
        return Sample(face, self._camera, image.clamp(0, 1), color, self._weight)


def check_same_person(subject: Subject, model: HeadModel, avatar: SplatAvatar) -> None:
    """Compare the faces of a clip with those of the avatar, where the network for it is there.

    Raises:
        UserError: they are of two people.
    """
    identify = load_identity()
    if identify is None:
        say("The network that tells faces apart is not installed; taking the clip's person as is.")
        return
    tracking = subject.tracking
    valid = np.flatnonzero(tracking.valid)
    chosen = valid[np.linspace(0, len(valid) - 1, _FACES).astype(int)]
    theirs = np.stack([identify(subject.frame(int(i)), tracking.landmarks[i]) for i in chosen])
    ours = np.stack([identify(*view) for view in _faces_of(avatar, model)])
    distance = float(np.linalg.norm(np.median(theirs, 0) - np.median(ours, 0)))
    if distance > _OTHER:
        raise UserError(
            f"{subject.folder} shows another person than the avatar (their faces are "
            f"{distance:.2f} apart, one person's under {_SAME}); train an avatar of their own."
        )
    if distance > _SAME:
        say(f"The clip may show another person than the avatar: their faces are {distance:.2f} "
            f"apart, one person's usually under {_SAME}.")  # fmt: skip


def _faces_of(avatar: SplatAvatar, model: HeadModel) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures of the avatar in its own motion, and the landmarks (478, 2) in them."""
    shaped = model.shaped(np.asarray(avatar.info["identity"]))
    motion = avatar.idle_motion
    faces = list(avatar.faces(motion))
    views = []
    for index in np.linspace(0, len(faces) - 1, _FACES).astype(int):
        face = faces[index]
        vertices = shaped.posed(face.weights.numpy(), face.gaze.numpy())
        transform = face.T_camera_head.numpy()
        points = model.landmarks_of(vertices) @ transform[:3, :3].T + transform[:3, 3]
        (picture,) = avatar.render_motion(motion.slice(index, index + 1))
        views.append((picture, avatar.camera.project(points)))
    return views
