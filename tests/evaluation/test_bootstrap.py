"""Bootstrap intervals against the theory of correlation coefficients."""

import numpy as np
import pytest

from avatar3d.evaluation.bootstrap import Estimate, correlated, drawn, estimate


def related(count: int, held: int) -> tuple[np.ndarray, np.ndarray]:
    """Two series (count * held,) of correlation 0.6, every value lasting `held` samples."""
    rng = np.random.default_rng(2)
    first, other = rng.normal(size=(2, count))
    return np.repeat(first, held), np.repeat(0.6 * first + 0.8 * other, held)


@pytest.mark.parametrize("held", [1, 10])
def test_the_interval_is_as_wide_as_independent_samples_make_it(held: int) -> None:
    # The deviation of r is (1 - r^2) / sqrt(n) of n independent pairs (Fisher), however often
    # each is repeated.
    found = correlated(*related(400, held), rate=20.0 * held)
    expected = 2 * 1.645 * (1 - found.value**2) / np.sqrt(400)
    assert found.width == pytest.approx(expected, rel=0.25)
    assert found.low < 0.6 < found.high


def test_ends_are_drawn_as_often_as_the_middle() -> None:
    counts = np.bincount(drawn(100, 25).ravel(), minlength=100)
    assert counts[:5].mean() == pytest.approx(300, rel=0.15)
    assert counts.min() > 200


@pytest.mark.parametrize("count", [20, 46])
def test_a_series_shorter_than_a_block_is_no_surer_for_it(count: int) -> None:
    values = np.random.default_rng(7).normal(size=(40, count))
    widths = [estimate(lambda i, v=v: v[i].mean(), count, rate=25.0).width for v in values]
    assert np.mean(widths) == pytest.approx(2 * 1.645 / np.sqrt(count), rel=0.25)


def test_a_ratio_is_as_uncertain_as_its_parts() -> None:
    # Standard rule: relative variances of independent factors add.
    ratio = Estimate(2.0, 1.9, 2.1) / Estimate(4.0, 3.7, 4.3)
    assert ratio.value == 0.5
    assert ratio.width / ratio.value == pytest.approx(np.hypot(0.1, 0.15))
