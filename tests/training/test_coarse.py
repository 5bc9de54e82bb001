"""Samples at half the size show the same scene."""

import numpy as np
import torch

from avatar3d.avatar import SplatState
from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig, draw_face
from avatar3d.geometry import Camera
from avatar3d.training.coarse import halved
from avatar3d.training.losses import Sample


def test_pictures_are_averaged_and_the_camera_agrees_with_them(small_state: SplatState):
    small_state.log_scale += 1.5  # or pixels would be larger than the Gaussians
    rig, parameters = SplatRig(small_state), SplatParameters(small_state)
    rest = torch.tensor(small_state.T_camera_rest, dtype=torch.float32)
    rows = len(small_state.expression)
    face = FaceParameters(torch.zeros(rows), torch.zeros(2, 2), rest, rest)
    camera = Camera(np.asarray(small_state.K_matrix), 95, 79)  # odd: a row and a column go
    plate = torch.rand(79, 95, 1).expand(-1, -1, 3) * 0.1
    image, _ = draw_face(rig, parameters, face, camera, plate)
    weight = torch.rand(79, 95)
    before = Sample(face, camera, image, torch.ones(3), weight)
    half = halved(Sample(face, camera, image, plate, weight, matte=weight, before=before))
    assert half.image.shape == (39, 47, 3)
    means = image[:78, :94].detach().numpy().reshape(39, 2, 47, 2, 3).mean((1, 3))
    assert np.allclose(half.image.detach(), means, atol=1e-6)
    assert torch.equal(half.matte, half.weight)
    assert half.before is not None
    assert half.before.background.shape == (3,)
    drawn, _ = draw_face(rig, parameters, face, half.camera, half.background)
    error = (drawn - half.image).abs().mean()
    shifted = (drawn - half.image.roll(1, 1)).abs().mean()
    assert error < 0.3 * shifted  # what is left is the renderer's own blur of a pixel
