"""The side of the process that wants pictures and sound."""

import atexit
import contextlib
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.io.media import MAX_PIXELS

__all__ = ["decoded"]

SECONDS = 60.0
"""Without any word from the other process, before it is given up; see also `server.py`."""
_MAX_SLOTS, _MAX_BYTES = 8, MAX_PIXELS * 9
_MAX_LINE = 1 << 16
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from avatar3d.io.decoder.server import main; main(int(sys.argv[1]))"
)
_lock = threading.Lock()
_server: "_Server | None" = None


def decoded(job: str, path: Path, **wish: Any) -> Iterator[tuple[dict[str, Any], list[np.ndarray]]]:
    """What a job of the decoding process yields, one after the other.

    Args:
        job: name of one of `server.JOBS`, which are generators.
        path: the file.
        wish: further arguments of the job, as JSON.

    Yields:
        A table, and arrays of bytes (N,) uint8 that hold until the next is asked for.

    Raises:
        UserError: what the job says is wrong with the file, or that it ended or used up its
            process.
    """
    if not hasattr(os, "fork"):  # Windows: without protection, in this process
        from avatar3d.io.decoder.server import JOBS

        yield from JOBS[job](path, **wish)
        return
    ours, theirs = socket.socketpair()
    with ours, open(_memory(), "r+b", buffering=0) as memory:
        with theirs:
            request = {"job": job, "path": os.fspath(path), "wish": wish, "folder": _folder()}
            _ask(request, theirs, memory.fileno())
        ours.settimeout(SECONDS)
        with ours.makefile("rb") as lines:
            yield from _received(path, ours, lines, memory)


def _folder() -> str | None:
    """The working folder now, which relative paths are meant from; None if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _received(
    path: Path, control: socket.socket, lines: Any, memory: Any
) -> Iterator[tuple[dict[str, Any], list[np.ndarray]]]:
    view, room = np.empty(0, np.uint8), 0
    while True:
        told = _line(path, lines)
        if "died" in told:
            raise UserError(_epitaph(path, int(told["died"])))
        if "error" in told:
            raise UserError(str(told["error"]))
        if "end" in told:
            return
        if "room" in told:
            slots, room = int(told["slots"]), int(told["room"])
            if not (0 < slots <= _MAX_SLOTS and 0 < room <= _MAX_BYTES):
                raise UserError(_epitaph(path, 0))
            view = _mapped(path, memory, slots * room)
            _send(control, bytes(range(slots)))
        elif "header" in told:
            slot, sizes = int(told["slot"]), [int(size) for size in told["sizes"]]
            if min(sizes, default=0) < 0 or sum(sizes) > room or (sizes and slot < 0):
                raise UserError(_epitaph(path, 0))
            ends = slot * room + np.cumsum([0, *sizes])
            yield told["header"], [view[a:b] for a, b in pairwise(ends)]
            if sizes:
                _send(control, bytes([slot]))


def _line(path: Path, lines: Any) -> dict[str, Any]:
    """The next message."""
    while True:
        try:
            line = lines.readline(_MAX_LINE)
        except TimeoutError as error:
            raise UserError(
                f"Decoding {path} came to a halt for {SECONDS:.0f} s; re-encode it, or copy it to "
                "a faster disk."
            ) from error
        except OSError:
            line = b""
        if not line:
            raise UserError(_epitaph(path, 0))
        with contextlib.suppress(ValueError):  # a last word cut short: the server's follows
            told = json.loads(line)
            if isinstance(told, dict) and told:
                return told


def _epitaph(path: Path, status: int) -> str:
    """What to say after the process that decoded has ended, by its exit status."""
    cause = f"exit code {status}"
    if status <= 0:
        cause = {
            0: "it ended without a word", -signal.SIGPROF: "it used up its processor time",
            -signal.SIGXCPU: "it used up its processor time",
        }.get(status, "")  # fmt: skip
        cause = cause or f"stopped by {signal.Signals(-status).name}"
    return f"{path} made the decoder fail ({cause}); it is damaged or harmful: re-encode it."


def _send(control: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the process has ended; its last word is still to be read
        control.sendall(data)


def _memory() -> int:
    """Descriptor of a piece of memory to share, which has no name and so leaves nothing behind."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return os.memfd_create("avatar3d", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile(prefix="avatar3d-") as file:
        return os.dup(file.fileno())


def _mapped(path: Path, memory: Any, size: int) -> np.ndarray:
    """The memory at `size` bytes, (size,) uint8, not to be shrunk any more where the system can."""
    try:
        with _sizes_unlimited():
            memory.truncate(size)
        view = mmap.mmap(memory.fileno(), size, access=mmap.ACCESS_READ)
    except OSError as error:
        raise UserError(
            f"{path} cannot be decoded: {size / 1e6:.1f} MB of shared memory cannot be had "
            f"({error.strerror}); free memory, or raise the limit of file sizes (`ulimit -f`)."
        ) from error
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return np.frombuffer(view, np.uint8)


@contextlib.contextmanager
def _sizes_unlimited() -> Iterator[None]:
    """Lift the limit of file sizes as far as we may: shared memory falls under it, but is none."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class _Server:
    """The process that makes a copy of itself for every file; it ends when this one does."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.control, theirs = socket.socketpair()
        paths = json.dumps([os.path.abspath(entry) for entry in sys.path])
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), paths],
                pass_fds=[theirs.fileno()], start_new_session=True,
                env={"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", **os.environ},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

    def ask(self, request: bytes, descriptors: list[int]) -> bool:
        """Whether it has taken the request."""
        try:
            socket.send_fds(self.control, [request], descriptors)
            return self.control.recv(1) == b"k"
        except OSError:
            return False

    def close(self) -> None:
        self.control.close()
        if self.owner == os.getpid():
            self.process.wait()


def _ask(request: dict[str, Any], control: socket.socket, memory: int) -> None:
    """Hand a job to the server, which is started if there is none of this process."""
    global _server
    message = json.dumps(request).encode()
    with _lock:
        for _ in range(2):
            if _server is None or _server.owner != os.getpid():
                _server = _Server()
            if _server.ask(message, [control.fileno(), memory]):
                return
            _server.close()
            _server = None
    raise UserError(
        "The process that decodes video and sound cannot be started; see `avatar3d doctor`."
    )


@atexit.register
def _stop() -> None:
    global _server
    if _server is not None:
        _server.close()
        _server = None
