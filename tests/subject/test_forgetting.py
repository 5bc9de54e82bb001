"""`avatar3d forget` removes a person, and nothing else."""

import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from avatar3d.subject import SubjectInfo

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two subjects, an avatar of each and what lies about them."""
    for name, source in (("me", "a" * 64), ("you", "b" * 64)):
        folder = tmp_path / f"{name}.subject"
        (folder / "frames").mkdir(parents=True)
        (folder / "frames/000000.jpg").write_bytes(b"x")
        info = SubjectInfo(
            source_name="c", source_sha256=source, fps=25, frames=1, width=64, height=64
        )
        (folder / "subject.json").write_text(info.model_dump_json())
        (tmp_path / f".{name}.subject.capture/deep").mkdir(parents=True)
        (tmp_path / f".partial-12345678-{name}.subject").mkdir()
        (tmp_path / f"{name}.preview.mp4").write_bytes(b"x")
        (tmp_path / f"{name}.run").mkdir()
        with zipfile.ZipFile(tmp_path / f"{name}.a3d", "w") as archive:
            archive.writestr("manifest.json", json.dumps({"info": {"source_sha256": source}}))
    (tmp_path / "broken.a3d").write_bytes(b"no avatar")
    (tmp_path / "keep.txt").write_text("mine")
    (tmp_path / "me.subject/link").symlink_to(tmp_path / "keep.txt")
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_subject_goes_and_the_avatar_is_named(place: Path, run_here: Run) -> None:
    before = names(place)
    done = run_here("forget", "me.subject", "--yes")
    assert done.returncode == 0
    gone = {"me.subject", ".me.subject.capture", ".partial-12345678-me.subject", "me.preview.mp4"}
    assert before - names(place) == gone
    assert {line.split("/")[-1] for line in done.stdout.splitlines() if "removed " in line} == gone
    assert [line.split("/")[-1] for line in done.stdout.splitlines() if "kept" in line] == [
        "me.a3d", "me.run",
    ]  # fmt: skip
    assert (place / "keep.txt").read_text() == "mine"


def test_avatars_go_too_when_asked(place: Path, run_here: Run) -> None:
    assert run_here("forget", "me.subject", "--avatars", "--yes").returncode == 0
    assert {"you.a3d", "you.run", "you.subject", "broken.a3d", "keep.txt"} <= names(place)
    assert not {"me.a3d", "me.run", "me.subject"} & names(place)


def test_no_answer_removes_nothing(place: Path, run_here: Run) -> None:
    before = names(place)
    assert run_here("forget", "me.subject").returncode != 0
    assert names(place) == before


@pytest.mark.parametrize("name", ["keep.txt", "me.run", "missing", "linked"])
def test_anything_but_a_subject_is_refused(place: Path, run_here: Run, name: str) -> None:
    (place / "linked").symlink_to(place / "you.subject")
    before = names(place)
    refused = run_here("forget", name, "--yes")
    assert refused.returncode == 2
    assert names(place) == before
