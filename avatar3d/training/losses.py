"""The losses of a training, each a named term that the config weighs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, no_grad

from avatar3d.avatar.deform import FaceParameters, SplatParameters
from avatar3d.geometry import Camera
from avatar3d.kernels import FaceLoss, Wanted, detail_difference, l1_ssim_loss
from avatar3d.training.config import TrainingConfig
from avatar3d.training.perceptual import Perceptual
from avatar3d.training.priors import Priors

__all__ = ["Compare", "Draw", "Losses", "Sample"]

Draw = Callable[["Sample"], tuple[Tensor, Tensor]]
"""Picture (H, W, 3) and alpha (H, W) of the avatar in a sample's pose."""
Compare = Callable[["Sample", Wanted], FaceLoss]
"""What the avatar in a sample's pose loses against a picture."""


@dataclass
class Sample:
    """One frame as training sees it.

    Attributes:
        face: what it does; camera: who looks at it.
        image: (H, W, 3) in [0, 1] over `background`, which is (3,) or (H, W, 3).
        matte: (H, W) in [0, 1]; None where no term asks for it.
        weight: (H, W) of the pixels.
        before: the frame before; None where no term asks for it or there is none.
        region: rows and columns of the head; None where no term asks for it or it is too small.
    """

    face: FaceParameters
    camera: Camera
    image: Tensor
    background: Tensor
    weight: Tensor
    matte: Tensor | None = None
    before: "Sample | None" = None
    region: tuple[slice, slice] | None = None


class Losses:
    """The terms, weighted, by name:

    picture: `ssim_weight` (1 - SSIM) + (1 - `ssim_weight`) L1, pixels weighed by region.
    detail: `detail_difference` in the head's region, less where pixels weigh more.
    perceptual: LPIPS of the head's region, where it is installed.
    matte: L1 of the alpha against the matte.
    temporal: L1 of the change since the frame before against the recording's.
    priors: see `Priors`.

    Raises:
        UserError: `perceptual_weight` is set and LPIPS is not installed.
    """

    def __init__(
        self, config: TrainingConfig, priors: Priors, device: str | torch.device = "cpu"
    ) -> None:
        self.config, self.priors = config, priors
        self._perceptual = Perceptual(device) if config.perceptual_weight else None

    def __call__(
        self,
        draw: Draw,
        compare: Compare,
        sample: Sample,
        parameters: SplatParameters,
        rng: np.random.Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Their sum, differentiable, and each of them."""
        looked_at = (
            sample.matte is not None
            or sample.before is not None
            or (sample.region is not None and self._perceptual is not None)
        )
        terms = self._of_picture(draw, sample) if looked_at else {}
        total = torch.stack([*terms.values()]).sum() if looked_at else None
        if total is None:
            detail_weight = self.config.detail_weight if sample.region is not None else 0.0
            where = sample.weight, sample.region
            weights = self.config.ssim_weight, detail_weight
            loss = compare(sample, Wanted(sample.image, sample.background, *where, *weights))
            total, terms = loss.total, {"picture": loss.picture}
            if detail_weight:
                terms["detail"] = loss.detail
        terms["priors"] = self.priors(parameters, rng)
        return total + terms["priors"], terms

    def _of_picture(self, draw: Draw, sample: Sample) -> dict[str, Tensor]:
        """The terms of a picture that is wanted itself."""
        config = self.config
        image, alpha = draw(sample)
        terms = {"picture": self.picture(image, sample)}
        if sample.region is not None and config.detail_weight:
            where, factor = (sample.region, sample.weight), config.detail_weight
            terms["detail"] = detail_difference(image, sample.image, *where, factor)
        if sample.region is not None and self._perceptual is not None:
            distance = self._perceptual(image, sample.image, sample.region)
            terms["perceptual"] = config.perceptual_weight * distance
        if sample.matte is not None:
            terms["matte"] = config.matte_weight * (alpha - sample.matte).abs().mean()
        if sample.before is not None:
            with no_grad():
                earlier, _ = draw(sample.before)
            change = (image - earlier) - (sample.image - sample.before.image)
            terms["temporal"] = config.temporal_weight * change.abs().mean()
        return terms

    def picture(self, image: Tensor, sample: Sample) -> Tensor:
        """The picture's term alone, for a picture (H, W, 3) of the sample."""
        ssim_weight = self.config.ssim_weight
        return l1_ssim_loss(image, sample.image, weight=sample.weight, ssim_weight=ssim_weight)
