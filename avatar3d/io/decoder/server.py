"""The process that decodes: a server that forks, and its copies, one for each file.

The server takes requests from the process that started it, tells it when a copy has died, kills
copies that nobody listens to any more, and ends when that process does, however it does.
"""

import json
import mmap
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.io import packets
from avatar3d.io.decoder.pictures import frames, probe
from avatar3d.io.decoder.sounds import samples, sound_track, track

__all__ = ["JOBS", "main"]

Job = Callable[..., Iterator[tuple[dict[str, Any], list[np.ndarray]]]]
JOBS: dict[str, Job] = {
    "frames": frames, "probe": probe, "samples": samples, "sound track": sound_track,
    "track": track,
}  # fmt: skip
_MEMORY = 3 << 29
"""Bytes of address space, libraries and threads included, beside those of the frames."""
_MOST_MEMORY = 8 << 30
_PROCESSOR_SECONDS = 8.0
"""Of all threads together, for one packet of the file."""
_FILES = 24
_WRITTEN = 1 << 22  # bytes of one file: the table of a tone curve
_SLOTS, _SHARED = 4, 1 << 29
_BEAT = 5.0  # seconds between signs of life


def main(descriptor: int) -> None:
    """Serve until the process that started this one ends."""
    import av  # noqa: F401  loaded here so that no copy has to

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=descriptor)
    wake, awake = os.pipe()
    os.set_blocking(awake, False)
    signal.set_wakeup_fd(awake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    copies: dict[int, socket.socket] = {}
    while True:
        watched = select.poll()
        watched.register(control, select.POLLIN)
        watched.register(wake, select.POLLIN)
        for line in copies.values():
            watched.register(line, 0)  # tells of the other end's closing, which is always told
        ready = dict(watched.poll())
        if wake in ready:
            os.read(wake, 4096)
        for pid, line in copies.items():
            if line.fileno() in ready:
                os.kill(pid, signal.SIGKILL)
        _bury(copies)
        if control.fileno() in ready and not _accept(control, copies):
            break
    for pid in copies:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _bury(copies: dict[int, socket.socket]) -> None:
    """Tell of copies that have ended."""
    for pid, line in list(copies.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with copies.pop(pid):
                told = json.dumps({"died": os.waitstatus_to_exitcode(status)})
                try:
                    line.setblocking(False)
                    line.send(f"\n{told}\n".encode())
                except OSError:
                    continue


def _accept(control: socket.socket, copies: dict[int, socket.socket]) -> bool:
    """Make a copy for a request; False when nobody will ask any more."""
    try:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 2)
    except OSError:
        return False
    if not message:
        return False
    line, memory = socket.socket(fileno=descriptors[0]), descriptors[1]
    pid = os.fork()
    if pid == 0:
        try:
            control.close()
            for other in copies.values():
                other.close()
            _work(json.loads(message), line, memory)
        finally:
            os._exit(0)
    os.close(memory)
    copies[pid] = line
    control.send(b"k")
    return True


def _work(request: dict[str, Any], line: socket.socket, memory: int) -> None:
    """Do one job, and say how it went."""
    path = Path(request["path"])
    pipe = _Pipe(line, memory)
    _limit()
    packets.watchdog, packets.expected_pixels = pipe.beat, _allow
    try:
        if request["folder"] is not None:  # the asker may have moved since the server began
            os.chdir(request["folder"])
        pipe.beat()
        for header, planes in JOBS[request["job"]](path, **request["wish"]):
            pipe.put(header, planes)
        pipe.tell({"end": True})
    except UserError as error:
        pipe.tell({"error": str(error)})
    except OSError as error:
        pipe.tell({"error": _explained(path, error.strerror or str(error))})
    except MemoryError:
        pipe.tell({"error": _explained(path, "it takes more memory than a video should")})
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        pipe.tell({"error": _explained(path, f"{type(error).__name__}: {said}"[:200])})


def _explained(path: Path, reason: str) -> str:
    return f"{path} cannot be decoded ({reason}); it may be damaged: re-encode it."


class _Pipe:
    """What a copy says, and where it puts what it decodes."""

    def __init__(self, line: socket.socket, memory: int) -> None:
        self._line, self._memory = line, memory
        self._view = np.empty(0, np.uint8)
        self._room, self._free = 0, bytearray()
        self._last = time.monotonic()

    def tell(self, message: dict[str, Any]) -> None:
        try:
            self._line.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            os._exit(0)  # nobody listens
        self._last = time.monotonic()

    def beat(self) -> None:
        """Called between packets: they are the progress that the limits ask for."""
        signal.setitimer(signal.ITIMER_PROF, _PROCESSOR_SECONDS)
        if time.monotonic() - self._last > _BEAT:
            self.tell({})

    def put(self, header: dict[str, Any], planes: list[np.ndarray]) -> None:
        """Copy (N,) uint8 arrays to shared memory, when there is room, and tell of them."""
        sizes = [plane.size for plane in planes]
        if not sizes:
            self.tell({"header": header, "slot": 0, "sizes": []})
            return
        if not self._room:
            self._room = int(header.get("room", 0)) or sum(sizes)
            slots = max(2, min(_SLOTS, _SHARED // self._room))
            self.tell({"slots": slots, "room": self._room})
            self._free += self._received()
            self._view = np.frombuffer(mmap.mmap(self._memory, slots * self._room), np.uint8)
        if not self._free:
            self._free += self._received()
        slot = self._free.pop(0)
        place = slot * self._room
        for plane in planes:
            self._view[place : place + plane.size] = plane
            place += plane.size
        self.tell({"header": header, "slot": slot, "sizes": sizes})

    def _received(self) -> bytes:
        got = self._line.recv(64)
        if not got:
            os._exit(0)
        return got


def _limit() -> None:
    """Take from this process what decoding a file does not need."""
    import resource

    for kind, most in (
        (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, _WRITTEN),
        (resource.RLIMIT_NOFILE, _FILES),
    ):  # fmt: skip
        _lower(kind, most, most)
    _limit_memory(_MEMORY)


def _allow(pixels: int) -> None:
    """Raise the limit to what frames of that many pixels need: references and threads."""
    _limit_memory(min(_MEMORY + pixels * 3 * 48, _MOST_MEMORY))


def _limit_memory(most: int) -> None:
    import resource

    if sys.platform == "darwin":  # which counts what is only reserved, and so refuses everything
        return
    _lower(resource.RLIMIT_AS, most, _MOST_MEMORY)


def _lower(kind: int, soft: int, hard: int) -> None:
    """Set a limit, or keep the one there is where it may not be raised to that."""
    import resource

    now = resource.getrlimit(kind)[1]
    most = hard if now == resource.RLIM_INFINITY else min(hard, now)
    resource.setrlimit(kind, (min(soft, most), most))
