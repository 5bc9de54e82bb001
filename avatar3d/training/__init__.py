"""Training: from a Subject to an Avatar."""

from avatar3d.training.config import TrainingConfig
from avatar3d.training.train import train

__all__ = ["TrainingConfig", "train"]
