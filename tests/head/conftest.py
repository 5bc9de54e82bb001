"""Heads to test with, and files in the layouts of published heads made from the default one."""

import pickle
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from avatar3d.errors import UserError
from avatar3d.head import ARKIT_52, ARKIT_INDEX, HeadModel, load_head
from avatar3d.head.anny.landmarks import Embedding
from avatar3d.head.model import PARTS

DATA = Path(__file__).resolve().parents[3] / "shared/data/assets"
SCALE, SHIFT = 0.96, np.array([0.0, -0.02, 0.01])


@pytest.fixture(scope="session")
def anny() -> HeadModel:
    """The default head, from the user's cache, where the build of an earlier run is kept."""
    try:
        return load_head("anny")
    except UserError as error:
        pytest.skip(f"the default head model cannot be had here: {error}")


@pytest.fixture(scope="session")
def ict() -> HeadModel:
    if not (DATA / "ict_facekit.npz").is_file():
        pytest.skip(f"no {DATA / 'ict_facekit.npz'}")
    return load_head(str(DATA / "ict_facekit.npz"))


@pytest.fixture(scope="session")
def ict_arrays(ict) -> dict[str, np.ndarray]:
    with np.load(DATA / "ict_facekit.npz", allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


@pytest.fixture(scope="session")
def made_up() -> SimpleNamespace:
    """`person`, and writers of files in the published layouts: no real file may be here."""
    return SimpleNamespace(
        person=person, flame_file=flame_file, gnm_file=gnm_file, chumpy_array=chumpy_array
    )


@dataclass
class Person:
    """Another person than the mean, with part of the default head's vertices.

    Attributes:
        kept: (K,) vertices of the default head; vertices: (K, 3); faces: (F, 3).
        rows: (52, K, 3) what the ARKit rows should be; marks: where the landmarks are.
        centers: (2, 3) of the eyeballs.
    """

    head: HeadModel
    kept: np.ndarray
    vertices: np.ndarray
    faces: np.ndarray
    rows: np.ndarray
    marks: Embedding
    centers: np.ndarray

    def embed(self, head: HeadModel) -> Embedding:
        """The true landmarks, as a finder would give them."""
        return self.marks


def person(head: HeadModel, parts: tuple[str, ...]) -> Person:
    rng = np.random.default_rng(6)
    shaped = head.shaped(0.8 * rng.normal(size=20))
    inside = np.isin(head.part, [PARTS.index(name) for name in parts])
    chosen = inside[head.faces].all(1) & (shaped.vertices[head.faces][..., 1] > -0.16).all(1)
    kept = np.unique(head.faces[chosen])
    number = np.full(len(head.template), -1)
    number[kept] = np.arange(len(kept))
    face_number = np.cumsum(chosen) - 1
    assert chosen[head.landmark_faces].all()
    marks = Embedding(
        face_number[head.landmark_faces], head.landmark_bary, head.landmark_sigma.astype(float)
    )
    return Person(
        head, kept, SCALE * shaped.vertices[kept].astype(float) + SHIFT, number[head.faces[chosen]],
        SCALE * head.expression[:52, kept].astype(float), marks,
        SCALE * shaped.eye_centers + SHIFT,
    )  # fmt: skip


def mixed(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(count, K, 3): unlabelled modes that span the rows, the strongest first."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(count, len(rows))) / np.sqrt(len(rows))
    return np.tensordot(mixing * np.linspace(1.0, 0.2, count)[:, None], rows, 1)


def flame_file(path: Path, made: Person) -> Path:
    """The dictionary of generic_model.pkl, with a chumpy array and a sparse matrix, protocol 2."""
    head, kept, count = made.head, made.kept, len(made.kept)
    spanned = [
        i for n, i in ARKIT_INDEX.items()
        if not n.startswith(("eyeBlink", "jaw", "tongue"))
    ]  # fmt: skip
    shapedirs = np.zeros((count, 3, 350), np.float32)
    modes = SCALE * head.identity[:20, kept]
    shapedirs[..., :20] = modes.transpose(1, 2, 0)
    shapedirs[..., 300:] = mixed(made.rows[spanned], 50, 1).transpose(1, 2, 0)
    weights = np.zeros((count, 5))
    drop = np.linalg.norm(made.rows[ARKIT_INDEX["jawOpen"]], axis=1)
    weights[:, 2] = np.clip(drop / np.percentile(drop, 99), 0, 1)
    weights[:, 0] = head.torso_weight[kept] * (1 - weights[:, 2])
    for joint, name in ((3, "eye_left"), (4, "eye_right")):
        eye = head.part[kept] == PARTS.index(name)
        weights[eye] = np.eye(5)[joint]
    weights[:, 1] = 1 - weights.sum(1)
    hinge = made.centers.mean(0) + [0, -0.03, -0.07]
    targets = [hinge - [0, 0.12, 0], hinge - [0, 0.06, 0], hinge, *made.centers]
    regressor = np.zeros((5, count))
    for joint, target in enumerate(targets):  # the least-norm weights that give the joint
        system = np.c_[made.vertices, np.ones(count)].T
        regressor[joint] = np.linalg.pinv(system) @ np.r_[target, 1]
    for joint, name in ((3, "eye_left"), (4, "eye_right")):
        eye = head.part[kept] == PARTS.index(name)
        regressor[joint] = eye / eye.sum()
    content = {
        "f": made.faces.astype(np.uint32), "v_template": made.vertices,
        "shapedirs": chumpy_array(shapedirs), "posedirs": np.zeros((count, 3, 36)),
        "J_regressor": sparse.csc_matrix(regressor), "weights": weights,
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.int64),
        "bs_style": "lbs", "bs_type": "lrotmin", "J": regressor @ made.vertices,
    }  # fmt: skip
    with open(path, "wb") as handle:
        pickle.dump(content, handle, protocol=2)
    return path


def chumpy_array(values: np.ndarray) -> object:
    """What chumpy.Ch looks like in a pickle; the package itself is long dead."""
    module = sys.modules.get("chumpy.ch")
    if module is None:
        module = types.ModuleType("chumpy.ch")
        module.Ch = type("Ch", (), {"__module__": "chumpy.ch"})
        sys.modules["chumpy"] = types.ModuleType("chumpy")
        sys.modules["chumpy.ch"] = module
    array = module.Ch()
    array.x = values
    array.__dict__["_dirty_vars"] = set()
    return array


def gnm_file(path: Path, made: Person) -> Path:
    """The arrays of gnm_head.npz."""
    head, kept, count = made.head, made.kept, len(made.kept)
    part = head.part[kept]
    names = {
        "left_eye": ("eye_left",), "right_eye": ("eye_right",), "ears": ("ears",),
        "tongue": ("tongue",), "upper_teeth_and_gums": ("teeth_upper",),
        "lower_teeth_and_gums": ("teeth_lower",), "gums": ("gums",),
        "mouth_sock": ("mouth_cavity",), "eye_exteriors": (),
    }  # fmt: skip
    groups = np.stack(
        [np.isin(part, [PARTS.index(p) for p in parts]) for parts in names.values()]
    ).astype(np.float32)
    blocks = {
        "left_eye_region": [n for n in ARKIT_52 if n.startswith("eye") and n.endswith("Left")],
        "right_eye_region": [n for n in ARKIT_52 if n.startswith("eye") and n.endswith("Right")],
        "lower_face_region": [n for n in ARKIT_52 if not n.startswith(("eye", "tongue"))],
        "tongue": ["tongueOut"],
    }
    basis, labels = [], []
    for seed, (region, rows) in enumerate(blocks.items()):
        modes = mixed(made.rows[[ARKIT_INDEX[n] for n in rows]], len(rows) + 3, seed)
        basis.append(modes)
        labels += [f"{region}_{i}" for i in range(len(modes))]
    uv = np.random.default_rng(0).random((len(made.faces), 3, 2))
    np.savez(
        path, version="3.0", variant="head", template_vertex_positions=made.vertices,
        triangles=made.faces, triangle_uvs=uv, vertex_identity_basis=SCALE * head.identity[:, kept],
        identity_names=[f"head_{i}" for i in range(len(head.identity))],
        joint_identity_basis=np.concatenate(
            [np.zeros((len(head.identity), 2, 3)), SCALE * head.eye_centers_identity], 1
        ),
        expression_basis=np.concatenate(basis), expression_names=labels,
        joint_names=["neck", "head", "left_eye", "right_eye"],
        template_joint_positions=np.concatenate([np.zeros((2, 3)), made.centers]),
        skinning_weights=np.stack(
            [head.torso_weight[kept], 1 - head.torso_weight[kept], np.zeros(count), np.zeros(count)]
        ),
        vertex_groups=groups, vertex_group_names=list(names),
    )  # fmt: skip
    return path
