"""What can be set about training, with defaults that suit a few-minute clip on two CPU cores."""

from dataclasses import dataclass

__all__ = ["RunConfig", "TrainingConfig"]


@dataclass(frozen=True)
class RunConfig:
    """What the trainings of all kinds of avatar have in common."""

    iterations: int = 2000
    """Iterations of the final training, at most."""
    seconds: float = 0.0
    """Time for everything together; photometric tracking and the iterations are cut to fit. 0 sets
    no limit, and only then does the same call give the same avatar on a faster machine."""
    patience: int = 4
    """Training ends early once frames held back have not gained for so many looks, one every 100
    iterations; 0 holds no frames back."""
    held_back: int = 8
    """Training frames that are only looked at."""
    gaussians: int = 25_000
    """Budget of Gaussians for the whole picture, background plate apart."""
    warmup_iterations: int = 500
    """Iterations of the quick avatar without blendshapes that photometric tracking renders."""
    coarse_iterations: int = 200
    """First iterations of the warm-up, on pictures of half the size: what is coarse is learnt as
    well from them, in two thirds of the time."""
    refine_steps: int = 9
    """Optimiser steps per frame of photometric tracking; 0 keeps the captured tracking."""
    refine_scale: float = 0.5
    """Image scale of photometric tracking."""
    train_fraction: float = 1.0
    """Leading fraction of the clip to train on; 10/11 (0.909091) is the field's usual split."""
    max_frames: int = 600
    """At most this many frames, evenly spread, are trained on."""
    ssim_weight: float = 0.2
    """Weight of (1 - SSIM) against L1."""
    mouth_weight: float = 3.0
    """Weight of pixels around the mouth in the loss."""
    eye_weight: float = 2.0
    """Weight of pixels around the eyes in the loss."""
    random_background: float = 0.25
    """Fraction of iterations on a random flat background, which keeps the alpha honest."""
    limit_colors: bool = True
    """Keep hair, and what the clip shows edge-on only, to the colours shown around it, or the
    background's would stick to the person's outline."""
    final_rate: float = 0.05
    """Learning rates end at this fraction of their start."""
    checkpoint_seconds: float = 15.0
    """A checkpoint is written at least this often."""
    preview_iterations: int = 500
    """A preview picture is written this often."""
    device: str = "auto"
    """Where to train: cpu, cuda, or auto, which is an NVIDIA GPU if all kernels run there."""
    seed: int = 0
    """Seed of every random choice."""


@dataclass(frozen=True)
class TrainingConfig(RunConfig):
    """Options of `avatar3d train`."""

    densify: float = 0.3
    """Share of the budget that is placed only after the warm-up, where errors pull hardest; 0
    places all of it at the start."""
    basis: int = 16
    """Number of learned attribute blendshapes; 0 switches them off."""
    detail_weight: float = 10.0
    """Weight of the difference in fine detail of the head, in proportion to its strength; keeps
    the face from being as blurred as it is placed. Less of it gives a tenth of a decibel more and a
    softer face."""
    perceptual_weight: float = 0.0
    """Weight of the perceptual distance (LPIPS) of the head; needs `pip install lpips` and the
    weights of AlexNet, and takes about as long as everything else."""
    matte_weight: float = 0.0
    """Weight of the difference between alpha and matte; `random_background` does the same work."""
    temporal_weight: float = 0.0
    """Weight of the difference of the change since the frame before; doubles the time."""
    prior_color: float = 0.3
    """Weight of the pull towards the colour of neighbouring Gaussians; see `Priors`."""
    prior_position: float = 0.005
    """Weight of the pull towards the start place, of eyes and mouth towards the surface, in squared
    reaches of the part."""
    prior_scale: float = 0.001
    """Weight of the pull towards the initial size, in squared e-folds."""
    prior_opacity: float = 0.001
    """Weight of the pull of skin towards solid, in squared logits."""
