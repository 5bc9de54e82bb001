"""The page in a real browser, against our own deformation and renderer."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avatar3d.avatar import SplatAvatar
from avatar3d.avatar.deform import FaceParameters, SplatParameters, SplatRig, pose_gaussians
from avatar3d.avatar.torso import predict_torso
from avatar3d.export import export
from avatar3d.geometry import yaw_pitch_roll
from avatar3d.head import ARKIT_INDEX

FACES = [
    {},
    {"expression": {"jawOpen": 0.8, "mouthSmileLeft": 0.5}},
    {"expression": {"eyeBlinkLeft": 1.0}, "yaw": 0.4, "pitch": -0.2, "roll": 0.1},
    {"gaze": (0.3, -0.2), "yaw": -0.3},
]


@pytest.fixture(scope="module")
def file(avatar: SplatAvatar, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(avatar, tmp_path_factory.mktemp("page") / "face.html")


@pytest.fixture(scope="module")
def opened(open_page: Callable, file: Path) -> Iterator[Any]:
    with open_page(file) as page:
        page.run("avatar3d.ready")
        yield page


@pytest.fixture
def page(opened: Any) -> Iterator[Any]:
    opened.run("avatar3d.setIdle(false).then(() => avatar3d.reset())")
    yield opened
    assert opened.errors == []


def set_face(page: Any, expression: dict | None = None, gaze=(0, 0), **angles: float) -> None:
    page.run(
        f"Promise.all([avatar3d.setExpression({json.dumps(expression or {})}),"
        f"avatar3d.setPose({json.dumps(angles)}),"
        f"avatar3d.setGaze({{yaw: {gaze[0]}, pitch: {gaze[1]}}})])"
    )


def snapshot(page: Any, width: int, height: int) -> np.ndarray:
    text = page.run(
        f"avatar3d.snapshot({width}, {height})"
        ".then(({data}) => Array.from(data, (v) => String.fromCharCode(v)).join(''))"
    )
    return np.frombuffer(text.encode("latin-1"), np.uint8).reshape(height, width, 4)[..., :3]


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error))


def test_asks_for_nothing_but_itself(page: Any, file: Path):
    assert page.requests == [file.resolve().as_uri()]


@pytest.mark.parametrize("face", FACES)
def test_deforms_like_python(page: Any, avatar: SplatAvatar, face: dict):
    set_face(page, **face)
    centres = np.array(page.run("avatar3d.gaussians().then((values) => Array.from(values))"))
    state = avatar.state
    weights = torch.zeros(len(state.expression))
    for name, value in face.get("expression", {}).items():
        weights[ARKIT_INDEX[name]] = value
    pose = np.eye(4)
    angles = (torch.tensor(face.get(name, 0.0)) for name in ("yaw", "pitch", "roll"))
    pose[:3, :3] = yaw_pitch_roll(*angles).numpy()
    (torso,) = predict_torso(pose[None], state.torso_map, state.torso_limit, 25)
    rest = state.T_camera_rest
    posed = pose_gaussians(
        SplatRig(state),
        SplatParameters(state),
        FaceParameters(
            weights,
            torch.tensor([face.get("gaze", (0.0, 0.0))] * 2),
            torch.tensor(rest @ pose, dtype=torch.float32),
            torch.tensor(rest @ torso, dtype=torch.float32),
        ),
    )
    difference = np.abs(centres.reshape(-1, 3) - posed.means.detach().numpy())
    assert difference.max() < 1e-4  # metres; quantisation makes up half of it


@pytest.mark.parametrize("face", FACES)
def test_draws_like_our_renderer(page: Any, avatar: SplatAvatar, face: dict):
    set_face(page, **face)
    width, height = avatar.camera.width, avatar.camera.height
    assert psnr(snapshot(page, width, height), avatar.render(**face)) > 45


def test_draws_at_other_sizes(page: Any, avatar: SplatAvatar):
    """Alignment of picture and background, and the low-pass, follow the size."""
    camera = avatar.camera.scaled(1.5)
    ours = avatar.render(camera=camera)
    assert psnr(snapshot(page, camera.width, camera.height), ours) > 40


def test_plays_the_motion(page: Any, avatar: SplatAvatar):
    frames = list(avatar.render_motion(avatar.idle_motion))
    width, height = avatar.camera.width, avatar.camera.height
    for index in (0, 17, 44):
        page.run(f"avatar3d.seek({index / avatar.idle_motion.fps})")
        assert psnr(snapshot(page, width, height), frames[index]) > 45
    assert psnr(frames[0], frames[17]) < 30  # it does move


def test_a_slider_changes_the_picture_and_lets_go(page: Any):
    def move(value: float) -> None:
        page.run(
            "(() => { const slider = document.querySelector('#control-jawOpen');"
            f"slider.value = {value};"
            "slider.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )

    before = snapshot(page, 96, 96)
    move(0.9)
    opened = snapshot(page, 96, 96)
    assert psnr(before, opened) < 35
    page.run("document.querySelector('.control.held button, #reset').click()")
    assert (snapshot(page, 96, 96) == before).all()


def test_dragging_orbits_and_hides_the_background(page: Any, avatar: SplatAvatar):
    corner = snapshot(page, 96, 96)[4, 4]
    box = page.run(
        "(({x, y}) => [x, y])(document.getElementById('canvas').getBoundingClientRect())"
    )
    x, y = box[0] + 150, box[1] + 150
    for kind, dx in (("mousePressed", 0), ("mouseMoved", 60), ("mouseReleased", 60)):
        page.call(
            "Input.dispatchMouseEvent",
            type=kind, x=x + dx, y=y, button="left", buttons=1, clickCount=1,
        )  # fmt: skip
    turned = snapshot(page, 96, 96)[4, 4]
    plain = avatar.background.mean((0, 1))
    assert np.abs(turned - plain).max() < 3 < np.abs(corner - plain).max()


def test_says_what_is_wrong(open_page: Callable, file: Path, tmp_path: Path):
    text = file.read_text("utf-8")
    start = text.index('id="avatar-data"')
    broken = tmp_path / "broken.html"
    broken.write_text(text[: start + 3000] + "AAAA" + text[start + 3004 :], "utf-8")
    with open_page(broken) as page:
        page.run("avatar3d.ready.catch(() => 0)")
        assert "damaged" in page.run("document.querySelector('[role=alert]').textContent")
    script = "HTMLCanvasElement.prototype.getContext = () => null"
    with open_page(file, before=script) as page:
        page.run("avatar3d.ready.catch(() => 0)")
        assert "WebGL2" in page.run("document.querySelector('[role=alert]').textContent")
