"""Other voices for a clip's sound."""

import numpy as np
import pytest

from avatar3d.audio import features
from avatar3d.audio.tts import speak
from avatar3d.motion.voices import other_voices

FPS = 25.0


def test_other_voices_say_the_same_at_the_same_time_but_sound_different() -> None:
    pytest.importorskip("espeakng_loader", reason="eSpeak NG is not installed")
    samples = speak("We saw a boat moving slowly up the river, while people waved.").at_16k()
    count = int(len(samples) / 16_000 * FPS)
    own = features(samples, FPS, count)["mel"]
    level = own.mean(axis=1)
    for voice in other_voices(samples, FPS, count):
        assert {name: len(rows) for name, rows in voice.items()} == dict.fromkeys(voice, count)
        moved = [
            np.corrcoef(np.roll(voice["mel"].mean(axis=1), lag)[5:-5], level[5:-5])[0, 1]
            for lag in (-2, -1, 0, 1, 2)
        ]
        assert np.argmax(moved) == 2
        assert moved[2] > 0.8
        assert np.abs(voice["mel"] - own).mean() > 0.2
