"""The NeRF avatar against what geometry and its own contract say."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar3d.audio import features, save_wav
from avatar3d.avatar import Avatar, NerfAvatar, NerfState, load
from avatar3d.avatar.nerf.audio import heard, learn_to_hear, spoken_weights
from avatar3d.avatar.nerf.field import Field
from avatar3d.avatar.nerf.groups import group_rows, initial_gates
from avatar3d.avatar.nerf.layers import LAYERS
from avatar3d.avatar.nerf.warp import WarpRig
from avatar3d.avatar.rig import FaceParameters
from avatar3d.errors import UserError
from avatar3d.head import ARKIT_INDEX
from avatar3d.io.video import probe
from avatar3d.kernels.warp import warp
from avatar3d.motion import Motion
from avatar3d.rendering import render


@pytest.fixture
def avatar(small_field: NerfState) -> NerfAvatar:
    small_field.bias_2[0] = 2.0  # dense enough to be seen
    motion = Motion(25, expression=np.zeros((2, 52), np.float32))
    return NerfAvatar(small_field, np.full((80, 96, 3), 90, np.uint8), motion, None)


def still(state: NerfState, torso: np.ndarray | None = None) -> FaceParameters:
    rest = np.asarray(state.T_camera_rest)
    moved = rest if torso is None else rest @ torso
    return FaceParameters(
        weights=torch.zeros(len(state.expression)),
        gaze=torch.zeros(2, 2),
        T_camera_head=torch.tensor(rest, dtype=torch.float32),
        T_camera_torso=torch.tensor(moved, dtype=torch.float32),
    )


def test_is_an_avatar(avatar: NerfAvatar) -> None:
    assert isinstance(avatar, Avatar)
    image = avatar.render(expression={"jawOpen": 0.3}, yaw=0.1)
    assert image.shape == (80, 96, 3)
    assert image.std() > 3, "nothing but the plate is to be seen"


def test_round_trip_renders_the_same_picture(avatar: NerfAvatar, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    avatar.state.table[:] = rng.normal(0, 0.3, avatar.state.table.shape)
    avatar.save(tmp_path / "a.a3d")
    again = load(tmp_path / "a.a3d")
    assert isinstance(again, NerfAvatar)
    before, after = (a.render(yaw=0.2).astype(int) for a in (avatar, again))
    # A sample at the border of an occupied cell may fall to the other side of it.
    assert (np.abs(before - after) > 3).mean() < 2e-3
    assert again.info == avatar.info
    assert len(again.idle_motion) == 2


def test_the_file_says_what_it_is_and_others_are_refused(
    avatar: NerfAvatar, tmp_path: Path
) -> None:
    path, other = tmp_path / "a.a3d", tmp_path / "b.a3d"
    avatar.save(path)
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert (manifest["kind"], manifest["version"]) == ("nerf", 3)
    for change in ({"kind": "mesh"}, {"kind": ["nerf"]}, {"version": 2}, {"kind": "splat"}):
        with zipfile.ZipFile(other, "w") as archive:
            for name, data in contents.items():
                named = json.dumps(manifest | change).encode()
                archive.writestr(name, named if name == "manifest.json" else data)
        with pytest.raises(UserError):
            load(other)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("table", lambda a: np.full_like(a, np.nan)),
        ("skin", lambda a: a[:-1]),
        ("occupancy", lambda a: a[:-1]),
        ("layout", lambda a: a * 0),
        ("layout", lambda a: a * np.array([1, 1, 100, 1, 1], np.int32)),
        ("spacing", lambda a: a * 1e-6),
        ("box", lambda a: a[::-1].copy()),
        ("ray_step", lambda a: a * 0),
        ("code_map", lambda a: a[:, :, :-1]),
        ("inject", lambda a: a[:-1]),
        ("size", lambda a: a * 0),
        ("size", lambda a: a + (1 << 20)),
    ],
)
def test_damage_is_a_sentence(small_field: NerfState, name: str, value) -> None:
    setattr(small_field, name, value(getattr(small_field, name)))
    with pytest.raises(UserError, match="damaged"):
        small_field.validate()


def test_transparent_render_composes_to_the_opaque_one(avatar: NerfAvatar) -> None:
    opaque = avatar.render(yaw=0.2).astype(float)
    layers = avatar.render(yaw=0.2, transparent=True).astype(float)
    alpha = layers[..., 3:] / 255
    assert np.abs(layers[..., :3] * alpha + 90 * (1 - alpha) - opaque).max() < 2.5


def test_an_opaque_ball_is_as_far_as_it_is(ball: NerfAvatar) -> None:
    """Depth, normals and outline of a ball of radius r around the origin, seen from 0.6 m."""
    radius, cells = 0.06, 64
    layers = ball.layers(still(ball.state))
    row, column = 40, 48  # the axis runs between this pixel and the one before
    assert layers.depth[row, column] == pytest.approx(0.6 - radius, abs=0.2 / cells + 0.001)
    outline = 200 * radius / (0.6**2 - radius**2) ** 0.5  # pixels
    across = (layers.alpha[row] > 0.5).sum()
    assert across == pytest.approx(2 * outline, abs=2.5)
    assert torch.isinf(layers.depth[0, 0])
    middle = layers.normals[row - 4 : row + 4, column - 4 : column + 4].mean((0, 1))
    assert middle[2] < -0.9, "normals must look at the camera"
    shown = {name: next(ball.render_layer(name, ball.idle_motion)).astype(int) for name in LAYERS}
    assert all((picture[0, 0] == 0).all() for picture in shown.values()), "nothing is black"
    assert shown["normals"][row, column] == pytest.approx([128, 128, 255], abs=12)
    assert shown["normals"][row, column - 15, 0] < 100, "what faces left is dark in red"
    assert shown["normals"][row - 15, column, 1] > 156, "what faces up is bright in green"
    assert shown["depth"][row, column].max() > shown["depth"][row, column - 15].max() > 0


def test_depth_is_finer_than_the_steps_of_colour(ball: NerfAvatar) -> None:
    errors = []
    for step in (0.012, 0.014, 0.016, 0.018, 0.020):
        ball.state.ray_step = np.array(step, np.float32)
        depth = float(ball.layers(still(ball.state), finer=4).depth[40, 48])
        errors.append(abs(depth - (0.6 - 0.06)) / step)
    assert max(errors) < 0.5, "of a step"


def test_attention_is_red_where_the_mouth_is_heard(ball: NerfAvatar, tmp_path: Path) -> None:
    for group in range(3):
        ball.state.attention[:] = -10.0
        ball.state.attention[:, group] = 10.0
        avatar = NerfAvatar(ball.state, None, ball.idle_motion, None)
        picture = next(avatar.render_layer("attention", ball.idle_motion))
        assert picture[40, 48] == pytest.approx(np.eye(3)[group] * 255, abs=3)
    render(ball, ball.idle_motion, tmp_path / "a.mp4", show="attention", device="cpu")
    assert probe(tmp_path / "a.mp4").width == 96
    with pytest.raises(UserError, match="only attention"):
        render(ball, ball.idle_motion, tmp_path / "b.mp4", show="taste", device="cpu")
    assert not (tmp_path / "b.mp4").exists()


def test_a_face_at_rest_warps_nothing(small_field: NerfState) -> None:
    grid = WarpRig(small_field).grids([still(small_field)])
    assert float(grid.coarse[..., :3].abs().max()) < 1e-6


def test_the_torso_moves_rigidly(small_field: NerfState) -> None:
    """Where the weight is 1 a point moves as the torso does in the head frame; where 0, not."""
    torso = np.eye(4)
    torso[:3, :3] = [[0.98, 0.0, 0.199], [0.0, 1.0, 0.0], [-0.199, 0.0, 0.98]]
    torso[:3, 3] = 0.01, -0.02, 0.03
    rng = np.random.default_rng(0)
    points = rng.uniform(small_field.box[0], small_field.box[1], (50, 3)).astype(np.float32)
    frames = torch.zeros(50, dtype=torch.int32)
    for weight in (1.0, 0.0):
        small_field.skin[:] = weight
        grid = WarpRig(small_field).grids([still(small_field, torso)])
        moved = warp(torch.from_numpy(points), frames, grid).numpy()
        wanted = points @ torso[:3, :3].T + torso[:3, 3] if weight else points
        assert np.abs(moved - wanted).max() < 1e-5


def test_the_skin_takes_the_field_along(small_field: NerfState) -> None:
    """A displacement common to all vertices is that of every point near them."""
    shift = np.array([0.0, -0.004, 0.002], np.float32)
    small_field.expression[ARKIT_INDEX["jawOpen"]] = shift
    small_field.eye[:] = 0
    face = still(small_field)
    face.weights[ARKIT_INDEX["jawOpen"]] = 0.5
    grid = WarpRig(small_field).grids([face])
    points = torch.from_numpy(small_field.vertices * 0.999)
    moved = warp(points, torch.zeros(len(points), dtype=torch.int32), grid) - points
    assert (moved - torch.from_numpy(0.5 * shift)).abs().max() < 4e-4


def test_every_signal_has_one_group(small_field: NerfState) -> None:
    rows = group_rows(len(small_field.expression))
    assert (rows.sum(0) == 1).all()
    assert rows[0, ARKIT_INDEX["jawOpen"]]
    assert rows[1, ARKIT_INDEX["eyeBlinkLeft"]]
    assert rows[1, -4:].all(), "gaze is the eyes'"
    assert rows[2, ARKIT_INDEX["browInnerUp"]]


def test_gates_start_open_where_a_group_moves_the_head(small_field: NerfState) -> None:
    small_field.expression[:] = 0
    low = small_field.vertices[:, 1] < -0.05
    small_field.expression[ARKIT_INDEX["jawOpen"], low] = [0, -0.01, 0]
    small_field.eye[:] = 0
    logits = initial_gates(small_field, small_field.vertices)
    assert logits[small_field.vertices[:, 1] < -0.08, 0].min() > 2
    assert logits[small_field.vertices[:, 1] > 0.05, 0].max() < -2
    assert logits[:, 1:].max() < -2


def test_a_closed_gate_keeps_a_group_out(small_field: NerfState) -> None:
    small_field.attention[:, 0] = -80
    field = Field(small_field)
    points = torch.rand(64, 3) * 0.1
    rows = torch.zeros(64, dtype=torch.int32)
    codes = torch.zeros(1, 3, small_field.inject.shape[-1])
    plain = field(points, rows, field.vectors(codes))
    codes[:, 0] = 2.0
    same = field(points, rows, field.vectors(codes))
    assert torch.equal(plain.density, same.density)
    assert torch.equal(plain.color, same.color)
    codes[:, 1] = 2.0
    other = field(points, rows, field.vectors(codes))
    assert (other.color - plain.color).abs().max() > 1e-4


def test_codes_know_nothing_beyond_what_was_filmed(small_field: NerfState) -> None:
    rig, field = WarpRig(small_field), Field(small_field)
    signal = [
        rig.signal(torch.full((len(small_field.expression),), value), torch.zeros(2, 2))
        for value in (5.0, 50.0)
    ]
    wide, wider = (field.codes(x[None]) for x in signal)
    assert torch.equal(wide, wider)
    assert wide.abs().max() <= float(small_field.limit)


def test_sound_is_heard_where_it_says_something(small_field: NerfState) -> None:
    """Rows that are a linear function of the sound are found again on frames left out."""
    rng = np.random.default_rng(1)
    count, rows = 400, len(small_field.expression)
    sound = rng.normal(size=(count, 6)).astype(np.float32)
    weights = np.zeros((count, rows), np.float32)
    jaw = ARKIT_INDEX["jawOpen"]
    weights[:, jaw] = (0.5 + sound @ rng.normal(0, 0.05, 6)).clip(0, 1)
    arrays = learn_to_hear({"mel": sound}, weights, np.arange(300), 4, rng)
    state = replace(small_field, **arrays)
    state.validate()
    known = heard(state, {"mel": sound})
    said = spoken_weights(state, torch.from_numpy(known), torch.zeros(count, rows)).numpy()
    assert np.corrcoef(said[300:, jaw], weights[300:, jaw])[0, 1] > 0.95
    avatar = NerfAvatar(state, None, Motion(25, expression=np.zeros((2, 52))), None)
    pictures = list(avatar.render_heard({"mel": sound[:2]}, avatar.idle_motion))
    assert [picture.shape for picture in pictures] == [(80, 96, 3)] * 2


def test_a_mouth_that_sound_says_little_of_moves_as_far_all_the_same(
    small_field: NerfState,
) -> None:
    """Half of the jaw's variance is in the sound, of which a regression alone would give half."""
    rng = np.random.default_rng(3)
    count, jaw = 800, ARKIT_INDEX["jawOpen"]
    sound = rng.normal(size=(count, 6)).astype(np.float32)
    weights = np.zeros((count, len(small_field.expression)), np.float32)
    weights[:, jaw] = 0.5 + 0.07 * (sound[:, 0] + rng.normal(size=count))
    state = replace(small_field, **learn_to_hear({"mel": sound}, weights, np.arange(600), 4, rng))
    known = torch.from_numpy(heard(state, {"mel": sound})[600:])
    said = spoken_weights(state, known, torch.zeros(200, len(small_field.expression)))[:, jaw]
    assert float(said.std()) == pytest.approx(float(weights[600:, jaw].std()), rel=0.15)


def test_a_video_whose_mouth_hears_the_sound(small_field: NerfState, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    loud = np.repeat(rng.uniform(0, 0.3, 160), 1600).astype(np.float32)  # 16 s
    samples = loud * rng.normal(size=len(loud)).astype(np.float32)
    rows = {"mel": features(samples, 25, 400)["mel"]}
    weights = np.zeros((400, len(small_field.expression)), np.float32)
    weights[:, ARKIT_INDEX["jawOpen"]] = np.repeat(loud[::1600], 3)[:400] * 3
    arrays = learn_to_hear(rows, weights, np.arange(400), 4, rng)
    still = Motion(25, expression=np.zeros((4, 52), np.float32))
    avatar = NerfAvatar(replace(small_field, **arrays), None, still, None)
    sound = tmp_path / "s.wav"
    save_wav(sound, samples[:3200], 16000)
    render(avatar, still, tmp_path / "heard.mp4", audio=sound, heard=True, device="cpu")
    assert probe(tmp_path / "heard.mp4").has_audio
    with pytest.raises(UserError, match="no sound to be heard"):
        render(avatar, still, tmp_path / "silent.mp4", heard=True, device="cpu")
    assert not (tmp_path / "silent.mp4").exists()


def test_bad_sound_is_a_sentence(small_field: NerfState) -> None:
    with pytest.raises(UserError, match="without speech"):
        heard(small_field, {"mel": np.zeros((2, 80), np.float32)})
    sound = np.full((400, 6), np.nan, np.float32)
    weights = np.zeros((400, len(small_field.expression)), np.float32)
    with pytest.raises(UserError, match="not finite"):
        learn_to_hear({"mel": sound}, weights, np.arange(400), 4, np.random.default_rng(0))
