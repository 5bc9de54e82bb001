"""What a full avatar costs the browser, counted at the browser's own interfaces."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avatar3d.avatar import SplatAvatar
from avatar3d.export import export

from .conftest import make_avatar
from .test_browser import psnr, set_face, snapshot

COUNT = 20_000
FACES = [
    {},
    {"expression": {"jawOpen": 0.7, "mouthFunnel": 0.4}, "yaw": 0.2},
    {"expression": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}, "pitch": -0.25},
    {"expression": {"mouthSmileLeft": 0.8, "browInnerUp": 0.6}, "yaw": -0.45, "roll": 0.15},
    {"gaze": (0.3, -0.2), "pitch": 0.2, "roll": -0.2},
]
COUNTING = """
window.cost = { frames: 0, uniforms: 0, textures: 0, buffers: 0 };
const size = (value) => value?.byteLength ?? (typeof value === "number" ? 4 : 0);
const gl = WebGL2RenderingContext.prototype;
for (const name of Object.getOwnPropertyNames(gl)) {
  const kind = /^uniform/.test(name) ? "uniforms"
    : /^(tex|compressedTex)(Sub)?Image/.test(name) ? "textures"
    : /^buffer(Sub)?Data$/.test(name) ? "buffers"
    : name === "drawElements" ? "frames" : null;
  if (!kind) continue;
  const original = gl[name];
  gl[name] = function (...values) {
    cost[kind] += kind === "frames" ? 1
      : kind === "uniforms" ? values.slice(1).reduce((sum, v) => sum + size(v), 0)
      : values.reduce((sum, v) => sum + (v?.byteLength ?? 0), 0);
    return original.apply(this, values);
  };
}
"""


@pytest.fixture(scope="module")
def full() -> SplatAvatar:
    return make_avatar(COUNT, 512)


@pytest.fixture(scope="module")
def file(full: SplatAvatar, tmp_path_factory: pytest.TempPathFactory) -> Path:
    start = time.monotonic()
    path = export(full, tmp_path_factory.mktemp("page") / "full.html")
    assert time.monotonic() - start < 5
    return path


@pytest.fixture(scope="module")
def page(open_page: Callable, file: Path) -> Iterator[Any]:
    with open_page(file, before=COUNTING) as opened:
        opened.first_frame = opened.run("avatar3d.ready.then(() => performance.now())")
        # What follows does not depend on the size of the window, but a software renderer does.
        opened.call(
            "Emulation.setDeviceMetricsOverride",
            width=320, height=240, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        yield opened
        assert opened.errors == []


def test_opens_soon_and_is_small(page: Any, file: Path, open_page: Callable):
    assert file.stat().st_size < 20e6
    first = page.first_frame  # milliseconds since navigation
    if first >= 3000:  # on a busy machine, once more
        with open_page(file) as again:
            first = again.run("avatar3d.ready.then(() => performance.now())")
    assert first < 3000


@pytest.mark.parametrize("face", FACES)
def test_draws_512_pixels_like_our_renderer(page: Any, full: SplatAvatar, face: dict):
    page.run("avatar3d.setIdle(false).then(() => avatar3d.reset())")
    set_face(page, **face)
    assert psnr(snapshot(page, 512, 512), full.render(**face)) > 40


def test_a_frame_costs_little_script_and_few_bytes(page: Any):
    """Bytes from the script to the graphics chip; processor time of the page's own thread."""
    page.run("avatar3d.setIdle(false).then(() => avatar3d.reset())")
    page.call("Performance.enable", timeDomain="threadTicks")
    page.run("avatar3d.play()")
    before = after = measured(page)
    deadline = time.monotonic() + 30
    while after["frames"] < before["frames"] + 4 and time.monotonic() < deadline:
        page.run("avatar3d.play().then(() => new Promise((done) => setTimeout(done, 300)))")
        after = measured(page)
    used = {name: after[name] - before[name] for name in after}
    frames = used["frames"]
    assert frames >= 4
    assert 300 < used["uniforms"] / frames < 1000
    assert used["buffers"] == 0
    # What the sort gives: the order in which to draw, two bytes for each Gaussian.
    assert used["textures"] / frames <= 2 * 2048 * np.ceil(COUNT / 2048)
    assert 0 < used["milliseconds"] / frames < 2


def measured(page: Any) -> dict[str, float]:
    counted = json.loads(page.run("JSON.stringify(cost)"))
    metrics = {m["name"]: m["value"] for m in page.call("Performance.getMetrics")["metrics"]}
    sort = page.run("avatar3d.statistics()")["sorting"]
    return {**counted, "milliseconds": 1000 * metrics["ScriptDuration"] - sort}
