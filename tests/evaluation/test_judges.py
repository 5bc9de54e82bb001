"""Figures by networks of others, against independent programs; stand-ins for what needs weights."""

from pathlib import Path

import jiwer
import numpy as np
import pytest
import python_speech_features
import scipy.linalg
import torch
from safetensors.torch import save_file

from avatar3d.capture.landmarks import Face
from avatar3d.errors import UserError
from avatar3d.evaluation import EvaluationConfig, judges
from avatar3d.evaluation.frechet import Features, frechet_distance
from avatar3d.evaluation.judges import Judges
from avatar3d.evaluation.syncnet import SyncNet, face_crops, load_syncnet, mfcc, sync_scores
from avatar3d.evaluation.words import word_error_rate


def field(number: int, value: bytes | int | str) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        assert value < 128
        return bytes([number << 3, value])
    data = value.encode() if isinstance(value, str) else value
    size = len(data)
    length = bytes([size]) if size < 128 else bytes([size % 128 | 128, size // 128])
    return bytes([number << 3 | 2]) + length + data


@pytest.fixture
def averaging(tmp_path: Path) -> Path:
    """An ONNX network whose features are the mean colour."""

    def tensor(name: str, rank: int) -> bytes:
        sides = b"".join(field(1, field(2, f"{name}{axis}")) for axis in range(rank))
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, sides)))

    nodes = (("x", "pooled", "GlobalAveragePool"), ("pooled", "y", "Flatten"))
    graph = b"".join(field(1, field(1, a) + field(2, b) + field(4, kind)) for a, b, kind in nodes)
    graph += field(2, "mean") + field(11, tensor("x", 4)) + field(12, tensor("y", 2))
    path = tmp_path / "mean.onnx"
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 13)))
    return path


@pytest.mark.parametrize(("rows", "others", "width"), [(300, 200, 20), (12, 15, 40)])
def test_frechet_distance_equals_that_by_scipys_root_of_a_matrix(rows, others, width):
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (rows, width)), rng.normal(0.3, 2, (others, width))
    a[:, 0] += 2 * a[:, 1]
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The usual remedy for singular products, which costs the second case its digits.
    small = 1e-6 * np.eye(width) * (rows < width)
    root = scipy.linalg.sqrtm((first + small) @ (second + small)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8 if rows > width else 2e-3)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_word_errors_equal_jiwers():
    rng = np.random.default_rng(1)
    plain = jiwer.Compose([
        jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(), jiwer.ReduceToListOfListOfWords(),
    ])  # fmt: skip
    words = ["The", "cat,", "the", "DOG", "and", "a", "bird;", "sat", "on", "mats"]
    for _ in range(40):
        said, heard = (" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(2))
        expected = jiwer.wer(said, heard, plain, plain)
        assert word_error_rate(said, heard) == pytest.approx(expected)
    assert word_error_rate("It\u2019s me.", "it's ME") == 0


def test_cepstral_coefficients_equal_python_speech_features():
    sound = np.random.default_rng(2).normal(0, 3000, 9_137)
    sound[4000:6000] = 0
    np.testing.assert_allclose(mfcc(sound), python_speech_features.mfcc(sound), atol=1e-9)


class Clock(SyncNet):
    """Descriptors that tell the moment: brightness, and the sound's energy, about 0."""

    def lips(self, frames: torch.Tensor) -> torch.Tensor:
        assert frames.shape[1:] == (3, 5, 224, 224)
        return frames[:, 0, 0, :1, 0] / 8 - 22

    def sound(self, coefficients: torch.Tensor) -> torch.Tensor:
        assert coefficients.shape[1:] == (1, 13, 20)
        return coefficients[:, 0, 0, :1] - 22


@pytest.mark.parametrize("late", [0, 4])
def test_the_offset_and_the_distance_of_sound_and_lips(late):
    """Brightness follows the log energy that the sound has some frames later."""
    rng = np.random.default_rng(3)
    count = 60
    loud = np.repeat(rng.uniform(0.02, 0.5, count), 640)
    samples = loud * rng.normal(0, 1, count * 640)
    energy = mfcc(samples * 32768)[::4, 0][:count]
    level = np.roll(8 * energy, -late).round().clip(0, 255).astype(np.uint8)
    crops = np.broadcast_to(level[:, None, None, None], (count, 224, 224, 3))
    found = sync_scores(Clock(), crops, samples)
    assert found["sync_offset"] == pytest.approx(late / 25)
    assert found["lse_d"] < 0.35 * (found["lse_c"] + found["lse_d"])
    assert sync_scores(Clock(), crops[:10], samples) == {}


def test_syncnets_scores_equal_their_definition():
    """On random weights: distances of every pair of moments, summed along its diagonals."""
    torch.manual_seed(0)
    network = SyncNet().eval().requires_grad_(False)
    rng = np.random.default_rng(4)
    count, reach = 13, 15
    crops = rng.integers(0, 256, (count + 5, 224, 224, 3), np.uint8)
    samples = rng.normal(0, 0.1, (count + 5) * 640)
    heard = python_speech_features.mfcc(samples * 32768).T  # at this scale as from a 16-bit file
    seen = crops[..., ::-1].transpose(3, 0, 1, 2).astype(np.float32)
    lips = [network.lips(torch.from_numpy(seen[None, :, i : i + 5])) for i in range(count)]
    sounds = [
        network.sound(torch.from_numpy(heard[None, None, :, 4 * i : 4 * i + 20].astype(np.float32)))
        for i in range(count)
    ]
    a, b = torch.cat(lips).double().numpy(), torch.cat(sounds).double().numpy()
    silent = np.zeros((reach, 1024))
    apart = np.linalg.norm(a[:, None] - np.concatenate([silent, b, silent])[None] + 1e-6, axis=2)
    means = np.array([np.diagonal(apart, k)[:count].mean() for k in range(2 * reach + 1)])
    found = sync_scores(network, crops, samples)
    assert found["lse_d"] == pytest.approx(means.min(), rel=1e-4)
    assert found["lse_c"] == pytest.approx(np.median(means) - means.min(), rel=1e-4)
    assert found["sync_offset"] == pytest.approx((means.argmin() - reach) / 25)


def test_syncnets_weights_are_read_without_pickle(tmp_path):
    """Names and shapes of the published program's layers; its lips see 224 pixels."""
    network = SyncNet().eval()
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    loaded = load_syncnet(tmp_path / "net.safetensors")
    shapes = {name: tuple(value.shape) for name, value in loaded.state_dict().items()}
    assert shapes["netcnnaud.0.weight"] == (64, 1, 3, 3)
    assert shapes["netcnnaud.18.weight"] == (512, 256, 5, 4)
    assert shapes["netcnnlip.0.weight"] == (96, 3, 5, 7, 7)
    assert shapes["netcnnlip.18.weight"] == (512, 256, 1, 6, 6)
    assert shapes["netfclip.3.weight"] == (1024, 512)
    pictures = torch.zeros(1, 3, 5, 224, 224)
    torch.testing.assert_close(loaded.lips(pictures), network.lips(pictures))
    (tmp_path / "bad.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError, match="does not hold SyncNet's weights"):
        load_syncnet(tmp_path / "bad.safetensors")


def test_faces_are_cut_as_syncnets_pipeline_does():
    """A box of 40 pixels: 28 to each side of its middle, 20 above, 36 below; grey outside."""
    image = np.zeros((100, 120, 3), np.uint8)
    image[..., 0] = np.arange(120)
    image[..., 1] = np.arange(100)[:, None]
    boxes = np.tile([0.0, 30, 40, 70], (20, 1))
    crop = face_crops(np.stack([image] * 20), boxes)[0].astype(float)
    assert crop.shape == (224, 224, 3)
    assert crop[:, -1, 0].mean() == pytest.approx(47, abs=1)
    assert crop[0, 100, 1] == pytest.approx(30, abs=1)
    assert crop[-1, 100, 1] == pytest.approx(85, abs=1)
    assert (crop[:, 0] == 110).all()


def test_features_of_an_onnx_network(averaging, tmp_path):
    network = Features(averaging)
    image = np.random.default_rng(4).random((299, 299, 3))
    np.testing.assert_allclose(network(image), image.mean((0, 1)), atol=1e-6)
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="is not an ONNX network"):
        Features(tmp_path / "bad.onnx")


def test_what_the_networks_say_and_what_is_missing(averaging, tmp_path, monkeypatch):
    """Mean colours as descriptors: CSIM is their cosine, FID their distance; the rest is named."""
    monkeypatch.setattr(judges, "identity_network", lambda config: lambda image, points:
                        image.astype(float).mean((0, 1)))  # fmt: skip
    rows = ["AU12_r, AU45_r"] + [f"{i % 5}, 0" for i in range(12)]
    (tmp_path / "render.csv").write_text("\n".join(rows))
    (tmp_path / "clip.csv").write_text("\n".join([rows[0]] + ["0, 0"] * 4 + ["1, 0"] * 8))
    config = EvaluationConfig(
        fid_model=str(averaging), openface_render=str(tmp_path / "render.csv"),
        openface_recording=str(tmp_path / "clip.csv"),
    )  # fmt: skip
    panel = Judges(config, 25)
    red, green = (np.full((20, 20, 3), color, np.uint8) for color in ((9, 0, 0), (9, 9, 0)))
    face = Face(np.random.default_rng(5).uniform(2, 18, (478, 2)))
    for _ in range(4):
        scores = panel.add(red, green, (face, face))
    assert scores["csim"] == pytest.approx(np.sqrt(0.5))
    found, recorded = panel.figures(None, range(4, 8))
    assert found["fid"] == pytest.approx((9 / 255) ** 2, rel=1e-4)
    truth = np.mean([(i % 5 - 1) ** 2 for i in range(4, 8)])
    assert found["openface_aue_lower"] == found["openface_aue"] == pytest.approx(truth)
    assert recorded == {}
    assert any("SyncNet" in text for text in panel.skipped)
    monkeypatch.setattr(judges, "identity_network", lambda config: None)
    said = " ".join(Judges(EvaluationConfig(), 25).skipped)
    assert all(name in said for name in ("CSIM", "FID", "LSE-C"))
    with pytest.raises(UserError, match="has 12 rows"):
        panel.figures(None, range(40, 44))
