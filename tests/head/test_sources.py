"""Published heads: files in their layouts become heads that move as the ARKit names say.

No real FLAME or GNM file may be here; the files are made from another person of the default head.
"""

import contextlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.head import ARKIT_52, ARKIT_INDEX, load_head
from avatar3d.head.landmarks import eye_aperture, lip_gap
from avatar3d.head.model import PARTS
from avatar3d.head.sources.pickled import Made, read_pickled_arrays

OUTSIDE = ("face", "ears", "lips", "eye_left", "eye_right", "eye_socket")
INSIDE = ("mouth_cavity", "gums", "teeth_upper", "teeth_lower", "tongue")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory, anny):
    """Conversions go to a cache of their own; the default head is already in memory."""
    before = os.environ.get("AVATAR3D_CACHE")
    os.environ["AVATAR3D_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["AVATAR3D_CACHE"]
    else:
        os.environ["AVATAR3D_CACHE"] = before


@pytest.fixture(scope="module")
def converted(anny, made_up, tmp_path_factory) -> dict[str, tuple]:
    """Kind to head model, the person it was made from, and the file."""
    folder = tmp_path_factory.mktemp("models")
    bare, whole = made_up.person(anny, OUTSIDE), made_up.person(anny, OUTSIDE + INSIDE)
    files = {
        "flame": (made_up.flame_file(folder / "generic_model.pkl", bare), bare),
        "gnm": (made_up.gnm_file(folder / "gnm_head.npz", whole), whole),
    }
    return {
        kind: (load_head(str(path), made.embed), made, path) for kind, (path, made) in files.items()
    }


@pytest.mark.parametrize("kind", ["flame", "gnm"])
def test_rows_do_what_their_names_say(converted, kind):
    """Against the rows that the made-up file's own, unlabelled expressions were mixed from."""
    head, made, _ = converted[kind]
    count = len(made.kept)
    face = np.isin(head.part[:count], [PARTS.index("face"), PARTS.index("lips")])
    for name in ARKIT_52:
        wanted, found = made.rows[ARKIT_INDEX[name]], head.expression[ARKIT_INDEX[name], :count]
        error = np.sqrt(((found - wanted)[face] ** 2).sum(1).mean())
        size = np.sqrt((wanted[face] ** 2).sum(1).mean())
        # A jaw that only turns cannot go forward or sideways; FLAME's cannot.
        limit = 0.40 if name.startswith(("jaw", "eyeBlink", "brow")) else 0.20
        assert error <= limit * size + 1e-6, name


@pytest.mark.parametrize("kind", ["flame", "gnm"])
def test_lids_meet_and_lips_part(converted, kind):
    head = converted[kind][0]
    shaped = head.shaped(np.zeros(0))

    def marks(**values: float) -> np.ndarray:
        row = np.zeros(len(ARKIT_52))
        for name, value in values.items():
            row[ARKIT_INDEX[name]] = value
        return head.landmarks_of(shaped.posed(row))

    rest = eye_aperture(marks())
    assert (eye_aperture(marks(eyeBlinkLeft=1)) / rest)[0] < 0.15
    assert (eye_aperture(marks(eyeBlinkLeft=1)) / rest)[1] == pytest.approx(1, abs=0.02)
    assert lip_gap(marks(jawOpen=1)) > lip_gap(marks()) + 0.015
    assert lip_gap(marks(jawOpen=1, mouthClose=1)) < 0.2 * lip_gap(marks(jawOpen=1))


def test_a_tongue_of_its_own_comes_out(converted):
    head, made, _ = converted["gnm"]
    tongue = head.part[: len(made.kept)] == PARTS.index("tongue")
    row = ARKIT_INDEX["tongueOut"]
    wanted, found = made.rows[row, tongue], head.expression[row, : len(made.kept)][tongue]
    error, size = (np.sqrt((field**2).sum(1).mean()) for field in (found - wanted, wanted))
    assert error < 0.25 * size


def test_flame_gets_the_mouth_it_lacks(converted):
    head, made, _ = converted["flame"]
    for name in INSIDE:
        assert (head.part == PARTS.index(name)).sum() > 50, name
    teeth = np.isin(head.part, [PARTS.index("teeth_upper"), PARTS.index("teeth_lower")])
    lips = head.landmarks_of(head.template)[[13, 14]].mean(0)
    front = head.template[teeth][:, 2].max()
    assert lips[2] - 0.02 < front < lips[2]
    assert head.expression_names[52].startswith("flame-expression")
    ours, theirs = np.diff(head.eye_centers, axis=0), np.diff(made.centers, axis=0)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_parts_are_found(converted):
    for head, made, _ in converted.values():
        truth = made.head.part[made.kept]
        for name in ("lips", "ears", "eye_left", "eye_right", "face"):
            ours = head.part[: len(made.kept)] == PARTS.index(name)
            wanted = truth == PARTS.index(name)
            assert (ours & wanted).sum() / (ours | wanted).sum() > 0.7, name


def test_a_converted_head_is_known_by_its_name(converted):
    for head, _, path in converted.values():
        again = load_head(head.name)
        assert again.fingerprint == head.fingerprint
        assert load_head(str(path)).fingerprint == head.fingerprint  # no finder needed any more


def test_an_unconverted_model_says_what_to_run(anny, made_up, tmp_path):
    path = made_up.flame_file(tmp_path / "other.pkl", made_up.person(anny, OUTSIDE))
    with pytest.raises(UserError, match="run `avatar3d head"):
        load_head(str(path))
    with pytest.raises(UserError, match="not on this machine"):
        load_head("flame-0123456789ab")


class Bomb:
    """Pickles to a call; unpickled in the usual way it would create the file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


class CodeBomb:
    """The same by a builtin."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return exec, (f"open({str(self.target)!r}, 'w').close()",)


@pytest.mark.parametrize("bomb", [Bomb, CodeBomb])
@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_never_runs_anything(tmp_path, anny, bomb, protocol):
    target, path = tmp_path / "ran", tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"v_template": bomb(target), "f": [bomb(target)]}, protocol))
    with pytest.raises(UserError):
        load_head(str(path), lambda head: pytest.fail("not to be reached"))
    assert isinstance(read_pickled_arrays(path)["v_template"], Made)
    assert not target.exists()
    pickle.loads(pickle.dumps(bomb(target), protocol))  # noqa: S301
    assert target.exists()  # the bomb was live


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_out_as_they_went_in(tmp_path, made_up, protocol):
    from scipy import sparse

    rng = np.random.default_rng(1)
    content = {
        "double": rng.normal(size=(4, 3, 2)), "single": rng.normal(size=5).astype(">f4"),
        "fortran": np.asfortranarray(rng.normal(size=(3, 4))),
        "whole": np.arange(6, dtype=np.uint32),
        "sparse": sparse.random(5, 40, 0.2, "csc", random_state=3),
        "rows": sparse.random(5, 40, 0.2, "csr", random_state=3),
        "chumpy": made_up.chumpy_array(rng.normal(size=(2, 2))), "text": "lbs", "number": 3.5,
        "empty": np.zeros((0, 3)), "scalar": np.float64(2.5),
    }  # fmt: skip
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    found = read_pickled_arrays(path)
    for name in ("double", "single", "fortran", "whole", "empty"):
        np.testing.assert_array_equal(found[name], content[name])
        assert found[name].dtype == content[name].dtype
    for name in ("sparse", "rows"):
        np.testing.assert_array_equal(found[name], content[name].toarray())
    np.testing.assert_array_equal(found["chumpy"], content["chumpy"].x)
    assert (found["text"], found["number"], found["scalar"]) == ("lbs", 3.5, 2.5)


def test_damaged_pickles_are_one_sentence(tmp_path):
    whole = pickle.dumps({"v_template": np.ones((5, 3)), "f": np.zeros((2, 3), int)}, 2)
    rng = np.random.default_rng(8)
    path = tmp_path / "x.pkl"
    for attempt in range(300):
        data = bytearray(whole[: rng.integers(len(whole))] if attempt % 3 == 0 else whole)
        for _ in range(attempt % 4):
            if data:
                data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(bytes(data))
        with contextlib.suppress(UserError):  # and nothing else
            read_pickled_arrays(path)


@pytest.mark.parametrize("name", ["weights", "shapedirs", "v_template", "f", "J_regressor"])
def test_an_incomplete_flame_is_one_sentence(tmp_path, anny, name):
    content = {
        "v_template": np.zeros((9, 3)), "f": np.zeros((4, 3), int), "weights": np.zeros((9, 5)),
        "shapedirs": np.zeros((9, 3, 310)), "posedirs": np.zeros((9, 3, 36)),
        "J_regressor": np.zeros((5, 9)),
    }  # fmt: skip
    content[name] = np.full((9, 2), np.nan) if name == "weights" else np.zeros((3, 2))
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, 2))
    with pytest.raises(UserError, match="not a FLAME model"):
        load_head(str(path), lambda head: pytest.fail("not to be reached"))


def test_icts_folder_is_read_like_its_arrays(ict_arrays, ict, tmp_path):
    """The published folder rebuilt from the arrays; the landmarks are handed in."""
    from avatar3d.head.anny.landmarks import Embedding

    folder = tmp_path / "FaceXModel"
    write_ict_folder(folder, ict_arrays, identities=2)
    marks = Embedding(ict.landmark_faces, ict.landmark_bary, ict.landmark_sigma)
    head = load_head(str(folder), lambda blank: marks)
    assert np.array_equal(head.faces, ict.faces)
    np.testing.assert_allclose(head.template, ict.template, atol=1e-6)
    np.testing.assert_allclose(head.identity, ict.identity[:2], atol=2e-6)
    np.testing.assert_allclose(head.expression, ict.expression, atol=2e-5)
    assert (head.part == ict.part).mean() > 0.995
    (folder / "jawOpen.obj").unlink()
    with pytest.raises(UserError, match="not the FaceXModel folder"):
        load_head(str(folder), lambda blank: marks)


def write_ict_folder(folder: Path, arrays: dict[str, np.ndarray], identities: int) -> None:
    import json

    folder.mkdir()
    neutral = arrays["vertices"].astype(float)

    def lines(vertices: np.ndarray) -> str:
        return "\n".join(map("v {:.7f} {:.7f} {:.7f}".format, *vertices.T.tolist())) + "\n"

    surface = ["mtllib ICTFaceModelMaterial.mtl\n", lines(neutral)]
    surface += [f"vt {u:.6f} {v:.6f}\n" for u, v in arrays["uv"]]
    material = -1
    corners = zip(arrays["faces"] + 1, arrays["uv_faces"] + 1, arrays["face_material"], strict=True)
    for face, uv, own in corners:
        if own != material:
            material = own
            surface.append(f"usemtl {arrays['material_names'][own]}\n")
        surface.append("f " + " ".join(f"{a}/{b}" for a, b in zip(face, uv, strict=True)) + "\n")
    (folder / "generic_neutral_mesh.obj").write_text("".join(surface))
    names = [str(name) for name in arrays["expression_names"]]
    (folder / "vertex_indices.json").write_text(json.dumps({"expressions": names}))
    for name, row in zip(names, arrays["expression"], strict=True):
        (folder / f"{name}.obj").write_text(lines(neutral + row))
    for index in range(identities):
        text = lines(neutral + arrays["identity"][index])
        (folder / f"identity{index:03d}.obj").write_text(text)
