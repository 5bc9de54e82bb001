"""How good an avatar is: metrics, the held-out protocol of the field, and contact sheets."""

from avatar3d.evaluation.protocol import evaluate

__all__ = ["evaluate"]
