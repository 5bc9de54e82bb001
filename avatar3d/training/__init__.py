"""Training: from a Subject to an Avatar."""

from avatar3d.training.config import TrainingConfig
from avatar3d.training.kinds import training_config
from avatar3d.training.nerf import NerfConfig
from avatar3d.training.train import train

__all__ = ["NerfConfig", "TrainingConfig", "train", "training_config"]
