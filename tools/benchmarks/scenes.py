"""Gaussians to draw: a synthetic head at any size, and the trained ones of an avatar file."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.torch_raster import Counts, count_blended

__all__ = ["AvatarFace", "Scene", "avatar_face", "head_scene"]


@dataclass
class Scene:
    """Arguments of `rasterize`: means, quats, scales, opacities, colors; viewmat, K."""

    gaussians: list[Tensor]
    viewmat: Tensor
    K: Tensor
    width: int
    height: int

    def to(self, device: str) -> "Scene":
        moved = [t.to(device) for t in self.gaussians]
        return Scene(moved, self.viewmat.to(device), self.K.to(device), self.width, self.height)

    def __len__(self) -> int:
        return len(self.gaussians[0])

    @cached_property
    def counts(self) -> Counts:
        return count_blended([*self.gaussians, self.viewmat, self.K], self.width, self.height)


def head_scene(count: int, size: int) -> Scene:
    """A shell of flat Gaussians, as large in the picture as a head in a portrait.

    20k of them at 512 x 512 are the scene that the project's first measurements describe: about 31
    blended per covered pixel (of which there are 45 %). Larger counts have smaller Gaussians.
    """
    generator = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    means = direction * torch.tensor([0.105, 0.14, 0.11]) + torch.tensor([0.0, 0.0, 0.8])
    # wxyz that turns z onto the shell's normal, so that the thin axis points outwards
    quats = torch.cat(
        [1 + direction[:, 2:], -direction[:, 1:2], direction[:, :1], 0 * direction[:, :1]], dim=-1
    )
    spread = 0.0019 * (20_000 / count) ** 0.5
    scales = spread * torch.exp(0.4 * torch.randn(count, 3, generator=generator))
    scales[:, 2] *= 0.2
    opacities = torch.sigmoid(1.0 + 1.5 * torch.randn(count, generator=generator))
    colors = torch.rand(count, 3, generator=generator)
    K = torch.tensor([[2.4 * size, 0, size / 2], [0, 2.4 * size, size / 2], [0, 0, 1.0]])
    return Scene([means, quats, scales, opacities, colors], torch.eye(4), K, size, size)


@dataclass
class AvatarFace:
    """A trained avatar in its neutral pose, ready for `pose_gaussians` and `draw_face`."""

    name: str
    rig: Any
    parameters: Any
    face: Any
    camera: Any

    def scene(self, size: int) -> Scene:
        """Its Gaussians as the rasteriser gets them; the longer side of the picture is `size`."""
        from avatar3d.avatar.deform import pose_gaussians

        camera = self.camera.scaled(size / max(self.camera.width, self.camera.height))
        with torch.no_grad():
            posed = pose_gaussians(self.rig, self.parameters, self.face)
        K = torch.as_tensor(camera.K, dtype=torch.float32)
        return Scene(list(posed), torch.eye(4), K, camera.width, camera.height)


def avatar_face(path: Path) -> AvatarFace:
    """Load `NAME.a3d`; see `avatar3d.avatar.load` for what it raises."""
    from avatar3d.avatar import load
    from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig

    avatar = load(path)
    pose = torch.tensor(avatar.state.T_camera_rest, dtype=torch.float32)
    weights = torch.zeros(len(avatar.state.expression))
    face = FaceParameters(weights, torch.zeros(2, 2), pose, pose)
    rig, parameters = SplatRig(avatar.state), SplatParameters(avatar.state)
    return AvatarFace(path.stem, rig, parameters, face, avatar.camera)
