import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.head import ARKIT_52, ARKIT_INDEX, HeadModel, gallery, load_head
from avatar3d.head.landmarks import lip_gap


def test_save_and_load_keep_the_head(small_head, tmp_path):
    path = tmp_path / "head.npz"
    small_head.save(path)
    back = load_head(str(path))
    assert np.array_equal(back.template, small_head.template)
    assert np.array_equal(back.faces, small_head.faces)
    assert np.abs(back.expression - small_head.expression).max() < 1e-5
    assert back.expression_names == small_head.expression_names
    again = tmp_path / "again.npz"
    back.save(again)
    assert HeadModel.load(again).fingerprint == back.fingerprint


@pytest.mark.parametrize("keep", [0, 10, 1000, -200])
def test_a_truncated_file_is_one_sentence(small_head, tmp_path, keep):
    path = tmp_path / "head.npz"
    small_head.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError):
        load_head(str(path))


def test_pickled_content_is_refused(small_head, tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, format_version=np.array(1), template=np.array([print], dtype=object))
    with pytest.raises(UserError):
        HeadModel.load(path)


def test_unknown_names_and_missing_files_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match="use anny, ict or the path"):
        load_head("flame")
    with pytest.raises(UserError, match="check the path"):
        load_head(str(tmp_path / "none.npz"))


# Landmarks of the 68-point scheme and their neighbours among the 478.
PAIRS = {36: 33, 39: 133, 42: 362, 45: 263, 48: 61, 54: 291, 30: 1, 33: 2, 8: 152, 51: 0, 57: 17}


def test_ict_landmarks_lie_where_the_publisher_put_them(ict, ict_arrays):
    published = ict_arrays["vertices"][ict_arrays["landmarks68"]] * 0.01
    ours = ict.landmarks_of(ict.template)
    # The head frame is shifted: compare after moving the outer eye corners onto each other.
    shift = ours[[33, 263]].mean(0) - published[[36, 45]].mean(0)
    for old, new in PAIRS.items():
        assert np.linalg.norm(ours[new] - published[old] - shift) < 0.007, (old, new)


def test_ict_rows_are_the_published_shapes(ict, ict_arrays):
    names = list(ict_arrays["expression_names"])
    mark = ict.faces[ict.landmark_faces[13]][0]
    original = int(
        np.linalg.norm(
            ict_arrays["vertices"] * 0.01
            - (ict.template[mark] - ict.eye_centers.mean(0) + ict_eyes(ict_arrays)),
            axis=1,
        ).argmin()
    )
    for name, parts in (
        ("jawOpen", ["jawOpen"]), ("mouthSmileLeft", ["mouthSmile_L"]),
        ("cheekPuff", ["cheekPuff_L", "cheekPuff_R"]), ("mouthLeft", ["mouthLeft"]),
    ):  # fmt: skip
        expected = sum(
            ict_arrays["expression"][names.index(p)][original].astype(float) for p in parts
        )
        assert np.allclose(ict.expression[ARKIT_INDEX[name]][mark], expected * 0.01, atol=5e-6)


def ict_eyes(arrays):
    """Middle between the eyeballs' centres in metres, from the back halves of their surfaces."""
    import json

    ranges = json.loads(str(arrays["parts"]))
    centres = []
    for side in ("left", "right"):
        first, last = ranges[f"sclera_{side}"]
        points = arrays["vertices"][first : last + 1] * 0.01
        back = points[points[:, 2] < points[:, 2].mean()].astype(float)
        system = np.c_[2 * back, np.ones(len(back))]
        centres.append(np.linalg.lstsq(system, (back**2).sum(1), rcond=None)[0][:3])
    return np.mean(centres, 0)


def test_ict_behaves_as_arkit_says(ict):
    shaped = ict.shaped(np.zeros(0))

    def gap(**values):
        row = np.zeros(len(ARKIT_52))
        for name, value in values.items():
            row[ARKIT_INDEX[name]] = value
        return lip_gap(ict.landmarks_of(shaped.posed(row)))

    assert gap(jawOpen=1) > gap() + 0.015
    assert gap(jawOpen=1, mouthClose=1) < gap(jawOpen=1) / 3


def test_a_file_that_is_no_head_is_one_sentence(tmp_path):
    from avatar3d.head.sources import ict as source

    path = tmp_path / "x.npz"
    np.savez(path, vertices=np.zeros((3, 3)), parts=np.array("{}"))
    with pytest.raises(UserError, match="ict_mediapipe478"):
        source.from_npz(path)
    np.savez(tmp_path / "ict_mediapipe478.npz", face=np.zeros(478, int))
    with pytest.raises(UserError, match="not an ICT-FaceKit head"):
        source.from_npz(path)


def test_gallery_shows_every_row_and_differs_where_the_face_does(anny):
    sheet = gallery(anny, size=48, columns=10)
    rows = -(-(len(anny.expression) + 1) // 10)
    assert sheet.shape == (rows * 64, 480, 3)
    tiles = sheet.reshape(rows, 64, 10, 48, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 64, 48, 3)
    neutral, jaw = tiles[0][:48].astype(int), tiles[1 + ARKIT_INDEX["jawOpen"]][:48].astype(int)
    changed = np.abs(neutral - jaw).sum(-1) > 30
    assert changed[24:].sum() > 10 * max(changed[:16].sum(), 1)
