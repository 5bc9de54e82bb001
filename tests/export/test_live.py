"""The live server: it answers, its controls drive our renderer, and a browser shows the picture."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest

from avatar3d.audio import save_wav
from avatar3d.audio.files import SAMPLE_RATE
from avatar3d.audio.tts import speak
from avatar3d.avatar import SplatAvatar
from avatar3d.errors import UserError
from avatar3d.head import ARKIT_INDEX
from avatar3d.viewer import LiveViewer

pytest.importorskip("viser")


@pytest.fixture
def live(avatar: SplatAvatar) -> Iterator[LiveViewer]:
    viewer = LiveViewer(avatar, port=18080)
    yield viewer
    viewer.stop()


def test_answers_over_http(live: LiveViewer):
    with urlopen(f"http://127.0.0.1:{live.port}", timeout=20) as answer:
        assert answer.status == 200
        assert b"<html" in answer.read().lower()


def test_controls_reach_the_renderer(live: LiveViewer, avatar: SplatAvatar):
    live._controls["jawOpen"].value = 0.7
    live._controls["yaw"].value = 20.0
    width, height = avatar.camera.width, avatar.camera.height
    shown = live.picture(live.motion(), avatar.state.T_camera_rest, width, height)
    expected = avatar.render({"jawOpen": 0.7}, yaw=np.radians(20))
    assert np.abs(shown.astype(int) - expected).max() <= 1


def test_a_wide_window_keeps_the_picture_in_its_middle(live: LiveViewer, avatar: SplatAvatar):
    width, height = avatar.camera.width, avatar.camera.height
    shown = live.picture(live.motion(), avatar.state.T_camera_rest, width + 80, height)
    middle = shown[:, 40:-40].astype(int)
    assert np.abs(middle - avatar.render()).max() <= 1


def test_speaks_a_sound_that_is_uploaded(live: LiveViewer, avatar: SplatAvatar, tmp_path: Path):
    sound = speak("Maybe a small boat.", "en").at_16k()
    save_wav(tmp_path / "a.wav", sound, SAMPLE_RATE)
    live.speak((tmp_path / "a.wav").read_bytes(), "a.wav")
    assert "<audio autoplay" in live._heard.content
    jaws = []
    deadline = time.monotonic() + len(sound) / SAMPLE_RATE + 5
    while live._spoken is not None and time.monotonic() < deadline:
        jaws.append(float(live.motion().expression[0, ARKIT_INDEX["jawOpen"]]))
        time.sleep(0.05)
    assert max(jaws) > 0.03
    assert live._spoken is None  # it ends with the sound
    with pytest.raises(UserError):
        live.speak(b"no sound at all", "b.wav")


def test_a_browser_gets_pictures_and_is_told_how_many(live: LiveViewer, open_page: Callable):
    live._controls["play"].value = True
    with open_page(f"http://127.0.0.1:{live.port}"):
        deadline = time.monotonic() + 60
        while live._rate.value in ("-", "0") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert live._shown
        assert int(live._rate.value) > 0
