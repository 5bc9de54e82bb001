"""Our files in other people's programs, from npm; skipped where they cannot be had."""

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from avatar3d.avatar import SplatAvatar
from avatar3d.avatar.canonical import canonical_cloud, posed_clouds
from avatar3d.export import export
from avatar3d.head import ARKIT_INDEX
from avatar3d.io.ply import SH_C0
from avatar3d.kernels import rasterize
from avatar3d.motion import Motion

from .test_browser import psnr
from .test_web import served

pytestmark = pytest.mark.slow
PACKAGES = {
    "@playcanvas/splat-transform": "2.7.1", "gltf-validator": "2.0.0-dev.3.10",
    "@sparkjsdev/spark": "2.2.0", "three": "0.180.0", "typescript": "7.0.2",
    "gaussian-splat-renderer-for-lam": "0.0.8",
}  # fmt: skip
TURN = np.array([-1.0, -1.0, 1.0])
"""From our head frame to what splat-transform calls PLY axes: half a turn about z."""


@pytest.fixture(scope="session")
def npm(request: pytest.FixtureRequest) -> Path:
    """A folder with node_modules of `PACKAGES`, kept between runs."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("no node and npm on this machine")
    folder = request.config.cache.mkdir("npm")
    wanted = json.dumps({"private": True, "dependencies": PACKAGES})
    package = folder / "package.json"
    if not package.is_file() or package.read_text() != wanted or not (folder / "done").is_file():
        package.write_text(wanted)
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"npm cannot fetch the readers: {done.stderr.strip()[-200:]}")
        (folder / "done").touch()
    return folder


def node(npm: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["node", *arguments], cwd=npm, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def converted(npm: Path, source: Path, target: Path) -> Path:
    program = npm / "node_modules/@playcanvas/splat-transform/bin/cli.mjs"
    node(npm, str(program), "--quiet", "--overwrite", "--gpu", "cpu", str(source), str(target))
    return target


@pytest.mark.parametrize("name", ["ply", "spz", "splat"])
def test_splat_transform_finds_the_same_gaussians(
    npm: Path, avatar: SplatAvatar, tmp_path: Path, name: str
):
    """Every column's mean and deviation, and the centres one by one."""
    source = export(avatar, tmp_path / f"a.{name}")
    with open(converted(npm, source, tmp_path / "a.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    table = {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
    head = canonical_cloud(avatar.state)
    found = np.stack([table[axis] for axis in "xyz"], 1)
    # A PLY has the axes of its writer; SPZ says its own, and the reader turns it.
    signs = [TURN, np.array([1.0, -1.0, -1.0])]
    expected = min((head.means * s for s in signs), key=lambda e: distance(e, found))
    assert distance(expected, found) < 1e-4
    visible = {
        **{f"f_dc_{c}": (head.colors[:, c] - 0.5) / SH_C0 for c in range(3)},
        **{f"scale_{c}": head.log_scales[:, c] for c in range(3)},
    }
    for column, values in visible.items():
        values = values.clip(-0.5 / SH_C0, 0.5 / SH_C0) if column[0] == "f" else values
        assert table[column].mean() == pytest.approx(values.mean(), abs=0.02), column
        assert table[column].std() == pytest.approx(values.std(), abs=0.02), column


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Largest distance between two sets of points, each in the order of its first column."""
    order = [np.lexsort(points.round(4).T) for points in (first, second)]
    return float(np.abs(np.sort(first[order[0]], 0) - np.sort(second[order[1]], 0)).max())


def test_sog_is_what_splat_transform_reads_back(
    npm: Path, avatar: SplatAvatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = f"{npm / 'node_modules/.bin'}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    source = export(avatar, tmp_path / "a.sog")
    with open(converted(npm, source, tmp_path / "a.csv"), newline="") as file:
        assert len(list(csv.DictReader(file))) == len(avatar.state)


@pytest.mark.parametrize("name", ["glb", "moving glb", "splat-glb"])
def test_the_validator_finds_no_error(
    npm: Path, avatar: SplatAvatar, headed_glb: Path, tmp_path: Path, name: str
):
    """With a texture and still; without one and moving."""
    path = headed_glb
    if name != "glb":
        options = {"motion": avatar.idle_motion} if name.startswith("moving") else {}
        path = export(avatar, tmp_path / "a.glb", format=name.split()[-1], **options)
    script = (
        "const v = require('gltf-validator'), fs = require('fs');"
        "v.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])), { maxIssues: 50 })"
        ".then((r) => console.log(JSON.stringify(r.issues)))"
    )
    issues = json.loads(node(npm, "-e", script, str(path)))
    errors = [m for m in issues["messages"] if m["severity"] == 0]
    # Released before the extension, the validator knows no attribute names with a colon.
    new = "attributes/KHR_gaussian_splatting:"
    errors = [m for m in errors if not (name == "splat-glb" and new in m["pointer"])]
    assert errors == []


def test_spark_loads_ply_and_spz(
    npm: Path, open_page: Callable, avatar: SplatAvatar, tmp_path: Path
):
    site = tmp_path / "site"
    site.mkdir()
    (site / "modules").symlink_to(npm / "node_modules")
    for name in ("ply", "spz"):
        export(avatar, site / f"a.{name}")
    imports = {
        "three": "/modules/three/build/three.module.js",
        "three/addons/": "/modules/three/examples/jsm/",
        "@sparkjsdev/spark": "/modules/@sparkjsdev/spark/dist/spark.module.js",
    }
    (site / "index.html").write_text(
        f'<script type="importmap">{json.dumps({"imports": imports})}</script>'
        '<link rel="icon" href="data:,"><script type="module">'
        "import { SplatMesh } from '@sparkjsdev/spark';"
        "window.centres = async (url) => { const m = new SplatMesh({ url });"
        "await m.initialized; const out = [];"
        "m.forEachSplat((i, c, s, q, o) => out.push([c.x, c.y, c.z])); return out; };"
        "window.loaded = true;</script>"
    )
    with served(site) as address, open_page(f"{address}/index.html") as page:
        page.run(
            "new Promise((d) => { const t = setInterval(() => window.loaded && "
            "(clearInterval(t), d()), 50); })"
        )
        found: dict[str, Any] = {
            name: np.array(page.run(f"centres('a.{name}')")) for name in ("ply", "spz")
        }
    head = canonical_cloud(avatar.state).means
    np.testing.assert_allclose(found["ply"], head * (1, -1, -1), atol=1e-4)
    np.testing.assert_allclose(found["spz"], head, atol=2e-4)


def test_the_renderer_of_lam_shows_what_we_do(
    npm: Path, open_page: Callable, avatar: SplatAvatar, tmp_path: Path
):
    """Neutral and with an open mouth, seen by that renderer's own camera."""
    still = Motion(25, expression=np.zeros((2, 52), np.float32))
    export(avatar, tmp_path / "face.zip", motion=still)
    package = npm / "node_modules/gaussian-splat-renderer-for-lam"
    (tmp_path / "lam").symlink_to(package)
    (tmp_path / "index.html").write_text(
        '<link rel="icon" href="data:,"><body style="margin:0">'
        '<div id="box" style="width:256px;height:256px"></div><script type="module">'
        "import { GaussianSplatRenderer } from "
        "'./lam/build/gaussian-splat-renderer-for-lam.module.js';"
        "window.weights = {}; window.loaded = new Promise((done) => {"
        "GaussianSplatRenderer.getInstance(document.getElementById('box'),"
        "`${location.origin}/face.zip`, { backgroundColor: '0xffffff',"
        "getChatState: () => 'Idle', getExpressionData: () => ({ ...weights }),"
        "loadProgress: (p) => p === 1 && done(1) }).then((r) => { window.face = r; }); });"
        # Some frames later; without the fading in, which takes 200 of them.
        "window.drawn = async () => { const mesh = face.viewer.splatMesh;"
        "mesh.visibleRegionFadeStartRadius = mesh.visibleRegionRadius;"
        "const { render } = face.viewer.renderer.info, start = render.frame;"
        "while (render.frame < start + 3) await new Promise((d) => setTimeout(d, 50)); };"
        "</script></body>"
    )
    pictures = []
    with served(tmp_path) as address, open_page(f"{address}/index.html") as page:
        page.run("loaded")
        for weights in ({}, {"jawOpen": 0.5}):
            page.run(f"weights = {json.dumps(weights)}")
            page.run("drawn()")
            pictures.append(iio.imread(page.screenshot())[:256, :256, :3])
        place = page.run("Array.from(face.getCamera().matrixWorld.elements)")
        assert page.errors == []
    T_world_camera = np.array(place).reshape(4, 4).T @ np.diag([1.0, -1, -1, 1])
    T_world_head = np.eye(4)
    T_world_head[:3, 3] = 0, 1.7, 0.3
    viewmat = torch.tensor(np.linalg.inv(T_world_camera) @ T_world_head).float()
    focal = 128 / np.tan(np.deg2rad(25))
    K = torch.tensor([[focal, 0, 128], [0, focal, 128], [0, 0, 1]]).float()
    # Their jaw opens by 1.2 times the weight.
    rows = np.zeros((2, 52), np.float32)
    rows[1, ARKIT_INDEX["jawOpen"]] = 0.6
    for found, cloud in zip(
        pictures, posed_clouds(avatar, Motion(25, expression=rows)), strict=True
    ):
        alpha = 1 / (1 + np.exp(-cloud.opacity))
        arrays = cloud.means, cloud.quats, np.exp(cloud.log_scales), alpha, cloud.colors
        image, _ = rasterize(
            *(torch.from_numpy(a) for a in arrays), viewmat, K, 256, 256, torch.ones(3)
        )
        expected = image.clamp(0, 1).numpy() * 255
        assert psnr(found, expected) > 30
    assert psnr(pictures[0], pictures[1]) < 30


def test_the_viewer_has_no_type_errors(npm: Path, avatar: SplatAvatar, tmp_path: Path):
    """The scripts by their JSDoc, and the module's types as a user's compiler sees them."""
    compiler = npm / "node_modules/.bin/tsc"
    web = Path(__file__).parents[2] / "avatar3d" / "viewer" / "web"
    subprocess.run([str(compiler), "-p", str(web / "jsconfig.json")], check=True, timeout=120)
    folder = export(avatar, tmp_path / "ada", format="web")
    (folder / "use.ts").write_text(
        "import { load } from './avatar3d.js';\n"
        "const a = await load('.', document.body);\n"
        "a.setExpression('jawOpen', 0.5);\n"
        "// @ts-expect-error there is no such expression\na.setExpression('jawOpne', 0.5);\n"
        "await a.playMotion({ fps: 25, expression: [new Array(52).fill(0)] });\n"
    )
    subprocess.run(
        [str(compiler), "--noEmit", "--strict", "--target", "es2022", "--module", "es2022",
         "--moduleResolution", "bundler", "--types", "", str(folder / "use.ts")],
        check=True, timeout=120,
    )  # fmt: skip
