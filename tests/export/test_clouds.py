"""Gaussians in other programs' formats: round trips, and readers that we did not write."""

import gzip
import json
import struct
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from avatar3d.avatar import SplatAvatar
from avatar3d.avatar.canonical import canonical_cloud
from avatar3d.avatar.deform import SplatParameters, SplatRig, pose_gaussians
from avatar3d.errors import UserError
from avatar3d.export import export
from avatar3d.io.ply import GaussianCloud, decode_ply, encode_ply, read_ply
from avatar3d.io.splat import decode_splat
from avatar3d.io.spz import decode_spz, encode_spz, read_spz
from avatar3d.provenance import verify

from .conftest import make_avatar
from .test_ply import make_cloud


def angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) radians between two sets of rotations."""
    return 2 * np.arccos(np.abs((first * second).sum(1)).clip(0, 1))


@pytest.fixture(scope="module")
def head(avatar: SplatAvatar) -> GaussianCloud:
    return canonical_cloud(avatar.state)


def test_spz_keeps_what_its_bits_can(avatar: SplatAvatar, head: GaussianCloud, tmp_path: Path):
    back = read_spz(export(avatar, tmp_path / "a.spz"))
    assert np.abs(back.means - head.means).max() < 1e-4  # metres
    assert np.abs(back.colors - head.colors).max() <= 1 / 255
    assert np.abs(back.log_scales - head.log_scales).max() <= 1 / 32 + 1e-6
    opacity = [1 / (1 + np.exp(-cloud.opacity)) for cloud in (back, head)]
    assert np.abs(opacity[0] - opacity[1]).max() <= 0.5 / 255 + 1e-6
    assert angles(back.quats, head.quats).max() < np.deg2rad(0.35)


def test_ply_keeps_everything(head: GaussianCloud):
    back = decode_ply(encode_ply(head))
    assert np.abs(back.means - head.means).max() == 0
    assert np.abs(back.colors - head.colors).max() < 1e-6


def test_the_gzip_stream_says_what_it_is(avatar: SplatAvatar, tmp_path: Path):
    """In a comment that Python's gzip skips; the seal fits the file."""
    path = export(avatar, tmp_path / "a.spz")
    assert gzip.decompress(path.read_bytes())[:4] == b"NGSP"
    assert verify(path).state == "valid"


def test_damaged_spz_is_one_clear_sentence(tmp_path: Path):
    good = encode_spz(make_cloud(20))
    raw = gzip.decompress(good)
    cases = {
        "not an SPZ": b"hello",
        "is damaged": good[:60] + b"\xff" * 60 + good[120:],
        "cut short": gzip.compress(raw[:-40]),
        "version 2 or 3": gzip.compress(raw[:4] + b"\x09" + raw[5:]),
        "at most": gzip.compress(raw[:8] + b"\xff\xff\xff\x7f" + raw[12:]),
    }
    for expected, data in cases.items():
        with pytest.raises(UserError, match=expected):
            decode_spz(data)
    with pytest.raises(UserError, match="Cannot read"):
        read_spz(tmp_path / "missing.spz")


def test_splat_rows_hold_the_same_gaussians(avatar: SplatAvatar, tmp_path: Path):
    ply = read_ply(export(avatar, tmp_path / "a.ply"))
    data = export(avatar, tmp_path / "a.splat").read_bytes()
    assert len(data) == 32 * len(ply)
    back = decode_splat(data)
    order = np.lexsort(ply.means.T), np.lexsort(back.means.T)
    np.testing.assert_array_equal(back.means[order[1]], ply.means[order[0]])
    inside = ply.colors[order[0]].clip(0, 1)
    assert np.abs(back.colors[order[1]] - inside).max() <= 0.5 / 255 + 1e-6
    assert angles(back.quats[order[1]], ply.quats[order[0]]).max() < np.deg2rad(1.5)
    with pytest.raises(UserError, match="damaged"):
        decode_splat(data[:-1])


def test_gltf_splats_in_pygltflib(avatar: SplatAvatar, head: GaussianCloud, tmp_path: Path):
    pygltflib = pytest.importorskip("pygltflib")
    file = pygltflib.GLTF2().load(str(export(avatar, tmp_path / "a.glb", format="splat-glb")))
    assert file.extensionsUsed == ["KHR_gaussian_splatting"]
    data = file.binary_blob()
    raw = (tmp_path / "a.glb").read_bytes()
    document = json.loads(raw[20 : 20 + struct.unpack("<I", raw[12:16])[0]])
    (primitive,) = document["meshes"][0]["primitives"]
    assert primitive["mode"] == 0

    def read(name: str, width: int) -> np.ndarray:
        accessor = document["accessors"][primitive["attributes"][name]]
        view = document["bufferViews"][accessor["bufferView"]]
        count = accessor["count"] * width
        return np.frombuffer(data, "<f4", count, view["byteOffset"]).reshape(-1, width)

    prefix = "KHR_gaussian_splatting:"
    np.testing.assert_array_equal(read("POSITION", 3), head.means)
    np.testing.assert_allclose(read(prefix + "SCALE", 3), np.exp(head.log_scales), rtol=1e-6)
    np.testing.assert_array_equal(read(prefix + "ROTATION", 4)[:, [3, 0, 1, 2]], head.quats)


def test_a_sequence_moves_as_the_avatar_does(avatar: SplatAvatar, tmp_path: Path):
    """Centres of every frame, projected by the clip's camera, against the rig in camera space."""
    motion = avatar.idle_motion.slice(8, 11)
    export(avatar, tmp_path / "frames", format="ply-sequence", motion=motion, axes="head")
    files = sorted((tmp_path / "frames").iterdir())
    assert [f.name for f in files] == ["000000.ply", "000001.ply", "000002.ply"]
    state = avatar.state
    rig, parameters = SplatRig(state), SplatParameters(state)
    for file, face in zip(files, avatar.faces(motion), strict=True):
        cloud = read_ply(file)
        with torch.no_grad():
            expected = pose_gaussians(rig, parameters, face).means.numpy()
        seen = cloud.means @ state.T_camera_rest[:3, :3].T + state.T_camera_rest[:3, 3]
        np.testing.assert_allclose(seen, expected, atol=1e-6)


@pytest.mark.parametrize(("suffix", "codec"), [("mov", "prores"), ("webm", "vp9")])
def test_a_transparent_film_lies_over_anything(
    avatar: SplatAvatar, tmp_path: Path, suffix: str, codec: str
):
    motion = avatar.idle_motion.slice(5, 8)
    path = export(avatar, tmp_path / f"a.{suffix}", motion=motion)
    decoder = {"webm": av.CodecContext.create("libvpx-vp9", "r")}.get(suffix)
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.name.startswith(codec)
        assert float(stream.average_rate) == motion.fps
        packets = film.demux(stream)
        frames = [f for p in packets for f in (decoder.decode(p) if decoder else p.decode())]
    assert len(frames) == 3
    for frame, expected in zip(frames, avatar.render_motion(motion), strict=True):
        picture = frame.to_ndarray(format="rgba").astype(float)
        alpha = picture[..., 3:] / 255
        assert alpha.min() < 0.02
        assert alpha.max() > 0.97
        composed = picture[..., :3] * alpha + avatar.background * (1 - alpha)
        assert np.abs(composed - expected).mean() < 6


def test_sog_is_refused_with_a_remedy_where_its_program_is_missing(
    avatar: SplatAvatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="npm install"):
        export(avatar, tmp_path / "a.sog")
    assert not list(tmp_path.iterdir())


def test_every_format_takes_seconds(tmp_path: Path):
    """20 000 Gaussians; processor time, because tests share the machine."""
    full = make_avatar(20_000, 512)
    for name in ("glb", "html", "ply", "splat", "splat-glb", "spz", "web"):
        start = time.process_time()
        export(full, tmp_path / f"file.{name}", format=name)
        assert time.process_time() - start < 5, name
