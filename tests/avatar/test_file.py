"""The avatar file: nothing is lost, nothing damaged is accepted."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from avatar3d.avatar import SplatAvatar, SplatState, load
from avatar3d.errors import UserError
from avatar3d.motion import Motion


@pytest.fixture
def avatar(small_state: SplatState) -> SplatAvatar:
    rng = np.random.default_rng(0)
    height, width = int(small_state.size[1]), int(small_state.size[0])
    return SplatAvatar(
        state=small_state,
        background=rng.integers(0, 255, (height, width, 3), np.uint8),
        idle_motion=Motion(fps=25, expression=rng.random((5, 52)), gaze=np.zeros((5, 2, 2))),
        driver=None,
        info={"name": "nobody", "train_frames": 4},
    )


def test_round_trip_renders_the_same_picture(avatar: SplatAvatar, tmp_path: Path) -> None:
    avatar.save(tmp_path / "a.a3d")
    again = load(tmp_path / "a.a3d")
    first = avatar.render({"jawOpen": 0.5}, yaw=0.1).astype(int)
    second = again.render({"jawOpen": 0.5}, yaw=0.1).astype(int)
    assert first.std() > 10
    # Only the basis (8 bit) and the expression shapes (half precision) are rounded.
    assert np.abs(first - second).max() <= 3
    assert again.info == avatar.info
    np.testing.assert_array_equal(again.background, avatar.background)
    np.testing.assert_allclose(again.idle_motion.expression, avatar.idle_motion.expression)


def test_every_member_is_stored_and_checked(avatar: SplatAvatar, tmp_path: Path) -> None:
    path = tmp_path / "a.a3d"
    avatar.save(path)
    with zipfile.ZipFile(path) as archive:
        assert all(e.compress_type == zipfile.ZIP_STORED for e in archive.infolist())
        manifest = json.loads(archive.read("manifest.json"))
        assert set(archive.namelist()) == {"manifest.json", *manifest["members"]}
    data = bytearray(path.read_bytes())
    offset = data.find(b"\x89PNG")
    data[offset + 200] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="not a readable avatar file"):
        load(path)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("face", 10**6, "points outside"),
        ("position", np.nan, "non-finite"),
        ("faces", -1, "points outside"),
    ],
)
def test_a_state_with_bad_values_is_refused(
    avatar: SplatAvatar, tmp_path: Path, field: str, value: float, problem: str
) -> None:
    getattr(avatar.state, field)[0] = value
    with pytest.raises(UserError, match=problem):
        avatar.save(tmp_path / "a.a3d")
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.a3d").write_text("not an avatar")
    with zipfile.ZipFile(tmp_path / "zip.a3d", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps({"format": "avatar3d.avatar"}))
    for name in ("missing.a3d", "text.a3d", "zip.a3d"):
        with pytest.raises(UserError) as caught:
            load(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_unknown_expression_names_are_named(avatar: SplatAvatar) -> None:
    with pytest.raises(UserError, match="jawOpened"):
        avatar.render({"jawOpened": 1.0})


def test_transparent_render_composes_to_the_opaque_one(avatar: SplatAvatar) -> None:
    opaque = avatar.render().astype(float)
    rgba = avatar.render(transparent=True).astype(float)
    assert avatar.background is not None
    alpha = rgba[..., 3:] / 255
    composed = rgba[..., :3] * alpha + avatar.background * (1 - alpha)
    assert 0.05 < alpha.mean() < 0.95
    # Rounding of colour and alpha to 8 bits, and colours above 1 that straight alpha clips.
    assert np.quantile(np.abs(composed - opaque), 0.98) <= 3
