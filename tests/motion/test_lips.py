"""Lip geometry against the head model itself."""

import numpy as np

from avatar3d.head.arkit import ARKIT_INDEX
from avatar3d.head.landmarks import LOWER_LIP_MID, UPPER_LIP_MID, lip_width
from avatar3d.head.model import HeadModel
from avatar3d.motion.lips import LipSpace, mouth_rows
from avatar3d.motion.mouth_shapes import MouthShapes


def test_gap_and_width_are_those_of_the_posed_head(toy_head: HeadModel) -> None:
    rng = np.random.default_rng(0)
    lips = LipSpace.of(toy_head)
    expression = np.zeros((5, len(toy_head.expression)))
    expression[:, lips.rows] = rng.uniform(0, 0.5, (5, len(lips.rows)))
    shaped = toy_head.shaped(np.zeros(1))
    landmarks = np.stack([toy_head.landmarks_of(shaped.posed(e)) for e in expression])
    displacement = lips.displacement(expression[:, lips.rows])
    vertical = landmarks[:, UPPER_LIP_MID, 1] - landmarks[:, LOWER_LIP_MID, 1]
    assert np.allclose(lips.gap(displacement), vertical, atol=1e-6)
    assert np.allclose(lips.width(displacement), lip_width(landmarks), atol=1e-6)


def test_speech_moves_mouth_rows_and_residual_rows_only(toy_head: HeadModel) -> None:
    names = [toy_head.expression_names[i] for i in mouth_rows(toy_head.expression_names)]
    assert {"jawOpen", "mouthClose", "tongueOut", "extra0", "extra1"} <= set(names)
    assert not [n for n in names if n.startswith(("eye", "brow", "nose", "cheekSquint"))]


def test_weights_reach_the_lips_they_are_asked_for_within_bounds(toy_head: HeadModel) -> None:
    rng = np.random.default_rng(1)
    lips = LipSpace.of(toy_head)
    true = rng.uniform(0, 0.6, (40, len(lips.rows)))
    target = lips.displacement(true)
    start = np.full_like(true, 0.3)
    found = lips.weights(target, start, np.full(len(lips.rows), 0.2), trust=1e-4)
    assert found.min() >= 0
    assert found.max() <= 1
    error = np.abs(lips.displacement(found) - target).mean()
    assert error < 0.1 * np.abs(lips.displacement(start) - target).mean()
    impossible = lips.weights(50 * target, start, np.full(len(lips.rows), 0.2))
    assert impossible.max() == 1


def test_rest_is_the_closed_mouth_of_the_clip(toy_head: HeadModel) -> None:
    rng = np.random.default_rng(2)
    lips = LipSpace.of(toy_head)
    weights = np.zeros((300, len(lips.rows)))
    column = {int(row): position for position, row in enumerate(lips.rows)}
    jaw, smile = column[ARKIT_INDEX["jawOpen"]], column[ARKIT_INDEX["mouthSmileLeft"]]
    weights[:, jaw] = np.abs(np.sin(np.arange(300) / 7)) * 0.4
    weights[:, smile] = 0.2
    shapes = MouthShapes.of(weights + 0.001 * rng.uniform(size=weights.shape), lips)
    gaps = lips.gap(lips.displacement(weights))
    assert lips.gap(shapes.rest_shape[None])[0] < gaps.min() + 0.02 * np.ptp(gaps)
    assert abs(shapes.rest[smile] - 0.2) < 0.01
    components = shapes.components(lips.displacement(weights))
    restored = shapes.displacement(components)
    assert np.allclose(lips.gap(restored), gaps, atol=2e-4)


def test_first_components_are_gap_and_width(toy_head: HeadModel) -> None:
    rng = np.random.default_rng(3)
    lips = LipSpace.of(toy_head)
    displacement = lips.displacement(rng.uniform(0, 0.3, (200, len(lips.rows))))
    shapes = MouthShapes.of(rng.uniform(0, 0.3, (200, len(lips.rows))), lips)
    components = shapes.components(displacement)
    gap, width = lips.gap(displacement), lips.width(displacement)
    assert np.allclose(components[:, 0] - components[0, 0], gap - gap[0], atol=1e-7)
    # The width is a distance, so only nearly linear.
    assert np.allclose(components[:, 1] - components[0, 1], width - width[0], atol=1e-3)
    assert np.corrcoef(components[:, 1], width)[0, 1] > 0.99
    only_gap = np.zeros((2, len(shapes.basis)))
    only_gap[1, 0] = 0.01
    moved = shapes.displacement(only_gap)
    assert np.allclose(np.diff(lips.gap(moved)), 0.01, atol=1e-5)
