"""From a video to a talking avatar through the command line, in small."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avatar3d.avatar import load
from avatar3d.cli import main
from avatar3d.evaluation.metrics import psnr
from avatar3d.io.video import probe, read_frames
from avatar3d.subject import Subject

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TINY = (
    "gaussians=8000", "basis=8", "warmup_iterations=150", "iterations=300", "refine_steps=2",
    "train_fraction=0.909091", "detail_weight=4",
)  # fmt: skip

Command = Callable[..., str]


@pytest.fixture
def avatar3d(tmp_path, monkeypatch, capfd) -> Command:
    """Run a command in an empty folder; it must succeed. Returns what it printed and said."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["avatar3d", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capfd.readouterr()
        assert stopped.value.code == 0, said.err
        return said.out + said.err

    return command


def held_still(subject: Subject, frames: range) -> float:
    """PSNR of showing the last training frame all the time: what an avatar has to beat."""
    last = subject.frame(frames.start - 1) / 255
    return float(np.mean([psnr(last, subject.frame(index) / 255) for index in frames]))


@pytest.mark.slow
def test_a_synthetic_person(avatar3d, tmp_path):
    """A made-up person of known motion: captured, trained, compared, performed and exported."""
    from avatar3d.synth import make_synthetic, write_video

    clip = make_synthetic(seed=1, seconds=5, size=256)
    write_video(clip, tmp_path / "clip.mp4")

    avatar3d("capture", "clip.mp4", "-o", "person")
    subject = Subject("person")
    assert len(subject) == len(clip)
    assert (tmp_path / "person" / "config.yaml").is_file()

    avatar3d("train", "person", "-o", "person.a3d", *TINY)
    assert "iterations: 300" in (tmp_path / "person.run" / "config.yaml").read_text()

    table = avatar3d("evaluate", "person.a3d", "--subject", "person", "-o", "report")
    assert "whole frame PSNR" in table
    report = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    first, last = report["frames"]
    assert (first, last) == (113, 124)
    assert report["means"]["psnr"] > 29
    assert report["means"]["psnr"] > held_still(subject, range(first, last + 1)) + 3
    assert report["means"]["face_psnr"] > 28
    assert report["means"]["lip_gap_correlation"] > 0.8

    avatar3d("render", "person.a3d", "--audio", "clip.mp4", "-o", "talk.mp4")
    info = probe(tmp_path / "talk.mp4")
    assert info.has_audio
    assert info.duration == pytest.approx(5, abs=0.1)
    assert (info.width, info.height) == (subject.info.width, subject.info.height)

    avatar3d("render", "person.a3d", "--text", "Good morning.", "--pose", "orbit", "-o", "turn.mp4")
    assert probe(tmp_path / "turn.mp4").has_audio
    turned = np.stack(list(read_frames(tmp_path / "turn.mp4"))).astype(np.float32)
    assert np.abs(turned - turned[0]).mean(axis=(1, 2, 3)).max() > 3

    avatar3d("export", "person.a3d", "-o", "person.html")
    page = (tmp_path / "person.html").read_text("utf-8")
    assert "jawOpen" in page
    assert 'src="http' not in page
    avatar3d("export", "person.a3d", "-o", "person.ply")
    header = (
        (tmp_path / "person.ply")
        .read_bytes()
        .partition(b"end_header")[0]
        .decode("ascii", "replace")
    )
    assert f"element vertex {len(load('person.a3d').state)}" in header


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real clips at {DATA}")
def test_a_real_person(avatar3d, tmp_path):
    """Two seconds of a newsreader: real skin, hair, cloth and speech."""
    clip = DATA / "clips" / "newsreader_de_20s.mp4"
    avatar3d("capture", clip, "-o", "person", "duration=2", "size=256")
    avatar3d("train", "person", "-o", "person.a3d", *TINY)
    avatar3d("evaluate", "person.a3d", "--subject", "person", "-o", "report")
    report = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert report["means"]["psnr"] > 30
    assert report["means"]["face_psnr"] > 28
    said = avatar3d("render", "person.a3d", "--audio", DATA / "speech" / "de.wav", "-o", "de.mp4")
    assert "in silence" in said
    assert probe(tmp_path / "de.mp4").has_audio
