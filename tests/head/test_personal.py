"""A blink closes the eyes of every person, not only of the mean one."""

import numpy as np
import pytest

from avatar3d.head import ARKIT_52, ARKIT_INDEX, HeadModel
from avatar3d.head.landmarks import SLITS, eye_aperture


def lid_gaps(marks: np.ndarray, side: str) -> np.ndarray:
    """Metres between the upper lid's landmarks and the line of the lower lid, per landmark."""
    _, _, upper, lower = SLITS[side]
    line = marks[list(lower)]
    line = line[line[:, 0].argsort()]
    above = marks[list(upper)]
    return above[:, 1] - np.interp(above[:, 0], line[:, 0], line[:, 1])


def blink(side: str, weight: float) -> np.ndarray:
    row = np.zeros(len(ARKIT_52))
    row[ARKIT_INDEX[f"eyeBlink{side}"]] = weight
    return row


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_a_blink_closes_every_pair_of_eyes(anny: HeadModel, side: str):
    """Random people; with the rows of the mean face the gaps are up to 2 mm either way."""
    rng = np.random.default_rng(12)
    gaps, plain = [], []
    for _ in range(30):
        shaped = anny.shaped(rng.normal(size=len(anny.identity)))
        gaps.append(lid_gaps(anny.landmarks_of(shaped.posed(blink(side, 1))), side))
        moved = shaped.vertices + anny.expression[ARKIT_INDEX[f"eyeBlink{side}"]]
        plain.append(lid_gaps(anny.landmarks_of(moved), side))
    assert np.abs(gaps).max() < 0.3e-3
    assert np.abs(plain).max() > 1.5e-3


def test_half_a_blink_closes_half_and_the_other_eye_stays(anny: HeadModel):
    shaped = anny.shaped(np.random.default_rng(1).normal(size=20))
    rest = eye_aperture(anny.landmarks_of(shaped.vertices))
    half = eye_aperture(anny.landmarks_of(shaped.posed(blink("Left", 0.5))))
    assert half[0] == pytest.approx(0.5 * rest[0], rel=0.1)
    assert half[1] == pytest.approx(rest[1], rel=1e-3)


def test_only_the_blinks_differ_from_the_models_rows(anny: HeadModel):
    shaped = anny.shaped(np.random.default_rng(2).normal(size=20))
    changed = np.abs(shaped.expression - anny.expression).max((1, 2)) > 0
    names = {name for name, is_changed in zip(anny.expression_names, changed, strict=True)
             if is_changed}  # fmt: skip
    assert names == {"eyeBlinkLeft", "eyeBlinkRight"}


def test_heads_without_a_blink_keep_their_rows(small_head: HeadModel):
    """A bumpy sphere with random rows: whatever its lids are, nothing grows beyond bounds."""
    shaped = small_head.shaped(np.ones(4))
    size = np.abs(shaped.expression).max((1, 2))
    assert (size <= 1.6 * np.abs(small_head.expression).max((1, 2)) + 1e-7).all()
