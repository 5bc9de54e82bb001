"""The tool that teaches the mouth for any voice, end to end on a few readings."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avatar3d.audio import embedding
from avatar3d.io.arrays import read_arrays
from avatar3d.motion.universal import UniversalDriver

TOOL = Path(__file__).parents[2] / "tools" / "train_speech_prior.py"


def test_a_tiny_training_gives_a_driver_and_the_same_one_again(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="eSpeak NG is not installed")
    if not embedding.available():
        pytest.skip("the speech embedding cannot be obtained here")
    # In processes of their own: eSpeak NG's voice depends on what it said before.
    outputs = [tmp_path / name for name in ("first.npz", "again.npz")]
    options = ["--readings", "4", "--judged", "1"]
    runs = [
        subprocess.Popen(
            [sys.executable, TOOL, *options, "--output", output],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for output in outputs
    ]
    ends = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ends[0][1][-2000:]
    first, again = (read_arrays(output, 8 << 20) for output in outputs)
    for name, array in UniversalDriver.from_arrays(first).arrays().items():
        assert np.array_equal(array, again[name]), name
    assert "1 readings in it, ko, pl" in ends[0][0]
