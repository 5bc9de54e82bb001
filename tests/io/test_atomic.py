"""Final files appear whole, and what killed processes left half-written goes away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avatar3d.io.atomic import atomic_folder, atomic_path, atomic_write, partial_beside

WRITER = """
import sys
from avatar3d.io.atomic import atomic_folder, atomic_path
with {writer}(sys.argv[1]) as temporary:
    {write}
    print("half", flush=True)
    sys.stdin.read()
"""


def write_half(path: Path) -> None:
    path.write_text("half")
    raise ZeroDivisionError


def start(target: Path, writer: str, write: str) -> "subprocess.Popen[str]":
    """A process that has written half of `target`."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER.format(writer=writer, write=write), str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    return process


@pytest.mark.skipif(os.name == "nt", reason="half-written files are swept on POSIX only")
@pytest.mark.parametrize(
    ("writer", "write"),
    [
        ("atomic_path", "temporary.write_bytes(b'half')"),
        ("atomic_folder", "(temporary / 'a').write_bytes(b'half')"),
    ],
)
def test_only_what_killed_processes_left_is_swept(tmp_path: Path, writer: str, write: str) -> None:
    killed = start(tmp_path / "a [1].mp4", writer, write)
    killed.kill()
    killed.communicate()
    assert len(list(tmp_path.iterdir())) == 1
    alive = start(tmp_path / "b.mp4", writer, write)
    try:
        (left,) = (p for p in tmp_path.iterdir() if p.name.endswith("b.mp4"))
        atomic_write(tmp_path / "c.txt", "whole")
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([left.name, "c.txt"])
    finally:
        alive.communicate("")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.mp4", "c.txt"]


@pytest.mark.skipif(os.name == "nt", reason="half-written files are swept on POSIX only")
def test_a_folder_that_was_to_be_replaced_gets_its_name_back(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from avatar3d.io.atomic import partial_beside;"
        "print(partial_beside(Path(sys.argv[1]), replaced=True))"
    )
    target = tmp_path / "a.subject"
    run = subprocess.run([sys.executable, "-c", program, target], capture_output=True, text=True)
    Path(run.stdout.strip()).mkdir()
    (Path(run.stdout.strip()) / "precious").write_text("kept")
    atomic_write(tmp_path / "c.txt", "whole")
    assert (target / "precious").read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.subject", "c.txt"]


def test_what_other_machines_write_is_left_alone(tmp_path: Path) -> None:
    mine = partial_beside(tmp_path / "elsewhere" / "a.mp4").name
    theirs = mine.replace(f"-{mine.split('-')[1]}-", "-00000000-").replace(str(os.getpid()), "1234")
    (tmp_path / theirs).write_bytes(b"half")
    (tmp_path / ".partial-notes.txt").write_bytes(b"a person's")
    atomic_write(tmp_path / "c.txt", "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [theirs, ".partial-notes.txt", "c.txt"]
    )


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a.txt", "old")
    for writer, name, inside in ((atomic_path, "a.txt", ""), (atomic_folder, "b", "a.txt")):
        with pytest.raises(ZeroDivisionError), writer(tmp_path / name) as temporary:
            write_half(temporary / inside)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]
