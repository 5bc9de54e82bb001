"""Facts of anatomy and of the ARKit convention that the default head must keep."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from avatar3d.head import ARKIT_52, ARKIT_INDEX, HeadModel
from avatar3d.head.landmarks import EYE_LEFT, EYE_RIGHT, LIPS_INNER
from avatar3d.head.model import PARTS
from avatar3d.kernels import rasterize_mesh

NEUTRAL = np.zeros(0)
MM = 1e-3


def weights(**values: float) -> np.ndarray:
    row = np.zeros(len(ARKIT_52))
    for name, value in values.items():
        row[ARKIT_INDEX[name]] = value
    return row


def person(head: HeadModel, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.8, len(head.identity))


def visible_parts(head: HeadModel, vertices: np.ndarray, yaw: float = 0.0) -> dict[str, int]:
    """Pixels of each part seen from the front, 1 m away through a long lens."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    turned = vertices @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T
    points = turned * [1, -1, -1] + [0, 0, 1.0]
    screen = np.c_[points[:, :2] / points[:, 2:] * 1600 + 256, points[:, 2]].astype(np.float32)
    face, bary, _ = rasterize_mesh(screen, head.faces, 512, 512)
    hit = face >= 0
    corner = head.faces[face[hit], bary[hit].argmax(1)]
    counts = np.bincount(head.part[corner], minlength=len(PARTS))
    return {name: int(count) for name, count in zip(PARTS, counts, strict=True) if count}


def lid_gap(head: HeadModel, vertices: np.ndarray, side: str) -> np.ndarray:
    """Signed height in metres of the upper lid's landmarks over the line of the lower lid's."""
    ring = np.array(EYE_LEFT if side == "Left" else EYE_RIGHT)
    points = head.landmarks_of(vertices)
    lower, upper = points[ring[[0, *range(1, 9)]]], points[ring[9:]]
    lower = lower[np.argsort(lower[:, 0])]
    return upper[:, 1] - np.interp(upper[:, 0], lower[:, 0], lower[:, 1])


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_lids_meet_at_weight_one_and_neither_before_nor_beyond(anny, side):
    shaped = anny.shaped(NEUTRAL)
    blink = f"eyeBlink{side}"
    assert np.abs(lid_gap(anny, shaped.posed(weights(**{blink: 1})), side)).max() < 0.3 * MM
    almost = lid_gap(anny, shaped.posed(weights(**{blink: 0.85})), side)
    assert almost[2:-2].min() > 0.5 * MM
    eye = f"eye_{side.lower()}"
    assert visible_parts(anny, shaped.posed(weights(**{blink: 1}))).get(eye, 0) == 0
    assert visible_parts(anny, shaped.posed(weights()))[eye] > 100


@pytest.mark.parametrize("seed", range(4))
def test_lips_are_shut_at_rest_for_everybody(anny, seed):
    vertices = anny.shaped(person(anny, seed)).posed(weights())
    inner = anny.landmarks_of(vertices)[list(LIPS_INNER)]
    upper, lower = inner[1:10], inner[11:][::-1]
    lower = lower[np.argsort(lower[:, 0])]
    assert np.abs(upper[:, 1] - np.interp(upper[:, 0], lower[:, 0], lower[:, 1])).max() < 0.3 * MM
    for yaw in (0.0, 0.6):
        seen = visible_parts(anny, vertices, yaw)
        inside = ("teeth_upper", "teeth_lower", "gums", "tongue", "mouth_cavity")
        assert sum(seen.get(name, 0) for name in inside) <= 2


def test_mouth_close_undoes_jaw_open_at_the_lips(anny):
    shaped = anny.shaped(NEUTRAL)
    opened = shaped.posed(weights(jawOpen=0.7))
    closed = shaped.posed(weights(jawOpen=0.7, mouthClose=0.7))
    gaps = [anny.landmarks_of(v)[[13, 14]] for v in (opened, closed)]
    wide, shut = (np.linalg.norm(a - b) for a, b in gaps)
    assert wide > 15 * MM
    assert shut < 0.3 * MM


def test_open_mouth_shows_both_rows_of_teeth_and_the_tongue(anny):
    seen = visible_parts(anny, anny.shaped(NEUTRAL).posed(weights(jawOpen=0.7)))
    assert min(seen.get(name, 0) for name in ("teeth_upper", "teeth_lower", "tongue")) > 20


def test_upper_teeth_end_two_millimetres_below_the_lip_line(anny):
    line = anny.landmarks_of(anny.template)[13]
    teeth = anny.template[anny.part == PARTS.index("teeth_upper")]
    front = teeth[np.abs(teeth[:, 0]) < 8 * MM]
    assert line[1] - front[:, 1].min() == pytest.approx(2 * MM, abs=0.3 * MM)
    assert 2 * MM < line[2] - front[:, 2].max() < 8 * MM


@pytest.mark.parametrize("name", ["jawOpen", "jawForward", "jawLeft", "jawRight"])
def test_lower_teeth_move_rigidly_with_the_chin(anny, name):
    row = anny.expression[ARKIT_INDEX[name]]
    lower = anny.part == PARTS.index("teeth_lower")
    before = anny.template[lower].astype(np.float64)
    after = before + row[lower]
    pick = np.random.default_rng(0).integers(0, lower.sum(), (2, 400))
    lengths = [np.linalg.norm(p[pick[0]] - p[pick[1]], axis=1) for p in (before, after)]
    assert np.abs(lengths[0] - lengths[1]).max() < 0.05 * MM
    assert np.abs(row[anny.part == PARTS.index("teeth_upper")]).max() == 0
    chin = np.linalg.norm(row[anny.faces[anny.landmark_faces[152]]].mean(0))
    front = before[:, 2] > np.quantile(before[:, 2], 0.8)
    ratio = np.linalg.norm(row[lower][front], axis=1).mean() / chin
    # On a hinge at the jaw joint, incisors lie at about 0.8 of the chin's radius.
    assert 0.6 < ratio < 1.1


def test_no_expression_but_the_jaw_moves_the_lower_teeth(anny):
    lower = anny.part == PARTS.index("teeth_lower")
    moving = {
        name
        for name, row in zip(anny.expression_names, anny.expression, strict=True)
        if np.abs(row[lower]).max() > 0
    }
    assert moving == {"jawOpen", "jawForward", "jawLeft", "jawRight"}


@pytest.mark.parametrize("seed", range(3))
def test_eyeballs_stay_spheres_about_their_joints(anny, seed):
    rng = np.random.default_rng(seed)
    shaped = anny.shaped(person(anny, seed))
    vertices = shaped.posed(rng.random(len(anny.expression)), rng.normal(0, 0.3, (2, 2)))
    for side, name in enumerate(("eye_left", "eye_right")):
        ball = vertices[anny.part == PARTS.index(name)]
        radius = np.linalg.norm(ball - shaped.eye_centers[side], axis=1)
        assert radius.std() < 0.01 * MM
        assert 10 * MM < radius.mean() < 20 * MM


def test_gaze_moves_the_iris_to_the_persons_left_and_up(anny):
    shaped = anny.shaped(NEUTRAL)
    ahead = anny.landmarks_of(shaped.posed(weights()))
    turned = anny.landmarks_of(shaped.posed(weights(), np.array([[0.3, 0.2], [0.3, 0.2]])))
    moved = (turned - ahead)[[468, 473]]
    assert (moved[:, 0] > 3 * MM).all()
    assert (moved[:, 1] > 2 * MM).all()


def test_iris_has_the_size_that_irises_have(anny):
    points = anny.landmarks_of(anny.template)
    for right, left, top, bottom in ((469, 471, 470, 472), (474, 476, 475, 477)):
        assert np.linalg.norm(points[right] - points[left]) == pytest.approx(11.7 * MM, abs=MM)
        assert np.linalg.norm(points[top] - points[bottom]) == pytest.approx(11.7 * MM, abs=MM)


def mirror_map(head: HeadModel) -> np.ndarray:
    # With the mouth open, because shut lips lie on top of each other.
    points = head.shaped(NEUTRAL).posed(weights(jawOpen=1))
    distance, partner = cKDTree(points).query(points * [-1, 1, 1])
    assert distance.max() < 0.01 * MM
    return partner


def test_template_and_expressions_are_mirror_symmetric(anny):
    partner = mirror_map(anny)
    sides = {"eye_left": "eye_right", "eye_right": "eye_left"}
    labels = np.array([PARTS.index(sides.get(name, name)) for name in PARTS])
    assert (labels[anny.part] == anny.part[partner]).all()
    for name in ARKIT_52:
        other = swapped(name)
        here = anny.expression[ARKIT_INDEX[name]]
        there = anny.expression[ARKIT_INDEX[other]][partner] * [-1, 1, 1]
        assert np.abs(here - there).max() < 0.1 * MM, name


def swapped(name: str) -> str:
    if name.endswith("Left"):
        return name.removesuffix("Left") + "Right"
    if name.endswith("Right"):
        return name.removesuffix("Right") + "Left"
    return name


def test_parts_and_skinning_of_a_portrait(anny):
    weight = anny.torso_weight
    part = {name: anny.part == PARTS.index(name) for name in PARTS}
    for name in ("face", "lips", "ears", "eye_left", "eye_right", "teeth_upper", "tongue"):
        assert part[name].sum() > 100
        assert weight[part[name]].max() == 0
    assert weight[part["shoulders"]].mean() > 0.95
    neck = anny.template[part["neck"]]
    assert np.corrcoef(neck[:, 1], weight[part["neck"]])[0, 1] < -0.7
    ears = anny.template[part["ears"]]
    assert abs(ears[:, 0].mean()) < 0.1 * MM
    assert np.abs(ears[:, 1:].mean(0)).max() < 20 * MM  # the origin is between the ears


def test_sizes_of_a_human_head(anny):
    eyes = anny.eye_centers
    assert 0.057 < eyes[0, 0] - eyes[1, 0] < 0.070  # adult inter-pupillary distance
    marks = anny.landmarks_of(anny.template)
    assert 0.10 < marks[10, 1] - marks[152, 1] < 0.19


def test_triangles_face_outwards(anny):
    for name in ("eye_left", "eye_right"):
        chosen = (anny.part[anny.faces] == PARTS.index(name)).all(1)
        a, b, c = (anny.template[anny.faces[chosen, k]].astype(np.float64) for k in range(3))
        centre = anny.eye_centers[0 if name == "eye_left" else 1]
        assert ((np.cross(b - a, c - a) * (a - centre)).sum(1) > 0).all()
    for name in ("face", "teeth_upper", "teeth_lower"):
        chosen = (anny.part[anny.faces] == PARTS.index(name)).all(1)
        a, b, c = (anny.template[anny.faces[chosen, k]].astype(np.float64) for k in range(3))
        normal = np.cross(b - a, c - a)
        front = a[:, 2] > np.quantile(a[:, 2], 0.7)
        assert normal[front].sum(0)[2] > 0


def test_no_triangle_is_flat_and_no_vertex_unused(anny):
    a, b, c = (anny.template[anny.faces[:, k]].astype(np.float64) for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    assert (area < 1e-12).mean() < 0.002
    assert len(np.unique(anny.faces)) == len(anny.template)
    assert anny.uv.min() >= 0
    assert anny.uv.max() <= 1


def test_file_is_small(anny, tmp_path):
    anny.save(tmp_path / "head.npz")
    assert (tmp_path / "head.npz").stat().st_size < 8e6
