"""What a picture of a field consists of, and how that is shown to people."""

from typing import NamedTuple

import torch
from torch import Tensor

from avatar3d.avatar.nerf.rays import camera_rays
from avatar3d.geometry import Camera

__all__ = ["LAYERS", "Layers", "layer_picture", "surface_normals"]

LAYERS = ("attention", "depth", "normals")
"""Names of what `layer_picture` shows."""
_REACH = 0.25  # metres before and behind the head's middle, from white to black
_SHADE = 0.45  # brightness of the grey picture under the gates


class Layers(NamedTuple):
    """What a picture is made of.

    Attributes:
        color: (H, W, 3) over black; alpha: (H, W).
        depth: (H, W) metres from the camera along the ray, infinite where nothing is.
        normals: (H, W, 3) unit, camera frame, towards the camera; 0 where nothing is.
        gates: (H, W, 4) how much the surface hears of mouth, eyes, rest and appearance.
    """

    color: Tensor
    alpha: Tensor
    depth: Tensor
    normals: Tensor
    gates: Tensor


def layer_picture(layers: Layers, name: str, usual: float) -> Tensor:
    """(H, W, 3) in [0, 1], black where nothing is.

    attention: red, green and blue what hears of mouth, eyes and the rest of the face, on grey.
    depth: from white, 0.25 m before `usual`, to black, as far behind it. normals: x, y up and
    towards the camera, from -1 to 1.

    Args:
        name: of `LAYERS`; usual: distance of the head from the camera, metres.
    """
    solid = (layers.alpha > 0.5)[..., None]
    if name == "attention":
        grey = layers.color.mean(-1, keepdim=True).expand(-1, -1, 3)
        gates = layers.gates[..., :3]
        return (_SHADE * grey * (1 - gates.amax(-1, keepdim=True)) + gates).clamp(0, 1)
    if name == "depth":
        near = 0.5 - (layers.depth - usual) / (2 * _REACH)
        return torch.where(solid, near.clamp(0, 1)[..., None].expand(-1, -1, 3), 0.0)
    outward = layers.normals * layers.normals.new_tensor([1.0, -1.0, -1.0])
    known = solid & (layers.normals != 0).any(-1, keepdim=True)
    return torch.where(known, (outward + 1) / 2, 0.0)


def surface_normals(depth: Tensor, camera: Camera) -> Tensor:
    """Unit normals (H, W, 3) of the surface at distances (H, W), from differences of its points."""
    height, width = depth.shape
    identity = torch.eye(4, device=depth.device)
    pixels = torch.arange(height * width, device=depth.device)
    _, directions = camera_rays(camera, identity, pixels)
    points = directions.view(height, width, 3) * depth[..., None]
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    inner = torch.nn.functional.normalize(torch.linalg.cross(down, across), dim=-1)
    normals = torch.zeros_like(points)
    normals[1:-1, 1:-1] = inner.nan_to_num(0.0)
    return normals
