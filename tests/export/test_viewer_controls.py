"""What a person does with the page: presets, sound, microphone, film, pictures, keys."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import imageio.v3 as iio
import numpy as np
import pytest
from typer.testing import CliRunner

from avatar3d.audio import features, save_wav
from avatar3d.audio.files import SAMPLE_RATE
from avatar3d.audio.tts import speak
from avatar3d.avatar import SplatAvatar
from avatar3d.cli.commands import app
from avatar3d.export import export, export_motion
from avatar3d.export.speech import OFFSETS, pooled, speech_arrays
from avatar3d.head import ARKIT_INDEX
from avatar3d.motion.articulation import to_arkit
from avatar3d.motion.emotions import EMOTIONS
from avatar3d.motion.sliders import expression_vector
from avatar3d.motion.windows import activity, gate, normalised, taps

from .conftest import make_avatar
from .test_browser import psnr, snapshot

WATCHING = """
window.saved = [];
HTMLAnchorElement.prototype.click = function () { saved.push([this.download, this.href]); };
window.sounds = [];
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () { sounds.push(this); return play.call(this); };
"""


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, Path]:
    """A sentence at 16 kHz, and a WAV file of it."""
    sound = speak("Maybe a small boat on blue water.", "en").at_16k().astype(np.float32)
    path = tmp_path_factory.mktemp("sound") / "boat.wav"
    save_wav(path, sound, SAMPLE_RATE)
    return sound, path


@pytest.fixture(scope="module")
def avatar() -> SplatAvatar:
    """Small, because sound does not wait for a software renderer."""
    return make_avatar(600, 96)


@pytest.fixture(scope="module")
def opened(
    open_page: Callable,
    avatar: SplatAvatar,
    spoken: tuple[np.ndarray, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    path = export(avatar, tmp_path_factory.mktemp("page") / "face.html", audio=spoken[1])
    with open_page(path, before=WATCHING, hears=spoken[1]) as page:
        page.run("avatar3d.ready")
        yield page


@pytest.fixture
def page(opened: Any) -> Iterator[Any]:
    opened.run("avatar3d.setIdle(false).then(() => avatar3d.reset())")
    yield opened
    assert opened.errors == []


def pause(page: Any, seconds: float) -> None:
    page.run(f"new Promise((done) => setTimeout(done, {1000 * seconds}))")


def drawn(page: Any) -> None:
    """Wait until what was asked for is on the screen."""
    for _ in range(2):
        page.run("new Promise((done) => requestAnimationFrame(() => done()))")


def give_file(page: Any, path: Path) -> None:
    """As if the person had chosen it."""
    document = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=document, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)


def shown(page: Any, name: str) -> float:
    return float(page.run(f"document.getElementById('control-{name}').value"))


def test_every_control_has_a_name_for_a_screen_reader(page: Any):
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "searchbox", "combobox", "image", "toolbar", "ColorWell"}
    controls = [n for n in nodes if n.get("role", {}).get("value") in roles]
    assert len(controls) > 20
    assert all(n["name"]["value"].strip() for n in controls if not n.get("ignored"))


def test_plays_its_motion_in_step_with_its_sound(page: Any):
    page.run("document.getElementById('play').click()")
    pause(page, 0.8)
    drawn(page)
    heard, seen = page.run(
        "[sounds.at(-1).currentTime, Number(document.getElementById('seek').value)]"
    )
    assert heard > 0.3
    assert abs(heard - seen) < 0.3


def test_the_command_line_gives_a_page_its_speech(
    avatar: SplatAvatar, spoken: tuple[np.ndarray, Path], tmp_path: Path
):
    avatar.save(tmp_path / "a.a3d")
    target = tmp_path / "talk.html"
    command = ["export", str(tmp_path / "a.a3d"), "-o", str(target), "--audio", str(spoken[1])]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    text = target.read_text("utf-8")
    assert base64.b64encode(spoken[1].read_bytes()).decode() in text
    frames = int(text.split('"frames":')[1].split("}")[0].split(",")[0])
    assert frames == int(np.ceil(len(spoken[0]) / SAMPLE_RATE * 25))


@pytest.mark.parametrize("mood", ["smile", "serious", "surprised"])
def test_presets_are_the_moods_of_python(page: Any, avatar: SplatAvatar, mood: str):
    page.run(
        "[...document.querySelectorAll('#presets button')]"
        f".find((b) => b.textContent.toLowerCase() === '{mood}').click()"
    )
    expected = avatar.render(expression_vector(EMOTIONS[mood]))
    assert psnr(snapshot(page, *expected.shape[:2]), expected) > 45


def test_speaks_a_file_that_is_given_to_it(page: Any, spoken: tuple[np.ndarray, Path]):
    give_file(page, spoken[1])
    pause(page, 0.4)
    assert page.run("document.getElementById('play').textContent") == "Pause"
    jaws = []
    for _ in range(8):
        pause(page, 0.1)
        jaws.append(shown(page, "jawOpen"))
    assert max(jaws) > 0.03
    assert float(page.run("document.getElementById('seek').max")) == pytest.approx(
        len(spoken[0]) / SAMPLE_RATE, abs=0.03
    )


def test_the_mouth_is_that_of_the_network_in_python(page: Any, spoken: tuple[np.ndarray, Path]):
    """Against numpy over the features, statistics and curves of the package."""
    sound, path = spoken
    data = base64.b64encode(path.read_bytes()).decode()
    page.run(
        f"avatar3d.speak(Uint8Array.from(atob('{data}'), (c) => c.charCodeAt(0)).buffer)"
        ".then(() => avatar3d.pause())"
    )
    fps, count = 50, int(np.ceil(len(sound) / SAMPLE_RATE * 50))
    arrays = {k: a.astype(np.float64) for k, a in speech_arrays().items()}
    mel = features(sound, fps, count)["mel"]
    active = activity(mel, fps)
    clean = normalised(pooled(mel), active, arrays["mean"], arrays["std"], fps).clip(-5, 5)
    x = taps(clean, fps, OFFSETS)
    for layer in range(3):
        x = x @ arrays[f"weight{layer}"].T + arrays[f"bias{layer}"]
        x = np.maximum(x, 0) if layer < 2 else 1 / (1 + np.exp(-x))
    curves = (arrays["gain"] * x + arrays["bias"]).clip(0, 1) * gate(active, fps)[:, None]
    expected = to_arkit(curves)[:, ARKIT_INDEX["jawOpen"]]
    found = []
    for frame in range(0, count, 5):
        page.run(f"avatar3d.seek({frame / fps})")
        drawn(page)
        found.append(shown(page, "jawOpen"))
    expected = expected[::5]
    assert expected.max() > 0.08
    assert np.corrcoef(found, expected)[0, 1] > 0.95
    assert np.abs(found - expected).max() < 0.06


def test_the_microphone_moves_the_mouth(page: Any):
    page.run("document.getElementById('microphone').click()")
    jaws = []
    for _ in range(20):
        pause(page, 0.1)
        jaws.append(shown(page, "jawOpen"))
    page.run("document.getElementById('microphone').click()")
    pause(page, 0.2)
    assert max(jaws) > 0.03
    assert shown(page, "jawOpen") == 0


def test_plays_a_motion_file(page: Any, avatar: SplatAvatar, tmp_path: Path):
    motion = avatar.idle_motion.slice(10, 40)
    give_file(page, export_motion(motion, tmp_path / "take.json"))
    pause(page, 0.3)
    page.run("avatar3d.pause()")
    frames = list(avatar.render_motion(motion))
    for index in (0, 20):
        page.run(f"avatar3d.seek({index / motion.fps})")
        assert psnr(snapshot(page, *frames[0].shape[:2]), frames[index]) > 45


def test_says_that_a_file_is_no_sound(page: Any, tmp_path: Path):
    (tmp_path / "notes.wav").write_bytes(b"no sound at all")
    give_file(page, tmp_path / "notes.wav")
    pause(page, 0.3)
    assert "WAV or MP3" in page.run("document.getElementById('note').textContent")
    assert page.run("avatar3d.statistics().then(({frames}) => frames)") > 0


def test_films_picture_and_sound(page: Any, spoken: tuple[np.ndarray, Path], tmp_path: Path):
    give_file(page, spoken[1])
    pause(page, 0.3)
    page.run("avatar3d.record()")
    page.run("avatar3d.play()")
    pause(page, 1.5)
    text = page.run(
        "avatar3d.stopRecording().then((film) => new Promise((done) => { const r ="
        "new FileReader(); r.onload = () => done(r.result); r.readAsDataURL(film); }))"
    )
    path = tmp_path / "film.webm"
    path.write_bytes(base64.b64decode(text.rsplit(",", 1)[1]))
    frames = iio.imread(path, plugin="pyav")
    assert len(frames) >= 2
    assert frames[-1].std() > 10
    with av.open(str(path)) as film:
        assert film.streams.audio


def test_a_transparent_background_has_no_alpha(page: Any, avatar: SplatAvatar):
    page.run("avatar3d.setView({background: 'transparent'})")
    size = avatar.camera.width
    text = page.run(
        f"avatar3d.snapshot({size}, {size})"
        ".then(({data}) => Array.from(data, (v) => String.fromCharCode(v)).join(''))"
    )
    found = np.frombuffer(text.encode("latin-1"), np.uint8).reshape(size, size, 4).astype(float)
    expected = avatar.render(transparent=True).astype(float)
    assert found[0, 0, 3] == 0
    assert psnr(found[..., 3], expected[..., 3]) > 45
    solid = expected[..., 3] > 250
    assert psnr(found[solid][:, :3], expected[solid][:, :3]) > 40
    page.run("avatar3d.setView({background: '#00ff80'})")
    assert snapshot(page, 64, 64)[0, 0].tolist() == [0, 255, 128]
    page.run("avatar3d.setView({background: true})")


def test_keys_work_without_a_mouse(page: Any):
    def press(key: str) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key=key)

    page.run("document.getElementById('canvas').focus()")
    press("i")
    assert page.run("document.getElementById('idle').getAttribute('aria-pressed')") == "true"
    press("i")
    press(" ")
    assert page.run("document.getElementById('play').textContent") == "Pause"
    press(" ")
    before = snapshot(page, 64, 64)
    press("ArrowRight")
    assert psnr(before, snapshot(page, 64, 64)) < 40
    press("s")
    pause(page, 0.3)
    assert page.run("saved.at(-1)[0]") == "face.png"


def test_finds_an_expression(page: Any):
    page.run(
        "(() => { const s = document.getElementById('search'); s.value = 'smile left';"
        "s.dispatchEvent(new Event('input')); })()"
    )
    visible = json.loads(
        page.run(
            "JSON.stringify([...document.querySelectorAll('.control:not([hidden])')]"
            ".map((c) => c.title))"
        )
    )
    assert visible == ["mouthSmileLeft"]


def test_fits_a_phone(page: Any):
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=390, height=800, deviceScaleFactor=1, mobile=True,
    )  # fmt: skip
    pause(page, 0.3)
    width = page.run("document.documentElement.scrollWidth")
    picture = page.run("document.getElementById('canvas').getBoundingClientRect().width")
    page.call("Emulation.clearDeviceMetricsOverride")
    assert width <= 390
    assert picture > 300
