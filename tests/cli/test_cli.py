"""The command line as a person meets it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avatar3d.cli import main
from avatar3d.motion import Motion

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path) -> Run:
    """Run `avatar3d ARGUMENTS` in an empty folder, in a process of its own."""

    def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "avatar3d", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return command


def assert_refused(result: subprocess.CompletedProcess[str], *words: str, lines: int = 1) -> None:
    """Exit code 2, at most `lines` lines of which the last is one sentence, no traceback."""
    said = result.stderr.strip().splitlines()
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert len(said) <= lines, result.stderr
    assert said[-1].startswith("avatar3d: ")
    assert said[-1].endswith((".", "`")), said[-1]
    for word in words:
        assert word in said[-1]


def movie(path: Path, frames: int, picture: Callable[[int], np.ndarray]) -> Path:
    from avatar3d.io.video import write_video

    write_video(path, (picture(index) for index in range(frames)), 25)
    return path


def scenery(index: int) -> np.ndarray:
    """A moving gradient: a picture, but nobody in it."""
    y, x = np.mgrid[:240, :320]
    return np.stack([x * 0.6 + index, y * 0.8, (x + y) * 0.3], -1).clip(0, 255).astype(np.uint8)


def test_help_is_quick_and_names_every_verb(run):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        result = run("--help")
        seconds.append(time.perf_counter() - start)
    assert result.returncode == 0
    for verb in (
        "doctor", "assets", "capture", "import", "head", "train", "render", "export", "view",
        "evaluate", "config",
    ):  # fmt: skip
        assert f" {verb} " in result.stdout
    assert min(seconds) < 1.5


def test_doctor_reports_every_part(run):
    result = run("doctor")
    assert result.returncode == 0, result.stdout + result.stderr
    for part in (
        "python",
        "torch",
        "kernels",
        "gpu",
        "capture",
        "landmark model",
        "speech",
        "disk",
    ):
        assert f"  {part} " in result.stdout


def test_assets_are_listed_with_licence(run_here):
    result = run_here("assets")
    assert result.returncode == 0
    assert "sample-clip" in result.stdout
    assert "licence: " in result.stdout
    assert_refused(run_here("assets", "fetch", "sample-clop"), "sample-clip")


def test_settings_are_listed(run_here):
    result = run_here("config", "training")
    assert result.returncode == 0
    assert "iterations=" in result.stdout
    assert "quick" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trian",), ["'train'"]),
        (("train",), ["avatar3d train --help"]),
        (("render", "a.a3d", "--loud"), ["--loud"]),
        (("capture", "nowhere.mp4", "-o", "out"), ["nowhere.mp4"]),
        (("capture", "nowhere.mp4", "-o", "out", "sise=3"), ["'size'"]),
        (("train", "nowhere", "-o", "out.a3d"), ["nowhere", "avatar3d capture"]),
        (("train", "nowhere", "-o", "out.a3d", "iteration=3"), ["'iterations'"]),
        (("train", "nowhere", "-o", "out.a3d", "iterations=many"), ["'many'"]),
        (("render", "nowhere.a3d", "--text", "hello", "-o", "out.mp4"), ["nowhere.a3d"]),
        (("export", "nowhere.a3d", "-o", "out.html"), ["nowhere.a3d"]),
        (("export", "nowhere.csv", "-o", "out.npz"), ["nowhere.csv"]),
        (("import", "nowhere", "-o", "out"), ["nowhere"]),
        (("synth", "-o", "a.mp4", "--language", "tlh"), ["tlh", "cmn"]),
        (("synth", "-o", "a.txt", "--seconds", "0.2", "--size", "64"), ["a.txt", ".mp4"]),
        (("head", "nowhere.pkl"), ["nowhere.pkl"]),
        (("head", "nobody"), ["'nobody'", "anny"]),
        (("evaluate", "nowhere.a3d", "--subject", "nowhere"), ["nowhere"]),
        (("view", "nowhere.a3d"), ["nowhere.a3d"]),
    ],
)
def test_a_slip_is_one_sentence_and_leaves_nothing(run_here, tmp_path, arguments, words):
    assert_refused(run_here(*arguments), *words)
    assert list(tmp_path.iterdir()) == []


def test_a_text_file_is_not_a_video(run_here, tmp_path):
    (tmp_path / "notes.mp4").write_text("These are notes, not a video.\n" * 100)
    assert_refused(run_here("capture", "notes.mp4", "-o", "out"), "notes.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.mp4"]


def test_a_folder_is_not_a_video(run_here, tmp_path):
    (tmp_path / "clips.mp4").mkdir()
    assert_refused(run_here("check", "clips.mp4"), "clips.mp4 is a folder")


def test_a_place_that_cannot_be_written_to(run_here, tmp_path):
    """A folder cannot be made in a file, whoever asks."""
    movie(tmp_path / "clip.mp4", 12, scenery)
    (tmp_path / "file").touch()
    assert_refused(run_here("capture", "clip.mp4", "-o", "file/person"), "file", lines=20)


def test_a_full_disk(run, tmp_path):
    """Files that may not grow beyond 18 kB: the sound fits, the video does not."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (18_000, before[1]))
    try:
        arguments = ("synth", "-o", "clip.mp4", "--seconds", "0.5", "--size", "320")
        result = run(*arguments, "--truth", "truth")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_refused(result, "clip.mp4", "File too large")
    assert "Exception" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_clip_without_a_face(run, tmp_path):
    movie(tmp_path / "scenery.mp4", 30, scenery)
    assert_refused(run("capture", "scenery.mp4", "-o", "out"), "face", lines=20)
    assert [path.name for path in tmp_path.iterdir()] == ["scenery.mp4"]


def test_a_clip_of_two_frames(run, tmp_path):
    movie(tmp_path / "short.mp4", 2, scenery)
    assert_refused(run("capture", "short.mp4", "-o", "out"), "frames", lines=20)
    assert [path.name for path in tmp_path.iterdir()] == ["short.mp4"]


def test_a_motion_goes_into_a_recording_and_back(run_here, tmp_path):
    weights = np.linspace(0, 1, 10 * 52).reshape(10, 52)
    Motion(fps=30, expression=weights).save(tmp_path / "take.npz")
    assert run_here("export", "take.npz", "-o", "take.csv").returncode == 0
    assert run_here("export", "take.csv", "-o", "again.npz").returncode == 0
    np.testing.assert_allclose(Motion.load(tmp_path / "again.npz").expression, weights, atol=1e-6)


def test_an_avatar_that_is_none(run_here, tmp_path):
    (tmp_path / "fake.a3d").write_bytes(b"PK\x03\x04 not really")
    assert_refused(run_here("export", "fake.a3d", "-o", "out.html"), "fake.a3d")
    assert [path.name for path in tmp_path.iterdir()] == ["fake.a3d"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "same command again"),
        (PermissionError(13, "Permission denied", "a/b"), 2, "'a/b': Permission denied"),
        (OSError(28, "No space left on device"), 2, "No space left on device; check free space"),
        (MemoryError(), 1, "memory is full"),
        (ZeroDivisionError("one over none"), 1, "ZeroDivisionError (one over none)"),
    ],
)
def test_what_nobody_foresaw_is_one_line(monkeypatch, capsys, error, code, words):
    from avatar3d.cli import commands

    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(commands, "app", fail)
    monkeypatch.delenv("AVATAR3D_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err
    assert stopped.value.code == code
    assert words in said
    assert said.count("\n") == 1
    monkeypatch.setenv("AVATAR3D_DEBUG", "1")
    with pytest.raises(SystemExit):
        main()
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupted_command_says_how_to_go_on(run_here, monkeypatch):
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("avatar3d.training.training_config", interrupted)
    result = run_here("train", "a.subject")
    assert result.returncode == 130
    assert "Interrupted; run the same command again to continue." in result.stderr


def test_a_thread_of_a_library_fails_in_one_line(capsys):
    """As TensorBoard's does when the disk is full (`tools/full_disk.py`)."""
    import errno
    import threading

    error = OSError(errno.ENOSPC, "No space left on device")
    sys.modules[main.__module__]._thread_failed(
        threading.ExceptHookArgs((OSError, error, None, threading.current_thread()))
    )
    said = capsys.readouterr().err
    assert "No space left" in said
    assert said.count("\n") == 1
