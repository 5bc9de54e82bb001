"""How good an avatar is: metrics, protocols, reports, and any other system scored alike."""

from avatar3d.evaluation.config import EvaluationConfig
from avatar3d.evaluation.files import evaluate_files
from avatar3d.evaluation.protocol import evaluate, evaluate_frames
from avatar3d.evaluation.split import is_its_clip

__all__ = ["EvaluationConfig", "evaluate", "evaluate_files", "evaluate_frames", "is_its_clip"]
