"""Files made to do harm: nothing runs, nothing else is read, nothing is called, memory is bounded.

All are opened by one process under an audit hook (`tools/mutate_files.py`); what FFmpeg's C code
opens, which no hook sees, is watched by inotify and by a listening socket.
"""

import ctypes
import hashlib
import importlib.util
import io
import json
import os
import pickle
import socket
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from avatar3d.avatar import SplatAvatar, SplatState
from avatar3d.export import export
from avatar3d.io.images import write_image
from avatar3d.motion import Motion

TOOL = Path(__file__).parents[2] / "tools" / "mutate_files.py"
OPENS = {"traversal.a3d", "target.a3d", "linked.a3d"}  # harmless, so they may
ATTACKS: dict[str, Callable[["Workshop", Path], None]] = {}


def attack(name: str) -> Callable[[Callable[["Workshop", Path], None]], object]:
    def register(make: Callable[["Workshop", Path], None]) -> object:
        ATTACKS[name] = make
        return make

    return register


class Workshop:
    """Whole files to start from, and things that no attack may touch."""

    def __init__(self, folder: Path, state: SplatState) -> None:
        self.folder = folder
        plate = np.zeros((int(state.size[1]), int(state.size[0]), 3), np.uint8)
        motion = Motion(fps=25, expression=np.zeros((3, 52), np.float32))
        self.avatar = SplatAvatar(state, plate, motion, driver=None, info={"name": "nobody"})
        self.whole = folder / "whole.a3d"
        self.avatar.save(self.whole)
        motion.save(folder / "whole.npz")
        export(self.avatar, folder / "whole.ply")
        self.secret = folder / "secret"
        self.secret.mkdir()
        (self.secret / "canary.ts").write_bytes(b"G" * 188 * 20)
        write_image(self.secret / "canary.png", plate[..., 0])
        self.door = socket.create_server(("127.0.0.1", 0))
        self.door.settimeout(0)
        self.address = f"http://127.0.0.1:{self.door.getsockname()[1]}/a.ts"

    def members(self) -> dict[str, bytes]:
        with zipfile.ZipFile(self.whole) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def write(self, path: Path, change: Callable[[dict[str, bytes], dict[str, Any]], None]) -> None:
        """The avatar with changed members, whose checksums are right."""
        members = self.members()
        manifest = json.loads(members.pop("manifest.json"))
        change(members, manifest)
        manifest["members"] = {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in members.items()
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("manifest.json", json.dumps(manifest))
            for name, data in members.items():
                archive.writestr(name, data)

    def tensors(self, path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
        def replaced(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
            arrays = dict(load_tensors(members["splats.safetensors"]))
            change(arrays)
            members["splats.safetensors"] = save_tensors(arrays)

        self.write(path, replaced)


class Evil:
    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.where}",)


@attack("media playlist.mp4")
def _(shop: Workshop, path: Path) -> None:
    path.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n"
        f"{shop.secret / 'canary.ts'}\n#EXTINF:5,\n{shop.address}\n#EXT-X-ENDLIST\n"
    )


@attack("media list.mov")
def _(shop: Workshop, path: Path) -> None:
    path.write_text(f"ffconcat version 1.0\nfile '{shop.secret / 'canary.ts'}'\n")


@attack("media dash.mp4")
def _(shop: Workshop, path: Path) -> None:
    path.write_text(
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        f"<Period><AdaptationSet><Representation><BaseURL>{shop.address}</BaseURL>"
        "</Representation></AdaptationSet></Period></MPD>"
    )


@attack("media session.mp4")
def _(shop: Workshop, path: Path) -> None:
    path.write_text(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"
    )


@attack("media huge.y4m")
def _(shop: Workshop, path: Path) -> None:
    path.write_bytes(b"YUV4MPEG2 W30000 H30000 F25:1 Ip C420jpeg\nFRAME\n" + bytes(1000))


@attack("media huge.mp4")
def _(shop: Workshop, path: Path) -> None:
    """A picture track that claims 30000 x 30000, as does the stream in it."""
    import av

    with av.open(str(path), "w") as output:
        stream = output.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        output.mux(stream.encode(av.VideoFrame(64, 64, "yuvj420p")))
        output.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    side = struct.pack(">HH", 64, 64)
    while (place := data.find(side)) >= 0:  # the sample entry and the picture's own header
        data[place : place + 4] = struct.pack(">HH", 30000, 30000)
    path.write_bytes(data)


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    blocks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + blocks


@attack("image huge.png")
def _(shop: Workshop, path: Path) -> None:
    path.write_bytes(_png(30000, 30000, zlib.compress(bytes(10_000_000))))


@attack("image script.png")
def _(shop: Workshop, path: Path) -> None:
    """PostScript, for which pillow would start Ghostscript."""
    path.write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 80\n"
        f"({shop.secret / 'made'}) (w) file closefile\n%%EOF\n"
    )


@attack("avatar bomb.a3d")
def _(shop: Workshop, path: Path) -> None:
    shop.write(path, lambda members, _: members.update({"splats.safetensors": bytes(300 << 20)}))


@attack("avatar liar.a3d")
def _(shop: Workshop, path: Path) -> None:
    """A bomb that says it is small."""
    shop.write(path, lambda members, _: members.update({"motion.safetensors": bytes(200 << 20)}))
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 200 << 20), struct.pack("<I", 200)))


@attack("avatar traversal.a3d")
def _(shop: Workshop, path: Path) -> None:
    shop.write(
        path,
        lambda members, _: members.update({"../../made": b"x", str(shop.secret / "made"): b"x"}),
    )


@attack("avatar linked.a3d")
def _(shop: Workshop, path: Path) -> None:
    shop.write(path, lambda members, _: None)
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, str(shop.secret / "canary.ts"))


@attack("avatar target.a3d")
def _(shop: Workshop, path: Path) -> None:
    evil = {"_target_": "os.system", "_args_": [f"touch {shop.secret / 'made'}"]}
    shop.write(path, lambda _, manifest: manifest.update(info={**evil, "training": evil}))


@attack("avatar pickled.a3d")
def _(shop: Workshop, path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil(shop.secret / "made")))


@attack("avatar overlap.a3d")
def _(shop: Workshop, path: Path) -> None:
    """Ten thousand entries of the same 10 MB: what a small file inflates to without end."""
    body = zlib.compress(bytes(10 << 20), 9)[2:-4]
    crc = zlib.crc32(bytes(10 << 20))
    fixed = struct.pack("<HHHIII", 8, 0, 0, crc, len(body), 10 << 20)
    local = struct.pack("<IHH", 0x04034B50, 20, 0) + fixed + struct.pack("<HH", 1, 0) + b"a" + body
    entries = b""
    for number in range(10_000):
        name = f"{number:05d}".encode()
        entries += struct.pack("<IHHH", 0x02014B50, 20, 20, 0) + fixed
        entries += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 10_000, 10_000, len(entries), len(local), 0)
    path.write_bytes(local + entries + end)


@attack("avatar deep.a3d")
def _(shop: Workshop, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", "[" * 200_000)


@attack("avatar nan.a3d")
def _(shop: Workshop, path: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["position.step"] = np.array(np.nan, np.float32)

    shop.tensors(path, change)


@attack("avatar broadcast.a3d")
def _(shop: Workshop, path: Path) -> None:
    """Two small arrays whose product is 40 GB."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["basis.planes"] = np.zeros((1, 100_000, 1), np.uint8)
        arrays["basis.step"] = np.zeros((1, 100_000), np.float32)

    shop.tensors(path, change)


@attack("avatar picture.a3d")
def _(shop: Workshop, path: Path) -> None:
    shop.tensors(path, lambda arrays: arrays.update({"size": np.array([1 << 30, 1 << 30])}))


@attack("avatar plate.a3d")
def _(shop: Workshop, path: Path) -> None:
    shop.write(path, lambda members, _: members.update({"background.png": _png(30000, 30000)}))


@attack("avatar shape.a3d")
def _(shop: Workshop, path: Path) -> None:
    head = json.dumps({"position": {"dtype": "F32", "shape": [1 << 40, 3], "data_offsets": [0, 8]}})
    tensors = struct.pack("<Q", len(head)) + head.encode() + bytes(8)
    shop.write(path, lambda members, _: members.update({"splats.safetensors": tensors}))


@attack("ply many.ply")
def _(shop: Workshop, path: Path) -> None:
    data = (shop.folder / "whole.ply").read_bytes()
    count = f"element vertex {len(shop.avatar.state)}".encode()
    path.write_bytes(data.replace(count, f"element vertex {1 << 40}".encode()))


@attack("ply nan.ply")
def _(shop: Workshop, path: Path) -> None:
    data = (shop.folder / "whole.ply").read_bytes()
    path.write_bytes(data[:-8] + struct.pack("<f", np.nan) + data[-4:])


@attack("ply wide.ply")
def _(shop: Workshop, path: Path) -> None:
    columns = "".join(f"property double a{n}\n" for n in range(3000))
    path.write_text(
        f"ply\nformat binary_little_endian 1.0\nelement vertex 9999999\n{columns}end_header\n"
    )


def _npz(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


@attack("motion pickled.npz")
def _(shop: Workshop, path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil(shop.secret / "made")], object), allow_pickle=True)
    _npz(path, header=buffer.getvalue(), expression=buffer.getvalue())


@attack("motion deep.npz")
def _(shop: Workshop, path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array("[" * 100_000))
    _npz(path, header=buffer.getvalue())


@attack("motion large.npz")
def _(shop: Workshop, path: Path) -> None:
    shape = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({1 << 40}, 52)}}"
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(shape)) + shape.encode()
    _npz(path, header=head, expression=head + bytes(100))


@attack("motion expression.npz")
def _(shop: Workshop, path: Path) -> None:
    """An array header that is a program."""
    text = f"__import__('os').system('touch {shop.secret / 'made'}')"
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    _npz(path, header=head, expression=head)


@attack("keyframes code.yaml")
def _(shop: Workshop, path: Path) -> None:
    path.write_text(f"keys: !!python/object/apply:os.system ['touch {shop.secret / 'made'}']\n")


@attack("keyframes laughs.yaml")
def _(shop: Workshop, path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 12):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    path.write_text("\n".join([*lines, "keys: [{time: *a11, yaw: *a11}]", ""]))


@attack("consent code.yaml")
def _(shop: Workshop, path: Path) -> None:
    path.write_text("who: !!python/name:os.system\nscope: a\ndate: 2026-01-01\n")


def _subject(shop: Workshop, path: Path) -> None:
    """A folder with all but a tracking, which is read first."""
    for kind in ("frames", "mattes", "parsing"):
        (path / kind).mkdir(parents=True)
    info = {
        "source_name": "a", "source_sha256": "b", "fps": 25, "frames": 1, "width": 96, "height": 80,
    }  # fmt: skip
    (path / "subject.json").write_text(json.dumps(info))


@attack("subject linked.subject")
def _(shop: Workshop, path: Path) -> None:
    _subject(shop, path)
    (path / "tracking.npz").symlink_to(shop.secret / "canary.ts")


@attack("subject deep.subject")
def _(shop: Workshop, path: Path) -> None:
    _subject(shop, path)
    (path / "subject.json").write_text('{"warnings":' + "[" * 200_000)


@attack("subject pickled.subject")
def _(shop: Workshop, path: Path) -> None:
    _subject(shop, path)
    (path / "tracking.npz").write_bytes(pickle.dumps(Evil(shop.secret / "made")))


@attack("verify packet.html")
def _(shop: Workshop, path: Path) -> None:
    seal = "." * 160
    path.write_text(f"avatar3d:statement='W10=' avatar3d:certificate='AAAA' avatar3d:seal='{seal}'")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("mutate_files", TOOL)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def shop(small_state: SplatState, tmp_path: Path) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path, small_state)
    yield workshop
    workshop.door.close()


class Watch:
    """Whether any process opens or reads a file in a folder (inotify)."""

    def __init__(self, folder: Path) -> None:
        self.libc = ctypes.CDLL(None)
        self.descriptor = self.libc.inotify_init1(os.O_NONBLOCK)
        opened, accessed, created = 0x20, 0x1, 0x100
        flags = opened | accessed | created
        assert self.libc.inotify_add_watch(self.descriptor, bytes(folder), flags) >= 0

    def events(self) -> bytes:
        try:
            return os.read(self.descriptor, 4096)
        except BlockingIOError:
            return b""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify is Linux's")
def test_no_crafted_file_does_harm(shop: Workshop, tool: ModuleType) -> None:
    files = [("avatar", shop.whole)]
    folder = shop.folder / "attacks"
    folder.mkdir()
    for name, make in ATTACKS.items():
        kind, _, file = name.partition(" ")
        make(shop, folder / file)
        files.append((kind, folder / file))
    watch = Watch(shop.secret)
    answers = tool.examine(files)
    assert [answer[1] for answer in answers] == [path.name for _, path in files]
    assert tool.problems(answers[0], whole=True) == ""
    harm = {f"{a[0]} {a[1]}": tool.problems(a) for a in answers[1:] if tool.problems(a)}
    assert harm == {}
    opened = {a[1] for a in answers[1:] if a[2] == "opened"}
    assert opened <= OPENS | {"packet.html"}
    assert watch.events() == b""
    assert sorted(p.name for p in shop.secret.iterdir()) == ["canary.png", "canary.ts"]
    with pytest.raises(BlockingIOError):
        shop.door.accept()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify is Linux's")
def test_the_watchmen_are_awake(shop: Workshop, tool: ModuleType, tmp_path: Path) -> None:
    """What the test above looks for is seen when it happens: by FFmpeg without our limits."""
    import av

    watch = Watch(shop.secret)
    ATTACKS["media playlist.mp4"](shop, tmp_path / "p.m3u8")
    with pytest.raises((av.error.FFmpegError, ValueError, OSError)):  # no such reader by content
        av.open(str(tmp_path / "p.m3u8"), format="hls", timeout=2)
    assert watch.events() != b""


def test_a_damaged_sample_of_every_kind(shop: Workshop, tool: ModuleType) -> None:
    """A few of the files that `tools/mutate_files.py` makes by the thousand."""
    rng, folder = np.random.default_rng(7), shop.folder / "m"
    folder.mkdir()
    files = [("avatar", shop.whole)]
    for kind, source in (("avatar", "a3d"), ("motion", "npz"), ("ply", "ply"), ("verify", "ply")):
        whole = shop.folder / f"whole.{source}"
        files += [(kind, tool.damaged(whole, folder, n, rng)) for n in range(24)]
    (folder / "follow").write_text(str(shop.secret / "canary.ts"))
    files.append(("follow", folder / "follow"))
    answers = tool.examine(files)
    assert len(answers) == len(files)
    assert "canary.ts" in tool.problems(answers.pop())  # the hook sees a file that is led elsewhere
    assert {a[1]: tool.problems(a) for a in answers if tool.problems(a)} == {}
