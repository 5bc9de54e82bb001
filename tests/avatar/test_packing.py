"""Packing rounds to its steps and keeps integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avatar3d.avatar.packing import STEPS, pack, unpack


@given(hnp.arrays(np.int32, st.integers(0, 20)))
def test_integers_come_back(values: np.ndarray) -> None:
    np.testing.assert_array_equal(unpack(pack({"face": values}))["face"], values)


@given(hnp.arrays(np.float32, (7, 3), elements=st.floats(-40, 40, width=32)))
def test_floats_come_back_within_half_a_step(values: np.ndarray) -> None:
    back = unpack(pack({"log_scale": values}))["log_scale"]
    assert back.dtype == np.float32
    assert np.abs(back - values).max() <= STEPS["log_scale"] * 0.501


def test_every_row_of_the_basis_has_its_own_step() -> None:
    basis = np.random.default_rng(0).normal(0, 0.1, (5, 10, 4)).astype(np.float32)
    error = np.abs(unpack(pack({"basis": basis}))["basis"] - basis)
    assert (error <= STEPS["basis"] * 0.501).all()


def test_what_has_no_step_stays() -> None:
    arrays = {"map": np.random.default_rng(0).random((2, 3)), "part": np.arange(3, dtype=np.uint8)}
    for name, array in unpack(pack(arrays)).items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, arrays[name])


def test_numbers_out_of_reach_are_refused() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        pack({"vertices": np.array([1e9])})
    with pytest.raises(ValueError, match="planes of shape"):
        unpack({"face.planes": np.zeros((3, 5), np.uint8)})
