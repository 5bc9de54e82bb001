"""Samples of half the size, for the first iterations."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from avatar3d.geometry import Camera
from avatar3d.training.losses import Sample

__all__ = ["halved"]


def halved(sample: Sample) -> Sample:
    """The same sample at half the resolution, pictures averaged over squares of two by two.

    An odd last row or column is left out. `region` becomes None.
    """
    camera = sample.camera
    half = Camera(camera.K * np.array([[0.5], [0.5], [1.0]]), camera.width // 2, camera.height // 2)
    background = sample.background
    return replace(
        sample,
        camera=half,
        image=_halved(sample.image),
        weight=_halved(sample.weight),
        background=background if background.ndim == 1 else _halved(background),
        matte=None if sample.matte is None else _halved(sample.matte),
        before=None if sample.before is None else halved(sample.before),
        region=None,
    )


def _halved(picture: Tensor) -> Tensor:
    """Mean of squares of two by two of (H, W, ...)."""
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    pairs = (picture[0:height:2, :width] + picture[1:height:2, :width]).unflatten(1, (-1, 2))
    return (pairs[:, :, 0] + pairs[:, :, 1]).mul_(0.25)
