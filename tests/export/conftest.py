"""A procedural avatar that needs no asset, and a headless browser that needs no driver."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from avatar3d.avatar import SplatAvatar, SplatState
from avatar3d.export import export
from avatar3d.head import HeadModel
from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion.motion import Motion

EYES = np.array([[0.03, 0.02, 0.075], [-0.03, 0.02, 0.075]])
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-dev-shm-usage", "--disable-quic",
    "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--hide-scrollbars",
    "--autoplay-policy=no-user-gesture-required", "--remote-debugging-pipe",
)  # fmt: skip


@pytest.fixture(scope="session")
def avatar() -> SplatAvatar:
    return make_avatar()


@pytest.fixture(scope="session")
def open_page() -> Callable[..., "Page"]:
    """`open_page(place, before="")` starts a browser; use it as a context manager."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    return Page


@pytest.fixture(scope="session")
def headed(tmp_path_factory: pytest.TempPathFactory) -> SplatAvatar:
    """An avatar of a ball that has kept a part of its head model, moved, as training does.

    The model, which `info` names, has a place in the texture for every triangle by itself; the
    Gaussians are coloured by `place_color`.
    """
    rng = np.random.default_rng(4)
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.1)
    template, faces = np.asarray(ball.vertices, np.float32), np.asarray(ball.faces, np.int32)
    count, side = len(faces), 36
    cells = np.stack([np.arange(count) % side, np.arange(count) // side], -1)
    uv = (cells[:, None] + np.array([[0.05, 0.05], [0.95, 0.05], [0.05, 0.95]])) / side
    rows = len(ARKIT_52) + 2
    names = (*ARKIT_52, "residual0", "residual1")
    bumps = rng.normal(0, 1, (rows, 3, 3)) @ template.T
    head = HeadModel(
        name="ball", template=template, faces=faces, expression_names=names,
        identity=rng.normal(0, 1, (2, 1, 3)) * template[None, :, :1],
        expression=(0.03 * bumps.transpose(0, 2, 1)).astype(np.float32),
        part=np.zeros(len(template), np.uint8), torso_weight=np.zeros(len(template), np.float32),
        eye_centers=EYES.astype(np.float32), eye_centers_identity=np.zeros((2, 2, 3), np.float32),
        uv=uv.reshape(-1, 2).astype(np.float32),
        uv_faces=np.arange(3 * count, dtype=np.int32).reshape(-1, 3),
        landmark_faces=np.zeros(478, np.int32), landmark_bary=np.full((478, 3), 1 / 3, np.float32),
        landmark_sigma=np.ones(478, np.float32),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("head") / "ball.npz"
    head.save(path)
    identity = np.array([0.05, -0.02])
    shaped = head.shaped(identity)
    kept = np.sort(rng.choice(count, count * 2 // 3, replace=False))
    used, corners = np.unique(faces[kept], return_inverse=True)
    state = make_state(6000, 192, rng)
    moved = shaped.vertices + 0.004 * np.sin(20 * shaped.vertices[:, [1, 2, 0]])
    bound = state.face >= 0
    at = rng.integers(0, len(kept), bound.sum())
    new = {
        "vertices": moved[used], "expression": shaped.expression[:, used],
        "faces": corners.reshape(-1, 3), "torso_weight": np.zeros(len(used)),
        "eye": np.zeros(len(used), np.uint8), "face": np.where(bound, 0, -1),
        "opacity": np.full(len(state), 4.0), "basis": 0 * state.basis,
    }  # fmt: skip
    for name, array in new.items():
        setattr(state, name, array.astype(getattr(state, name).dtype))
    state.face[bound] = at
    state.position[bound] = 0
    state.quat[:] = (1, 0, 0, 0)
    state.log_scale[bound] = np.log([0.006, 0.006, 0.0003])
    point = (moved[faces[kept[at]]] * state.bary[bound][..., None]).sum(1)
    state.color[bound] = place_color(point)
    state.validate()
    info = {"head_model": str(path), "identity": identity.tolist()}
    made = SplatAvatar(state, None, make_motion(), driver=None, info=info)
    made.kept = kept
    made.whole_vertices = moved
    return made


@pytest.fixture(scope="session")
def headed_glb(headed: SplatAvatar, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(headed, tmp_path_factory.mktemp("mesh") / "head.glb")


def place_color(point: np.ndarray) -> np.ndarray:
    """(N, 3) sRGB that changes slowly over places (N, 3), alike on both sides of the face."""
    return 0.5 + 0.4 * np.sin(np.abs(point * (1, 0, 0)) * 20 + point * (0, 15, 20))


def make_avatar(count: int = 3000, size: int = 192, seed: int = 3) -> SplatAvatar:
    rng = np.random.default_rng(seed)
    state = make_state(count, size, rng)
    state.validate()
    ramp = np.linspace(0, 255, size)[None, :, None]
    plate = np.concatenate(
        [
            ramp.repeat(size, 0),
            ramp.repeat(size, 0).transpose(1, 0, 2),
            np.full((size, size, 1), 99),
        ],
        axis=2,
    ).astype(np.uint8)
    return SplatAvatar(state, plate, make_motion(), driver=None)


def make_motion(frames: int = 50) -> Motion:
    time = np.arange(frames) / 25
    expression = np.zeros((frames, 52), np.float32)
    expression[:, ARKIT_INDEX["jawOpen"]] = 0.5 - 0.5 * np.cos(6 * time)
    pose = np.tile(np.eye(4), (frames, 1, 1))
    angle = 0.2 * np.sin(3 * time)
    pose[:, 0, 0] = pose[:, 2, 2] = np.cos(angle)
    pose[:, 0, 2], pose[:, 2, 0] = np.sin(angle), -np.sin(angle)
    pose[:, 1, 3] = 0.003 * np.sin(5 * time)
    gaze = np.zeros((frames, 2, 2))
    gaze[..., 0] = 0.2 * np.sin(4 * time)[:, None]
    return Motion(fps=25, expression=expression, head_pose=pose, gaze=gaze)


def make_state(count: int, size: int, rng: np.random.Generator) -> SplatState:
    vertices, faces, eye = _shapes()
    expression = _expressions(vertices, rng)
    rows, bound = len(expression), count * 4 // 5
    face = rng.integers(0, len(faces), bound).astype(np.int32)
    corners = vertices[faces[face]]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    scale = np.sqrt(area.mean())
    torso = rng.uniform((-0.16, -0.24, -0.05), (0.16, -0.12, 0.05), (count - bound, 3))
    position = np.concatenate([rng.normal(0, 0.1 * scale, (bound, 3)), torso])
    point = np.concatenate([corners.mean(1), torso])
    color = 0.5 + 0.45 * np.sin(point * (90, 70, 110) + (0, 1, 2))
    turned = rng.normal(size=(count, 4))
    with_basis, blendshapes = bound - 100, 6
    basis = rng.normal(size=(with_basis, 10, blendshapes))
    basis *= np.repeat([0.1 * scale, 0.1, 0.04], [3, 4, 3])[None, :, None]
    focal, distance = 2.4 * size, 0.95
    return SplatState(
        vertices=vertices.astype(np.float32),
        expression=expression.astype(np.float32),
        faces=faces.astype(np.int32),
        torso_weight=np.clip((-0.07 - vertices[:, 1]) / 0.04, 0, 1).astype(np.float32),
        eye=eye,
        eye_centers=EYES.astype(np.float32),
        face=np.concatenate([face, np.full(count - bound, -1)]).astype(np.int32),
        bary=np.concatenate([rng.dirichlet((1, 1, 1), bound), np.zeros((count - bound, 3))]).astype(
            np.float32
        ),
        part=np.zeros(count, np.uint8),
        position=position.astype(np.float32),
        quat=(turned * rng.uniform(0.5, 2, (count, 1))).astype(np.float32),
        log_scale=(np.log(0.35 * scale) + rng.normal(0, 0.4, (count, 3))).astype(np.float32),
        opacity=rng.normal(1.5, 1.5, count).astype(np.float32),
        color=color.astype(np.float32),
        basis=basis.astype(np.float32),
        map=rng.normal(0, 0.8, (blendshapes, rows + 4)).astype(np.float32),
        mean=rng.uniform(0, 0.1, rows + 4).astype(np.float32),
        bias=rng.normal(0, 0.1, blendshapes).astype(np.float32),
        limit=np.array(1.5, np.float32),
        T_camera_rest=np.array(
            [[1, 0, 0, 0.005], [0, -1, 0, -0.02], [0, 0, -1, distance], [0, 0, 0, 1]], np.float32
        ),
        K_matrix=np.array(
            [[focal, 0, size / 2 + 3], [0, focal, size / 2 - 2], [0, 0, 1]], np.float32
        ),
        size=np.array([size, size], np.int32),
        torso_map=np.concatenate([0.1 * np.eye(6), 0.2 * np.eye(6)]).astype(np.float32),
        torso_limit=np.full(6, 0.05, np.float32),
        signal_min=np.full(rows + 4, -0.3, np.float32),
        signal_max=rng.uniform(0.3, 1, rows + 4).astype(np.float32),
    )


def _shapes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An egg for the head and two balls for the eyes: vertices, faces, eye labels."""
    vertices, faces, labels = [], [], []
    offset = 0
    shapes = [
        ((0.075, 0.105, 0.085), np.zeros(3), 24, 36),
        *[((0.014,) * 3, c, 8, 12) for c in EYES],
    ]
    for label, (radii, center, rows, columns) in enumerate(shapes):
        polar, around = np.meshgrid(
            np.linspace(0.02, np.pi - 0.02, rows),
            np.arange(columns) / columns * 2 * np.pi,
            indexing="ij",
        )
        ball = np.stack(
            [np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)], -1
        )
        vertices.append((ball * radii + center).reshape(-1, 3))
        labels.append(np.full(rows * columns, label, np.uint8))
        index = np.arange(rows * columns).reshape(rows, columns) + offset
        right = np.roll(index, -1, axis=1)
        quads = [index[:-1], index[1:], right[1:], right[:-1]]
        a, b, c, d = (q.ravel() for q in quads)
        faces.append(np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))
        offset += rows * columns
    return np.concatenate(vertices), np.concatenate(faces), np.concatenate(labels)


def _expressions(vertices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth bump for every ARKit name and two residual rows; the jaw's is large."""
    rows = np.zeros((len(ARKIT_52) + 2, len(vertices), 3))
    for row in rows:
        center = rng.uniform((-0.06, -0.08, 0.05), (0.06, 0.05, 0.08))
        squared = ((vertices - center) ** 2).sum(1)
        weight = np.exp(-squared / (2 * 0.02**2))
        row[:] = np.where(weight > 0.05, weight, 0)[:, None] * rng.normal(0, 0.004, 3)
    jaw = np.clip((-0.02 - vertices[:, 1]) / 0.05, 0, 1) * (vertices[:, 2] > 0)
    rows[ARKIT_INDEX["jawOpen"]] = jaw[:, None] * (0, -0.03, -0.01)
    return rows


class Page:
    """A page from a file or address, after the script `before`; `errors` are its console's.

    `hears` is a WAV file that the browser's microphone hears.

    Protocol: https://chromedevtools.github.io/devtools-protocol, messages ended by a zero byte.
    """

    def __init__(self, place: Path | str, before: str = "", hears: Path | None = None) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        flags = [*_FLAGS, "--window-size=1000,700", f"--user-data-dir={self._profile.name}"]
        if hears is not None:
            flags += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
            flags.append(f"--use-file-for-fake-audio-capture={hears}%noloop")
        # Chromium reads file descriptor 3 and writes 4.
        command = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, str(CHROMIUM), *flags, "about:blank"],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        self.call(
            "Page.navigate", url=place.resolve().as_uri() if isinstance(place, Path) else place
        )
        deadline = time.monotonic() + 60
        while self.run("document.readyState") != "complete":
            assert time.monotonic() < deadline, "the page does not load"
            time.sleep(0.05)

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        os.close(self._out)
        os.close(self._in)
        self._profile.cleanup()

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression, promises awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def screenshot(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One DevTools command."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        name, details = event.get("method"), event.get("params", {})
        if name == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(details["exceptionDetails"]))
        elif name == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning"):
            self.errors.append(json.dumps(details["args"]))
        elif name == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.errors.append(details["entry"]["text"])
        elif name == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], 120)
            assert ready, "Chromium does not answer"
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "Chromium has ended"
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)
