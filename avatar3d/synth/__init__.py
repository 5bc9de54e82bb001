"""A synthetic person with known ground truth, for tests and for trying things out."""
