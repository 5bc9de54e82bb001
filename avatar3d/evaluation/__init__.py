"""How good an avatar is: metrics, the held-out protocol of the field, and contact sheets."""

from avatar3d.evaluation.protocol import evaluate, is_its_clip

__all__ = ["evaluate", "is_its_clip"]
