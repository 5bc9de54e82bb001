"""The folder for a page of one's own, served and used as its own index.html does."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from avatar3d.avatar import SplatAvatar
from avatar3d.export import export
from avatar3d.head import ARKIT_52
from avatar3d.provenance import verify

from .test_browser import psnr


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def folder(avatar: SplatAvatar, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(avatar, tmp_path_factory.mktemp("site") / "ada", format="web")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder, while it lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(folder) as place:
        yield place


def test_a_page_embeds_and_drives_it(open_page: Callable, address: str, avatar: SplatAvatar):
    with open_page(f"{address}/index.html") as page:
        text = page.run(
            "import('./avatar3d.js').then(async ({ load }) => {"
            "  const box = document.createElement('div'); "
            "  box.style.cssText = 'width:200px;height:200px';"
            "  document.body.append(box); const face = await load('.', box);"
            "  face.setIdle(false); face.setExpression({ jawOpen: 0.6 });"
            "  face.setPose({ yaw: 0.2 });"
            "  const { data } = face.snapshot(); face.destroy();"
            "  return Array.from(data, (v) => String.fromCharCode(v)).join(''); })"
        )
        assert page.run("document.querySelectorAll('canvas').length") == 2
        assert page.errors == []
    size = avatar.camera.width
    found = np.frombuffer(text.encode("latin-1"), np.uint8).reshape(size, size, 4)[..., :3]
    assert psnr(found, avatar.render({"jawOpen": 0.6}, yaw=0.2)) > 45


def test_refuses_another_version(open_page: Callable, address: str, folder: Path):
    header = json.loads((folder / "avatar.json").read_text())
    (folder / "old").mkdir()
    (folder / "old" / "avatar.json").write_text(json.dumps({**header, "version": 1}))
    with open_page(f"{address}/index.html") as page:
        said = page.run(
            "import('./avatar3d.js').then(({ load }) => load('old', document.body))"
            ".catch((error) => error.message)"
        )
    assert "another version" in said


def test_types_name_what_python_has(folder: Path):
    """Every ARKit name, every method of the class and every track that a motion file holds."""
    types = (folder / "avatar3d.d.ts").read_text()
    assert re.findall(r'^  "(\w+)"', types, re.M) == list(ARKIT_52)
    module = (folder / "avatar3d.js").read_text()
    player = module[module.index("class Player") :]
    player = player[: player.index("\n}\n")]
    methods = set(re.findall(r"^  (?:async )?([a-z]\w+)\(", player, re.M))
    declared = set(re.findall(r"^  ([a-z]\w+)\(", types, re.M))
    assert declared == methods - {"constructor", "changed"}
    assert set(re.findall(r"^  (\w+)\?: number", types, re.M)) == {
        "expression", "head_pose", "torso_pose", "gaze",
    }  # fmt: skip


def test_says_that_it_is_synthetic(folder: Path):
    assert verify(folder / "avatar.json").state == "valid"


def test_the_page_to_copy_is_short(folder: Path):
    assert len((folder / "index.html").read_text().splitlines()) <= 12
