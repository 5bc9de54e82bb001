"""The avatar file: nothing is lost, nothing damaged is accepted."""

import hashlib
import json
import tracemalloc
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as save_tensors

from avatar3d.avatar import SplatAvatar, SplatState, load
from avatar3d.avatar.gamut import Gamut
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
    # Rounded to steps far below a pixel and a grey level; a pixel or two may see two Gaussians of
    # the same depth change places.
    assert np.quantile(np.abs(first - second), 0.99) <= 2
    assert np.square(first - second).mean() < 0.3
    assert again.info == avatar.info
    np.testing.assert_array_equal(again.background, avatar.background)
    np.testing.assert_allclose(
        again.idle_motion.expression, avatar.idle_motion.expression, atol=1e-4
    )


def test_limits_of_colours_are_kept_and_never_tighter(avatar: SplatAvatar, tmp_path: Path) -> None:
    rng, count = np.random.default_rng(1), len(avatar.state)
    low, high = np.sort(rng.uniform(-1, 1, (2, count, 3)), axis=0)
    steady = rng.random(count) < 0.5
    replace(avatar, gamut=Gamut(low, high, steady)).save(tmp_path / "a.a3d")
    kept = load(tmp_path / "a.a3d").gamut
    assert kept is not None
    for loss in (low - kept.low, kept.high - high):
        assert (loss > -1e-9).all()
        assert (loss < 1 / 127).all()
    np.testing.assert_array_equal(kept.steady, steady)
    avatar.save(tmp_path / "b.a3d")
    assert load(tmp_path / "b.a3d").gamut is None
    fewer = Gamut(low[1:], high[1:], steady[1:])
    replace(avatar, gamut=fewer).save(tmp_path / "c.a3d")
    with pytest.raises(UserError, match="not a readable avatar file"):
        load(tmp_path / "c.a3d")


def test_every_member_is_checked(avatar: SplatAvatar, tmp_path: Path) -> None:
    path = tmp_path / "a.a3d"
    avatar.save(path)
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert set(archive.namelist()) == {"manifest.json", *manifest["members"]}
    data = bytearray(path.read_bytes())
    offset = data.find(b"\x89PNG")
    data[offset + 200] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="not a readable avatar file"):
        load(path)


def rewritten(path: Path, version: int, **members: bytes) -> None:
    """The avatar file `path` with another version and other safetensors members."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(contents.pop("manifest.json")) | {"version": version}
    contents |= {f"{name}.safetensors": data for name, data in members.items()}
    for name, data in contents.items():
        digest = hashlib.sha256(data).hexdigest()
        manifest["members"][name] = {"size": len(data), "sha256": digest}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for name, data in contents.items():
            archive.writestr(name, data)


def test_files_of_the_first_version_are_read(avatar: SplatAvatar, tmp_path: Path) -> None:
    """Its layout: plain arrays, expression as halves, an 8-bit basis with a scale a row."""
    path = tmp_path / "a.a3d"
    avatar.save(path)
    arrays = {
        f.name: np.array(getattr(avatar.state, f.name), order="C") for f in fields(SplatState)
    }
    basis = arrays.pop("basis")
    scale = np.maximum(np.abs(basis).max(-1, keepdims=True) / 127, 1e-6).astype(np.float16)
    arrays["basis_q"] = np.round(basis / scale.astype(np.float32)).astype(np.int8)
    arrays["basis_scale"] = scale
    arrays["expression"] = arrays["expression"].astype(np.float16)
    tracks = {"expression": avatar.idle_motion.expression, "gaze": avatar.idle_motion.gaze}
    rewritten(path, 1, splats=save_tensors(arrays), motion=save_tensors(tracks))
    again = load(path)
    np.testing.assert_array_equal(again.state.position, avatar.state.position)
    np.testing.assert_allclose(again.state.basis, basis, atol=np.abs(basis).max() / 200)
    np.testing.assert_allclose(again.state.expression, avatar.state.expression, atol=1e-5)


def test_a_later_version_is_refused(avatar: SplatAvatar, tmp_path: Path) -> None:
    avatar.save(tmp_path / "a.a3d")
    rewritten(tmp_path / "a.a3d", 3)
    with pytest.raises(UserError, match="version 3 of kind splat needs another release"):
        load(tmp_path / "a.a3d")


def test_a_member_that_lies_about_its_size_is_not_inflated(tmp_path: Path) -> None:
    path = tmp_path / "bomb.a3d"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * 200_000_000)
    honest = (200_000_000).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(honest, (1000).to_bytes(4, "little")))
    tracemalloc.start()
    with pytest.raises(UserError, match="not a readable avatar file"):
        load(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_members_too_large_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.a3d"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("manifest.json", "splats.safetensors"):
            archive.writestr(name, b" " * 1234567)
    claimed = (600 << 20).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace((1234567).to_bytes(4, "little"), claimed))
    with pytest.raises(UserError, match="larger than those of any avatar"):
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
