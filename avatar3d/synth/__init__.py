"""A synthetic person with known ground truth, for tests and for trying things out."""

from avatar3d.synth.clip import SyntheticClip, make_synthetic
from avatar3d.synth.write import write_subject, write_truth, write_video

__all__ = ["SyntheticClip", "make_synthetic", "write_subject", "write_truth", "write_video"]
