"""Pictures of a quick avatar from sides that no frame shows, to keep the field whole there."""

import numpy as np
import torch
from torch import Tensor

from avatar3d.avatar import SplatAvatar
from avatar3d.avatar.rig import FaceParameters
from avatar3d.geometry import Camera, yaw_pitch_roll
from avatar3d.motion import Motion
from avatar3d.motion.sliders import columns_named

__all__ = ["Sides"]

_COUNT = 32
_YAW, _PITCH = 0.7, 0.4  # radians to both sides
_WIDER = 1.6  # expressions go this far beyond the filmed ones, at most
_BLINKS = 3  # every so many
_CLOSED = 0.6  # at least, in a blink


class Sides:
    """Turned heads with wide expressions: faces, straight colours and alphas.

    A clip has few frames of closed eyes, and a field makes little of them: these have more.

    Args:
        avatar: of splats, whose priors fill what was not filmed.
        weights: (T, E) expression weights of the clip, some of which are shown.
        camera: of the pictures.
        rng: source of randomness.

    Attributes:
        faces: n of them; images: (n, H, W, 3) over black; alphas: (n, H, W).
    """

    def __init__(
        self,
        avatar: SplatAvatar,
        weights: np.ndarray,
        camera: Camera,
        rng: np.random.Generator,
    ) -> None:
        from scipy.stats import qmc  # takes long to import

        chosen = weights[rng.integers(len(weights), size=_COUNT)]
        chosen = (chosen * rng.uniform(1, _WIDER, (_COUNT, 1))).clip(0, 1)
        blink = columns_named("eyeBlink")
        chosen[::_BLINKS, blink] = rng.uniform(_CLOSED, 1, (len(chosen[::_BLINKS]), 1))
        head = np.tile(np.eye(4, dtype=np.float32), (_COUNT, 1, 1))
        spread = qmc.Halton(2, scramble=False).random(_COUNT + 1)[1:] * 2 - 1
        for pose, (yaw, pitch) in zip(head, spread, strict=True):
            angles = yaw * _YAW, pitch * _PITCH, 0.0
            pose[:3, :3] = yaw_pitch_roll(*(torch.tensor(float(a)) for a in angles)).numpy()
        motion = Motion(
            fps=25,
            expression=chosen[:, :52].astype(np.float32),
            residual=chosen[:, 52:].astype(np.float32),
            head_pose=head,
            torso_pose=np.tile(np.eye(4, dtype=np.float32), (_COUNT, 1, 1)),
        )
        self.faces: list[FaceParameters] = list(avatar.faces(motion))
        self.images = torch.empty(_COUNT, camera.height, camera.width, 3)
        self.alphas = torch.empty(_COUNT, camera.height, camera.width)
        nothing = torch.zeros(3)
        for row, face in enumerate(self.faces):
            self.images[row], self.alphas[row] = avatar.picture(face, camera, nothing)

    def __len__(self) -> int:
        return len(self.faces)

    def over(self, row: int, color: Tensor) -> Tensor:
        """(H, W, 3) of a picture over a colour (3,)."""
        return self.images[row] + (1 - self.alphas[row])[..., None] * color
