"""Capture as a whole: what it refuses, what it leaves behind, and how it goes on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avatar3d.capture import CaptureConfig, capture
from avatar3d.capture.workspace import CACHE
from avatar3d.errors import UserError
from avatar3d.geometry import Camera
from avatar3d.head.landmarks import inter_ocular
from avatar3d.io.video import write_video
from avatar3d.subject import Subject

CONFIG = CaptureConfig(size=256, iterations=60, identity_frames=20, chunk=32, detector="solutions")

pytestmark = pytest.mark.usefixtures("models")
PROGRAM = """
import json, sys
from avatar3d.capture import CaptureConfig, capture
capture(sys.argv[1], sys.argv[2], CaptureConfig(**json.loads(sys.argv[3])))
"""


@pytest.fixture(scope="module")
def subject(clip, tmp_path_factory) -> Subject:
    """The synthetic person, captured without interruption."""
    return capture(clip, tmp_path_factory.mktemp("capture") / "person", CONFIG)


def start(clip: Path, output: Path) -> subprocess.Popen:
    options = json.dumps(CONFIG.__dict__)
    command = [sys.executable, "-c", PROGRAM, str(clip), str(output), options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def files(folder: Path) -> dict[str, bytes]:
    """Contents by relative name, without what tells the time."""
    skipped = {"subject.json", "state.json", "quality.html"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skipped and path.suffix != ".npz"
    }


def assert_same(first: Subject, second: Subject) -> None:
    assert files(first.folder) == files(second.folder)
    for name, value in first.tracking.__dict__.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(second.tracking, name), err_msg=name)
    ignored = {"timings", "source_name"}
    assert first.info.model_dump(exclude=ignored) == second.info.model_dump(exclude=ignored)


def test_subject_is_complete_and_consistent(person, subject):
    assert len(subject) == len(person)
    assert subject.fps == 25
    assert (subject.info.width, subject.info.height) == (256, 256) or subject.info.width <= 256
    tracking = subject.tracking
    assert tracking.valid.mean() > 0.9
    for index in (0, len(subject) - 1):
        assert subject.frame(index).shape[2] == 3
        assert subject.matte(index).max() == 255
        assert subject.parsing(index).max() > 0
    assert subject.background.dtype == np.uint8
    assert subject.audio_path is not None
    assert len(subject.audio_features["mel"]) == len(subject)
    assert sorted(p.name for p in subject.folder.parent.iterdir()) == [subject.folder.name]
    quality = json.loads((subject.folder / "quality.json").read_text())
    assert quality["valid_share"] == pytest.approx(tracking.valid.mean(), abs=1e-3)
    assert "<img" in (subject.folder / "quality.html").read_text()


def test_tracking_finds_the_person_that_was_drawn(person, subject):
    """The landmarks of the fitted head lie where those of the drawn head do."""
    facts = json.loads((subject.folder / CACHE / "state.json").read_text())["facts"]
    left, top, width, _ = facts["crop"]
    truth = (person.landmarks - (left, top)) * (subject.info.width / width)
    error = np.linalg.norm(subject.tracking.landmarks_fit - truth, axis=-1)
    relative = error[subject.tracking.valid].mean() / inter_ocular(truth).mean()
    assert relative < 0.08  # the detector's own opinion of a drawn face is off by a few percent
    camera = subject.tracking.camera
    assert isinstance(camera, Camera)
    origin = camera.project(subject.tracking.T_camera_rest[:3, 3])
    assert (origin > 0).all()
    assert (origin < subject.info.width).all()


def test_again_does_nothing_and_another_option_redoes_only_what_needs_it(clip, subject, tmp_path):
    import shutil

    copy = tmp_path / "person"
    shutil.copytree(subject.folder, copy)
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()}
    assert capture(clip, copy, CONFIG).info == Subject(copy).info
    assert before == {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()}
    assert capture(clip, copy, replace(CONFIG, consent="signed")).info.consent == "signed"
    changed = capture(clip, copy, replace(CONFIG, focal=3.0))
    ratio = changed.tracking.T_camera_rest[2, 3] / subject.tracking.T_camera_rest[2, 3]
    assert ratio == pytest.approx(3.0 / CONFIG.focal, rel=0.05)
    kept = ("frames", "mattes", "background.png", "audio.wav")
    redone = {p.relative_to(copy).parts[0] for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert not redone & set(kept)
    assert "tracking.npz" in redone
    assert list(tmp_path.iterdir()) == [copy]


def test_goes_on_after_kills(clip, subject, tmp_path):
    """Killed without warning in one stage after the other, then run again: the same Subject."""
    output = tmp_path / "person"
    work = tmp_path / ".person.capture"
    written: dict[str, int] = {}
    for stage in ("check", "decode", "matte", "fit"):
        kill_in(stage, clip, output, work / CACHE / "state.json")
        assert not output.exists()
        modified = {p.name: p.stat().st_mtime_ns for p in (work / "frames").glob("0*.jpg")}
        assert {name: modified[name] for name in written} == written, "a frame was written twice"
        written = modified
    assert len(written) == len(subject)
    for half_written in (work / CACHE / ".partial-1-state.json", work / ".partial-1-config.yaml"):
        half_written.write_text("{")  # what a kill leaves that comes a moment before a rename
    assert_same(capture(clip, output, CONFIG), subject)
    assert [p.name for p in tmp_path.iterdir()] == ["person"]
    assert not list(output.rglob(".partial-*"))


def kill_in(stage: str, clip: Path, output: Path, state: Path) -> None:
    """Run capture in a process of its own and kill it soon after `stage` has begun."""
    process = start(clip, output)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if state.is_file() and stage in json.loads(state.read_text())["started"]:
            break
        time.sleep(0.002)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()


def bad_clips(person, folder: Path) -> dict[str, tuple[Path, str]]:
    text = folder / "text.mp4"
    text.write_text("no video\n" * 200)
    rng = np.random.default_rng(0)
    scenery = folder / "scenery.mp4"
    write_video(scenery, list(rng.integers(0, 255, (30, 96, 96, 3), dtype=np.uint8)), 25)
    short = folder / "short.mp4"
    frames = list(person.frames())
    write_video(short, frames[:2], 25)
    brief = folder / "brief.mp4"
    empty = np.full_like(frames[0], 90)
    write_video(brief, [*frames[:4], *[empty] * 36], 25)
    return {
        "missing": (folder / "nothing.mp4", "no file"),
        "text": (text, "not a readable video"),
        "no face": (scenery, "No face"),
        "two frames": (short, "only 2 frames"),
        "a face for four frames": (brief, "in only"),
    }


@pytest.mark.parametrize(
    "kind", ["missing", "text", "no face", "two frames", "a face for four frames"]
)
def test_bad_clips_are_refused_and_leave_nothing(person, tmp_path, kind):
    source = tmp_path / "source"
    source.mkdir()
    path, words = bad_clips(person, source)[kind]
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(UserError, match=words) as caught:
        capture(path, target / "subject", CONFIG)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(target.iterdir()) == []


def test_a_refused_clip_does_not_harm_an_earlier_subject(person, subject, tmp_path):
    import shutil

    copy = tmp_path / "person"
    shutil.copytree(subject.folder, copy)
    path, _ = bad_clips(person, tmp_path)["no face"]
    with pytest.raises(UserError, match="No face"):
        capture(path, copy, CONFIG)
    assert_same(Subject(copy), subject)


def test_folders_that_are_something_else_are_left_alone(clip, tmp_path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="not a subject folder"):
        capture(clip, tmp_path / "holiday", CONFIG)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        capture(clip, tmp_path / "file", CONFIG)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "holiday"]


def test_silent_clip_is_captured_with_a_warning(person, tmp_path):
    write_video(tmp_path / "silent.mp4", person.frames(), person.fps)
    silent = capture(tmp_path / "silent.mp4", tmp_path / "subject", CONFIG)
    assert not silent.info.has_audio
    assert silent.audio_path is None
    assert silent.audio_features == {}
    assert any("no sound" in warning for warning in silent.info.warnings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop": "circle"}, "capture.crop must be one of"),
        ({"focal": 0}, "capture.focal must be within"),
        ({"duration": -1}, "capture.duration"),
        ({"detector": "magic"}, "capture.detector"),
        ({"sound_offset": "late"}, "capture.sound_offset"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(UserError, match=words):
        CaptureConfig(**options)


def test_a_missing_speech_model_is_told_before_any_work(clip, tmp_path):
    config = CaptureConfig(speech_model=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="nowhere is not the folder of a speech model"):
        capture(clip, tmp_path / "person", config)
    assert list(tmp_path.iterdir()) == []


def test_real_clip(real_clip, tmp_path):
    """A person whom the detector was made for: the fit is within a pixel of 512."""
    config = CaptureConfig(duration=2, iterations=250)
    quality = capture(real_clip, tmp_path / "person", config)
    numbers = json.loads((quality.folder / "quality.json").read_text())
    assert numbers["valid_share"] == 1
    assert numbers["error_px_at_512"]["lips"] < 0.9
    assert numbers["error_px_at_512"]["all"] < 1.6
    assert 0.9 < numbers["lip_gap_ratio"] < 1.1
    assert numbers["eye_aperture_ratio"] > 0.85
