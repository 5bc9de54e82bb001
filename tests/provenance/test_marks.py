"""Marks in the pictures themselves."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avatar3d.io.video import read_frames, write_video
from avatar3d.provenance.label import labelled
from avatar3d.provenance.watermark import detect, watermarked

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def scene(seed: int, size: int = 512) -> np.ndarray:
    """(size, size, 3) uint8 with smooth parts, edges and texture."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(40, 216, (8, 8, 3), np.uint8))
    image = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC)).astype(float)
    image[size // 3 : size // 2, size // 4 : size // 2] = rng.integers(0, 255, 3)
    texture = np.asarray(
        Image.fromarray(rng.integers(0, 40, (size // 6, size // 6), np.uint8)).resize((size, size))
    )
    return (image + texture[..., None] - 20).clip(0, 255).astype(np.uint8)


def test_mark_is_faint_and_survives_half_size_and_crf_28(tmp_path: Path) -> None:
    plain = [scene(seed) for seed in range(4)]
    marked = [watermarked(image) for image in plain]
    error = np.mean(
        [np.square(a - b.astype(float)).mean() for a, b in zip(marked, plain, strict=True)]
    )
    assert 10 * np.log10(255**2 / error) > 40
    half = [
        np.asarray(Image.fromarray(i).resize((256, 256), Image.Resampling.BICUBIC)) for i in marked
    ]
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "28"})
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for image in half:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        output.mux(stream.encode(None))
    assert all(detect(image)[0] for image in read_frames(tmp_path / "a.mp4"))
    assert all(detect(image[60:-31, 77:-5])[0] for image in marked)


def test_pictures_without_it_give_no_alarm() -> None:
    pictures = [scene(seed) for seed in range(10, 18)]
    pictures += [np.zeros((300, 300, 3), np.uint8), np.full((40, 40, 3), 7, np.uint8)]
    assert max(detect(image)[1] for image in pictures) < 6.5


def test_verify_finds_the_mark_where_the_statement_was_removed(
    tmp_path: Path, run_here: Run
) -> None:
    frames = [scene(seed, 256) for seed in range(3)]
    write_video(tmp_path / "a.mp4", (watermarked(f) for f in frames), 25, synthetic=False)
    write_video(tmp_path / "b.mp4", frames, 25, synthetic=False)
    found, clean = run_here("verify", tmp_path / "a.mp4"), run_here("verify", tmp_path / "b.mp4")
    assert "invisible mark" in found.stdout
    assert (found.returncode, clean.returncode) == (1, 1)
    assert "invisible mark" not in clean.stdout
    assert "none" in clean.stdout


def test_verify_command(tmp_path: Path, run_here: Run) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, [scene(1, 64)] * 2, 25, facts={"consent": {"scope": "tests", "date": "now"}})
    told = run_here("verify", path)
    assert told.returncode == 0
    assert "valid (C2PA manifest" in told.stdout
    assert "now: tests" in told.stdout
    data = bytearray(path.read_bytes())
    data[-300] ^= 1
    path.write_bytes(data)
    assert run_here("verify", path).returncode == 1
    assert run_here("verify", tmp_path / "missing").returncode == 2


@pytest.mark.parametrize("size", [(512, 512), (64, 48), (8, 6)])
def test_label_is_in_the_corner_only(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 120, np.uint8)
    changed = (labelled(image) != image).any(-1)
    assert changed.any()
    if size[0] == 512:
        assert not changed[: size[0] * 9 // 10].any()
        assert not changed[:, : size[1] // 2].any()
