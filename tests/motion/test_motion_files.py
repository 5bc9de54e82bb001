"""Motion files: what is written is read, and what is not one is refused in a sentence."""

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.io.arrays import write_arrays
from avatar3d.motion import Motion
from avatar3d.motion.motion import TRACKS
from avatar3d.motion.paths import orbit


def whole() -> Motion:
    rng = np.random.default_rng(0)
    head = orbit(2).head_pose
    return Motion(25, rng.random((50, 52)), head, rng.normal(0, 0.1, (50, 2, 2)),
                  rng.random((50, 7)), head, source="a test")  # fmt: skip


def header(**changes) -> dict:
    return {"header": np.array(json.dumps({"format": "avatar3d.motion", "version": 1, "fps": 25,
                                           **changes}))}  # fmt: skip


def npy(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


def test_every_track_comes_back(tmp_path):
    whole().save(tmp_path / "m.npz")
    back = Motion.load(tmp_path / "m.npz")
    assert (back.fps, back.source) == (25, "a test")
    for name in TRACKS:
        np.testing.assert_array_equal(getattr(back, name), getattr(whole(), name))
    sparse = Motion(30, gaze=np.zeros((4, 2, 2)))
    sparse.save(tmp_path / "s.npz")
    assert Motion.load(tmp_path / "s.npz").expression is None


def test_the_header_says_what_columns_mean(tmp_path):
    values = np.array([[0.25, 0.5]], np.float32)
    names = header(expression_names=["jawOpen", "tongueOut"])
    write_arrays(tmp_path / "m.npz", {**names, "expression": values})
    row = Motion.load(tmp_path / "m.npz").expression[0]
    assert row[ARKIT_INDEX["jawOpen"]] == 0.25
    assert row[ARKIT_INDEX["tongueOut"]] == 0.5
    assert np.count_nonzero(row) == 2


EXPRESSION = {"expression": np.zeros((3, len(ARKIT_52)), np.float32)}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (EXPRESSION, "header"),
        ({**header(version=2), **EXPRESSION}, "version 2"),
        ({**header(fps="fast"), **EXPRESSION}, "damaged"),
        ({**header(fps=0), **EXPRESSION}, "frame rate"),
        ({**header(format="other"), **EXPRESSION}, "header"),
        ({**header(expression_names=["jaw"] * 52), **EXPRESSION}, "columns"),
        ({**header(expression_names=7), **EXPRESSION}, "damaged"),
        (header(), "missing"),
        ({**header(), "expression": np.full((3, 52), np.nan)}, "non-finite"),
        ({**header(), "expression": np.zeros((0, 52))}, "at least one frame"),
        ({**header(), "expression": np.full((3, 52), "a")}, "numbers"),
        ({**header(), "residual": np.zeros((1, 5000))}, "1024"),
        ({**header(), "head_pose": np.ones((3, 4, 4))}, "rotations"),
        ({**header(), **EXPRESSION, "gaze": np.zeros((4, 2, 2))}, "length"),
    ],
)
def test_broken_files_are_one_sentence(tmp_path, arrays, said):
    path = tmp_path / "m.npz"
    write_arrays(path, arrays)
    with pytest.raises(UserError, match=said) as caught:
        Motion.load(path)
    assert "m.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_memory_is_taken_for_sizes_that_are_made_up(tmp_path):
    """A header that claims a terabyte, and an archive that unpacks to eight gigabytes."""
    path = tmp_path / "m.npz"
    small = npy(np.zeros((3, 52), np.float32))
    lying = small.replace(b"(3, 52), }" + b" " * 8, b"(999999999, 52), }")
    assert len(lying) == len(small)
    for member in (lying, None):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("header.npy", npy(header()["header"]))
            if member is not None:
                archive.writestr("expression.npy", member)
            else:
                with archive.open("expression.npy", "w", force_zip64=True) as handle:
                    for _ in range(3):
                        handle.write(bytes(1 << 20))
        if member is None:  # the directory states 8 GB
            data = path.read_bytes()
            stated = (3 << 20).to_bytes(4, "little")
            path.write_bytes(data.replace(stated, (0xF0000000).to_bytes(4, "little")))
        tracemalloc.start()
        with pytest.raises(UserError, match=r"m\.npz"):
            Motion.load(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip", npy(np.zeros(3))])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "m.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"m\.npz"):
        Motion.load(path)
    with pytest.raises(UserError, match="absent"):
        Motion.load(tmp_path / "absent.npz")


def test_objects_are_not_unpickled(tmp_path):
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.npy", npy(header()["header"]))
        archive.writestr("expression.npy", npy(np.array([{}], object)))
    with pytest.raises(UserError, match="neither numbers nor text"):
        Motion.load(path)
