"""The process that decodes: whatever becomes of it, the other gets one sentence and goes on."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.io import decoder, packets
from avatar3d.io.decoder import client, server
from avatar3d.io.video import read_frames, write_video

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough that its decoding waits for somebody to take frames."""
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    write_video(path, [np.full((64, 64, 3), k, np.uint8) for k in range(120)], 25)
    return path


def copies() -> list[int]:
    """Processes that decode for this one."""
    assert client._server is not None
    pid = client._server.process.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process ends in time; one that nobody has buried yet counts."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("fate", [signal.SIGSEGV, signal.SIGKILL, signal.SIGPROF])
def test_the_end_of_a_decoder_is_one_sentence(clip: Path, fate: signal.Signals) -> None:
    frames = read_frames(clip)
    next(frames)
    (pid,) = copies()
    os.kill(pid, fate)
    with pytest.raises(UserError, match="made the decoder fail") as caught:
        list(frames)
    assert str(clip) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sum(1 for _ in read_frames(clip)) == 120


def test_a_decoder_is_limited(clip: Path) -> None:
    frames = read_frames(clip)
    next(frames)
    (pid,) = copies()
    limits = {kind: resource.prlimit(pid, kind)[1] for kind in (
        resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE,
    )}  # fmt: skip
    assert limits[resource.RLIMIT_AS] <= 8 << 30
    assert resource.prlimit(pid, resource.RLIMIT_AS)[0] < 2 << 30  # for frames of 64 x 64
    assert limits[resource.RLIMIT_NOFILE] <= 32
    assert limits[resource.RLIMIT_FSIZE] <= 4 << 20
    assert limits[resource.RLIMIT_CORE] == 0


def test_stopping_early_ends_the_decoder(clip: Path) -> None:
    frames = read_frames(clip)
    next(frames)
    (pid,) = copies()
    frames.close()  # type: ignore[attr-defined]
    assert ended(pid)


def test_nothing_outlives_a_process_that_is_killed(clip: Path) -> None:
    code = (
        "import sys, time; from avatar3d.io.decoder import client\n"
        "from avatar3d.io.video import read_frames\n"
        "frames = read_frames(sys.argv[1]); next(frames)\n"
        "print(client._server.process.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, clip], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        process.kill()
    assert len(children) == 1
    assert all(ended(int(one)) for one in (pid, *children))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import numpy; numpy.ones(1 << 29)", "more memory"),
        ("while True: pass", "processor time"),
        ("open('made', 'wb').write(bytes(5 << 20))", "File too large"),
        ("[open('/dev/null') for _ in range(100)]", "Too many open files"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("raise IndexError('list index out of range')", "IndexError"),
    ],
)
def test_what_a_decoder_must_not_do_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    """A job that misbehaves as an exploited or confused decoder would, in a real process."""
    (tmp_path / "harmful.py").write_text(
        "from avatar3d.io.decoder import server\n"
        f"def job(path):\n    {body}\n    yield {{}}, []\n"
        "server.JOBS['harm'] = job\nserver._PROCESSOR_SECONDS = 0.3\n"
        "def main(descriptor): server.main(descriptor)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(client, "_PROGRAM", client._PROGRAM.replace(server.__name__, "harmful"))
    monkeypatch.setattr(client, "_server", None)
    with pytest.raises(UserError, match=words) as caught:
        list(decoder.decoded("harm", tmp_path / "a.mp4"))
    assert "\n" not in str(caught.value)
    client._stop()


def test_nothing_is_watched_in_this_process() -> None:
    assert packets.watchdog.__module__ == packets.__name__


def test_a_relative_path_is_meant_from_where_the_asker_is(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in clip.parents[:2]:
        monkeypatch.chdir(folder)
        assert sum(1 for _ in read_frames(clip.relative_to(folder))) == 120


def test_limits_of_the_asker_are_kept_and_do_no_harm(clip: Path) -> None:
    program = (
        "import resource as r, sys; from avatar3d.io.video import read_frames\n"
        "r.setrlimit(r.RLIMIT_AS, (6 << 30, 6 << 30)); r.setrlimit(r.RLIMIT_NOFILE, (64, 64))\n"
        "r.setrlimit(r.RLIMIT_FSIZE, (1000, r.getrlimit(r.RLIMIT_FSIZE)[1]))\n"
        "print(sum(1 for _ in read_frames(sys.argv[1])), r.getrlimit(r.RLIMIT_FSIZE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", program, clip], capture_output=True, text=True)
    assert done.stdout.split() == ["120", "1000"], done.stderr
