"""Video in and out, judged by PyAV's own reading and writing of the same files."""

import itertools
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.io.video import Wanted, probe, read_frames, scan_frames, write_video

ACCURATE = 0x2 | 0x2000 | 0x40000


def number(image: np.ndarray) -> int:
    """The frame number of a `numbered` picture."""
    return round((float(image.mean()) - 10) / 3)


def encode(
    path: Path,
    pictures: list[np.ndarray],
    times: list[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    aspect: Fraction | None = None,
) -> Path:
    """Write with PyAV alone; times in milliseconds, default 40 ms apart."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame = frame.reformat(format=pix_fmt, interpolation=ACCURATE)
            frame.pts = times[index] if times else 40 * index
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def corner_marked(height: int = 48, width: int = 64) -> np.ndarray:
    """Black with a white top-left quarter."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 255
    return image


def test_round_trip_keeps_number_order_and_picture(tmp_path, numbered):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :120] / 20
    texture = np.stack([np.sin(x + k) * np.cos(y - k) for k in range(3)], -1)
    frames = [(120 + 60 * texture + k + rng.normal(0, 1, (90, 120, 3))) for k in range(20)]
    originals = [frame.clip(0, 255).astype(np.uint8) for frame in frames]
    write_video(tmp_path / "a.mp4", originals, 25)
    read = list(read_frames(tmp_path / "a.mp4"))
    assert len(read) == 20
    error = np.mean([(a.astype(float) - b) ** 2 for a, b in zip(read, originals, strict=True)])
    assert 10 * np.log10(255**2 / error) > 36  # chroma is halved, so the texture loses a little
    write_video(tmp_path / "b.mp4", itertools.islice(numbered, 30), 30)
    assert [number(image) for image in read_frames(tmp_path / "b.mp4")] == list(range(30))


@pytest.mark.parametrize("size", [(48, 64), (47, 64), (48, 63), (33, 35)])
def test_odd_sizes_are_padded_not_refused(tmp_path, size):
    picture = np.full((*size, 3), 90, np.uint8)
    write_video(tmp_path / "a.mp4", [picture] * 3, 25)
    info = probe(tmp_path / "a.mp4")
    assert (info.height, info.width) == tuple(side + side % 2 for side in size)


@pytest.mark.parametrize("fps", [12, 25, 30000 / 1001, 60])
def test_declared_rate_and_length(tmp_path, numbered, fps):
    write_video(tmp_path / "a.mp4", itertools.islice(numbered, 24), fps)
    info = probe(tmp_path / "a.mp4")
    assert info.fps == pytest.approx(fps, rel=1e-4)
    assert (info.frames, info.has_audio, info.variable_rate) == (24, False, False)
    assert info.duration == pytest.approx(24 / fps, abs=1e-3)


def test_sound_is_cut_at_the_end_of_the_picture_and_stays_in_time(tmp_path, numbered):
    from avatar3d.audio import load_audio
    from avatar3d.audio.files import save_wav

    rate = 16000
    samples = np.zeros(3 * rate, np.float32)
    samples[rate : rate + 800] = 0.8 * np.sin(np.arange(800) * 2 * np.pi * 500 / rate)
    save_wav(tmp_path / "s.wav", samples, rate)
    write_video(tmp_path / "a.mp4", itertools.islice(numbered, 50), 25, tmp_path / "s.wav")
    assert probe(tmp_path / "a.mp4").has_audio
    heard, rate = load_audio(tmp_path / "a.mp4")
    assert len(heard) / rate == pytest.approx(2.0, abs=0.15)
    loud = np.flatnonzero(np.abs(heard) > 0.3)
    assert loud[0] / rate == pytest.approx(1.0, abs=0.03)
    with av.open(str(tmp_path / "a.mp4")) as container:
        codecs = {s.type: s.codec_context.name for s in container.streams}
        assert codecs == {"video": "h264", "audio": "aac"}
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "not laid out for a fast start"


@pytest.mark.parametrize(
    ("rotation", "corner"),
    [(0, "top left"), (90, "bottom left"), (180, "bottom right"), (-90, "top right")],
)
def test_rotation_flag_is_honoured(tmp_path, rotation, corner):
    """FFmpeg's rotation is counter-clockwise: 90 takes the top left to the bottom left."""
    path = encode(tmp_path / "a.mp4", [corner_marked()] * 12, rotation=rotation)
    image = next(read_frames(path))
    info = probe(path)
    assert image.shape[:2] == ((64, 48) if rotation % 180 else (48, 64))
    assert (info.height, info.width) == image.shape[:2]
    rows = {"top": image[: len(image) // 2], "bottom": image[len(image) // 2 :]}
    brightness = {}
    for vertical, half in rows.items():
        middle = half.shape[1] // 2
        brightness[f"{vertical} left"] = half[:, :middle].mean()
        brightness[f"{vertical} right"] = half[:, middle:].mean()
    assert max(brightness, key=brightness.__getitem__) == corner


def test_pixels_are_made_square(tmp_path):
    path = encode(tmp_path / "a.mp4", [corner_marked(96, 96)] * 12, aspect=Fraction(4, 3))
    assert next(read_frames(path)).shape == (96, 128, 3)
    assert (probe(path).width, probe(path).height) == (128, 96)


def test_uneven_timing_becomes_even(tmp_path, numbered):
    """Frames at 0, 40, 80, 400, 440, ... ms: the long one is shown for its whole time."""
    times = [0, 40, 80, *range(400, 1000, 40)]
    path = encode(tmp_path / "a.mkv", list(itertools.islice(numbered, len(times))), times)
    shown = [number(image) for image in read_frames(path, fps=25)]
    truth = [int(np.abs(np.array(times) - 40 * k).argmin()) for k in range(len(shown))]
    assert len(shown) == pytest.approx(25, abs=1)
    assert sum(a != b for a, b in zip(shown, truth, strict=True)) <= 1  # one tie, at 240 ms


def test_thinning_starting_and_stopping(tmp_path, numbered):
    write_video(tmp_path / "a.mp4", itertools.islice(numbered, 60), 50)
    assert [number(i) for i in read_frames(tmp_path / "a.mp4", fps=25)] == list(range(0, 60, 2))
    part = list(read_frames(tmp_path / "a.mp4", start=0.4, duration=0.2))
    assert [number(image) for image in part] == list(range(20, 30))


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        ("mkv", "ffv1", "yuv420p10le"),
        ("mov", "mjpeg", "yuvj420p"),
        ("avi", "mpeg4", "yuv420p"),  # its header says 1000 frames per second
        ("webm", "libvpx", "yuv420p"),
        ("mkv", "ffv1", "bgr0"),
        ("mkv", "ffv1", "gray"),
        ("mkv", "ffv1", "yuv444p16le"),
    ],
)
def test_other_containers_codecs_and_depths(tmp_path, suffix, codec, pix_fmt):
    levels = np.arange(12) * 18 + 20
    pictures = [np.full((48, 64, 3), level, np.uint8) for level in levels]
    path = encode(tmp_path / f"a.{suffix}", pictures, codec=codec, pix_fmt=pix_fmt)
    read = list(read_frames(path))
    assert read[0].dtype == np.uint8
    assert len(read) == 12
    assert np.abs([image.mean() for image in read] - levels).max() < 9


def test_colours_survive_the_trip(tmp_path):
    """Both sides must use the same matrix: red stays red to within the codec's rounding."""
    colors = np.array([(200, 30, 30), (30, 180, 40), (40, 50, 210), (230, 200, 180)], np.uint8)
    picture = np.repeat(np.repeat(colors.reshape(2, 2, 3), 32, 0), 32, 1)
    write_video(tmp_path / "a.mp4", [picture] * 5, 25)
    read = next(read_frames(tmp_path / "a.mp4"))
    centers = read[16::32, 16::32].reshape(4, 3).astype(int)
    assert np.abs(centers - colors.astype(int)).max() <= 3


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """What is wrong: (file, words that the message must hold)."""
    text = folder / "text.mp4"
    text.write_text("no video at all\n" * 100)
    empty = folder / "empty.mp4"
    empty.write_bytes(b"")
    whole = folder / "whole.mp4"
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (96, 96, 3), dtype=np.uint8) for _ in range(50)]
    write_video(whole, noise, 25)
    data = whole.read_bytes()
    cut, beheaded = folder / "cut.mp4", folder / "beheaded.mp4"
    cut.write_bytes(data[: len(data) // 2])
    beheaded.write_bytes(data[len(data) // 2 :])
    from avatar3d.audio.files import save_wav

    sound = folder / "sound.wav"
    save_wav(sound, np.zeros(16000, np.float32), 16000)
    return {
        "missing": (folder / "nothing.mp4", "no file"),
        "text": (text, "not a readable video"),
        "empty": (empty, "not a readable video"),
        "cut off": (cut, "cut off"),
        "without its beginning": (beheaded, "not a readable video"),
        "sound only": (sound, "no picture"),
        "a folder": (folder, "is a folder"),
    }


@pytest.mark.parametrize(
    "kind",
    ["missing", "text", "empty", "cut off", "without its beginning", "sound only", "a folder"],
)
def test_bad_files_give_one_sentence(tmp_path, kind):
    path, words = bad_files(tmp_path)[kind]
    with pytest.raises(UserError, match=words) as caught:
        list(read_frames(path))
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")


def test_failed_writing_leaves_nothing(tmp_path):
    def frames():
        yield np.zeros((32, 32, 3), np.uint8)
        yield np.zeros((32, 48, 3), np.uint8)

    with pytest.raises(UserError, match="differs in size"):
        write_video(tmp_path / "a.mp4", frames(), 25)
    with pytest.raises(UserError, match="no frames"):
        write_video(tmp_path / "a.mp4", iter(()), 25)
    with pytest.raises(UserError, match=r"ending in \.mp4"):
        write_video(tmp_path / "a.nonsense", [np.zeros((32, 32, 3), np.uint8)], 25)
    assert list(tmp_path.iterdir()) == []


def test_stopping_early_does_not_hang(tmp_path, numbered):
    """Decoder threads once waited for the interpreter lock while the file was being closed."""
    write_video(tmp_path / "a.mp4", itertools.islice(numbered, 60), 25)
    code = (
        "import sys; from avatar3d.io.video import read_frames\n"
        "for _ in range(20):\n    next(read_frames(sys.argv[1]))\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.mp4"], check=True, timeout=60)


def test_only_wanted_pictures_are_made(tmp_path, numbered):
    write_video(tmp_path / "a.mp4", itertools.islice(numbered, 20), 25)
    whole = list(read_frames(tmp_path / "a.mp4"))
    wanted = Wanted(every=6, ranges=((8, 10),), longest=32, thumb=16)
    shown = list(scan_frames(tmp_path / "a.mp4", wanted=wanted))
    assert [frame.index for frame in shown if frame.image.size] == [0, 6, 8, 9, 12, 18]
    assert {max(frame.image.shape) for frame in shown if frame.image.size} == {32}
    assert {frame.size for frame in shown} == {whole[0].shape[1::-1]}
    errors = np.abs(np.array([number(frame.thumb) for frame in shown]) - range(20))
    assert errors.max() <= 1  # a quick conversion comes out darker by a level or two
