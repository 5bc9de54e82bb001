"""What is made once a machine, and with a shared cache once for all machines."""

import subprocess
import sys

from avatar3d.io.cache import cache_folder
from avatar3d.io.storage_cache import made_once

PROCESS = """
import sys, time
from pathlib import Path
from avatar3d.io.atomic import atomic_write
from avatar3d.io.cache import cache_folder
from avatar3d.io.storage_cache import made_once

path = cache_folder() / "heads" / "model.npz"

def make():
    with open(sys.argv[1], "a") as log:
        log.write("made\\n")
    time.sleep(0.5)
    atomic_write(path, b"a head")

made_once(path, Path.is_file, make)
assert path.read_bytes() == b"a head"
"""


def test_of_many_processes_and_machines_one_makes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("AVATAR3D_SHARED_CACHE", (tmp_path / "shared").as_uri())
    log = tmp_path / "log"
    running = [subprocess.Popen([sys.executable, "-c", PROCESS, log]) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert log.read_text() == "made\n"

    monkeypatch.setenv("AVATAR3D_CACHE", str(tmp_path / "another machine"))
    path = cache_folder() / "heads" / "model.npz"
    made_once(path, lambda path: path.read_bytes() == b"a head", lambda: 1 / 0)
    assert path.read_bytes() == b"a head"


def test_a_shared_cache_that_fails_is_said_and_done_without(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AVATAR3D_SHARED_CACHE", "gs://bucket/cache")
    path = cache_folder() / "thing"
    made_once(path, lambda _: True, lambda: path.write_text("made here"))
    assert path.read_text() == "made here"
    assert capsys.readouterr().err.count("pip install gcsfs") == 2
