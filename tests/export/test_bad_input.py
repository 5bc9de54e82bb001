"""What goes wrong for a user: one sentence, and nothing half-written left behind."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from avatar3d.avatar import NerfAvatar, NerfState, SplatAvatar, load
from avatar3d.errors import UserError
from avatar3d.export import FORMATS, export
from avatar3d.motion.motion import Motion

WRITTEN = sorted(set(FORMATS) - {"sog", "gaussian-avatars"})
SUFFIX = {"lam": "zip", "splat-glb": "glb"}


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file may grow beyond so many bytes; the system refuses as it does when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_full_disk_leaves_nothing(avatar: SplatAvatar, tmp_path: Path, name: str):
    motion = {"motion": avatar.idle_motion.slice(0, 2)}
    options = motion if name in ("mov", "png", "ply-sequence", "webm") else {}
    target = tmp_path / f"a.{SUFFIX.get(name, name)}"
    with full_disk(1500), pytest.raises(UserError, match=r"^Cannot write [^\n]*\.$"):
        export(avatar, target, format=name, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITTEN)
def test_a_place_that_cannot_be_written(avatar: SplatAvatar, tmp_path: Path, name: str):
    """A file where a folder would have to be; permissions do not stop root."""
    (tmp_path / "taken").write_text("mine")
    options = {"motion": avatar.idle_motion.slice(0, 1)} if name in ("mov", "webm", "png") else {}
    with pytest.raises(UserError, match=r"^Cannot write"):
        export(avatar, tmp_path / "taken" / f"a.{SUFFIX.get(name, name)}", format=name, **options)
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("name", ["web", "png", "ply-sequence"])
def test_a_folder_of_other_files_is_not_replaced(avatar: SplatAvatar, tmp_path: Path, name: str):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="choose another name"):
        export(avatar, tmp_path, format=name)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_an_export_replaces_its_own_folder(avatar: SplatAvatar, tmp_path: Path):
    for count in (3, 2):
        motion = avatar.idle_motion.slice(0, count)
        export(avatar, tmp_path / "frames", format="png", motion=motion)
        assert len(list((tmp_path / "frames").iterdir())) == count


def test_a_radiance_field_has_no_gaussians(small_field: NerfState, tmp_path: Path):
    motion = Motion(25, expression=np.zeros((2, 52), np.float32))
    field = NerfAvatar(small_field, np.full((80, 96, 3), 90, np.uint8), motion, None)
    for name in ("html", "ply", "spz", "glb", "web"):
        with pytest.raises(UserError, match="avatar3d convert"):
            export(field, tmp_path / f"a.{name}", format=name)
    assert list(tmp_path.iterdir()) == []
    export(field, tmp_path / "frames", format="png")
    assert len(list((tmp_path / "frames").iterdir())) == 2


def test_a_damaged_avatar_on_the_command_line(avatar: SplatAvatar, tmp_path: Path):
    avatar.save(tmp_path / "a.a3d")
    data = bytearray((tmp_path / "a.a3d").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "b.a3d").write_bytes(data)
    with pytest.raises(UserError):
        load(tmp_path / "b.a3d")
    command = [sys.executable, "-W", "ignore", "-m", "avatar3d", "export", "b.a3d", "-o", "b.html"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "b.a3d is not a readable avatar file" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.a3d", "b.a3d"]
