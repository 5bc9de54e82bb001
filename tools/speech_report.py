"""Measure how mouths follow speech: one table for subjects, and avatars of them.

    python tools/speech_report.py SUBJECT... [--avatar SUBJECT=AVATAR.a3d ...] [--speech WAV...]

Everything is learnt anew from the subject's tracking, so an avatar is needed only for what is
seen in renders (--avatar; a minute of rendering and detecting each). Columns are subjects:

    gap, width R     correlation of lip gap and width with the clip's, blocked five-fold cross-
                     validation; of the personal driver, the driver for any voice, that without a
                     model (energy), and ridge regression on a mel spectrogram
    LMD              lip landmark distance on the last 1/11, pixels at 512, own poses: of the
                     model's lips driven by sound, by the tracking (the floor), and of renders
    silence          mean lip opening in zeros, noise and pauses, % of the clip's 95th percentile
    m b p            % of bilabials of synthetic speech at which the lips close within 40 ms, in
                     five languages; by the personal driver and by that for any voice
    open vowels      % of them in which the lips open, the other side of the same coin
    offset           milliseconds between sound and lips, ours minus the clip's
    R with level     correlation of lip opening with the level of the sound: the clip's own, and
                     each WAV over it
    x real time      of a minute of sound
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.audio import load_audio
from avatar3d.audio.files import SAMPLE_RATE
from avatar3d.evaluation import speech
from avatar3d.motion.audio_driver import AudioDriver
from avatar3d.motion.motion import Motion
from avatar3d.subject import Subject

LANGUAGES = ("de", "en_radio", "fr", "ja", "zh_bus")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subjects", nargs="+", type=Path)
    parser.add_argument("--avatar", nargs="*", default=[], metavar="SUBJECT=AVATAR")
    parser.add_argument("--speech", nargs="*", default=[], type=Path, metavar="WAV")
    options = parser.parse_args()
    avatars = dict(pair.split("=", 1) for pair in options.avatar)
    table: dict[str, dict[str, str]] = {}
    for path in options.subjects:
        found = measure(Subject(path), options.speech, avatars.get(str(path)))
        table[path.name.removesuffix(".subject")] = found
        print(path, file=sys.stderr)
    names = dict.fromkeys(name for column in table.values() for name in column)
    print("".ljust(28) + "".join(title[:18].rjust(20) for title in table))
    for name in names:
        print(name.ljust(28) + "".join(c.get(name, "-").rjust(20) for c in table.values()))


def measure(subject: Subject, sounds: list[Path], avatar: str | None) -> dict[str, str]:
    """The column of one subject: figures by the name of their row."""
    mouth = speech.Mouth.of(subject)
    rows: dict[str, str] = {}
    rows["speech, s"] = f"{mouth.spoken.sum() / subject.fps:.1f}"
    for name, (gap, width) in speech.unseen_parts(mouth).items():
        rows[f"gap, width R {name}"] = f"{gap:.2f} {width:.2f}"
    picture = None if avatar is None else renderer(mouth, avatar)
    for name, distance in speech.unseen_landmarks(mouth, picture).items():
        rows[f"LMD {name}"] = f"{distance:.2f}"
    personal = mouth.driver()
    rows |= predicted_rows(mouth, "personal" if personal else "universal", personal)
    if personal is not None:
        rows |= closure_rows(mouth, "universal", None)
    rows |= sound_rows(mouth, personal, sounds)
    return rows


def predictor(mouth: speech.Mouth, driver: AudioDriver | None) -> speech.Predict:
    """The mouth as `avatar3d render --audio` moves it."""
    from avatar3d.motion.speech import motion_for_audio

    base = mouth.tracking.motion(mouth.subject.fps)
    return lambda samples: motion_for_audio(driver, samples, mouth.subject.fps, base)


def predicted_rows(mouth: speech.Mouth, name: str, driver: AudioDriver | None) -> dict[str, str]:
    predict = predictor(mouth, driver)
    quiet = speech.silence(mouth, predict)
    rows = {"silence %": " ".join(f"{100 * value:.1f}" for value in quiet.values())}
    return rows | closure_rows(mouth, name, driver)


def closure_rows(mouth: speech.Mouth, name: str, driver: AudioDriver | None) -> dict[str, str]:
    found = speech.bilabials(mouth, predictor(mouth, driver))
    total = sum(found.values(), speech.Closures(0, 0, 0, 0))
    each = " ".join(f"{100 * c.met / c.bilabials:.0f}" for c in found.values())
    return {
        f"m b p met % {name}": f"{100 * total.met / total.bilabials:.0f}",
        f"  by language {name}": each,
        f"open vowels % {name}": f"{100 * (1 - total.shut / total.open_vowels):.0f}",
    }


def sound_rows(
    mouth: speech.Mouth, driver: AudioDriver | None, sounds: list[Path]
) -> dict[str, str]:
    predict, fps = predictor(mouth, driver), mouth.subject.fps
    rows: dict[str, str] = {}
    own = None
    path = mouth.subject.audio_path
    if path is not None and mouth.spoken.any():
        samples, _ = load_audio(path)
        ours = mouth.opening(predict(samples))
        true = speech.offset(mouth.captured_opening, samples, fps)
        made = speech.offset(ours, samples, fps)
        rows["offset, ms (clip's)"] = f"{1e3 * (made - true):+.0f} ({1e3 * true:+.0f})"
        own = speech.energy_agreement(mouth.captured_opening, samples, fps)
        driven = speech.energy_agreement(ours, samples, fps)
        rows["R with level, own, driven"] = f"{own:.2f} {driven:.2f}"
    for sound in sounds:
        samples, _ = load_audio(sound)
        found = speech.energy_agreement(mouth.opening(predict(samples)), samples, fps)
        ratio = "" if own is None else f" x{found / own:.2f}"
        rows[f"  {sound.stem}"] = f"{found:.2f}{ratio}"
    minute = np.random.default_rng(0).normal(0, 0.05, 60 * SAMPLE_RATE).astype(np.float32)
    predict(minute[:SAMPLE_RATE])
    begin = time.perf_counter()
    predict(minute)
    rows["x real time"] = f"{60 / (time.perf_counter() - begin):.0f}"
    return rows


def renderer(mouth: speech.Mouth, path: str) -> Any:
    """Landmarks that the detector finds in the avatar's renders; see `unseen_landmarks`."""
    from avatar3d.avatar import load
    from avatar3d.evaluation.landmarks import landmark_detector

    avatar, detect = load(path), landmark_detector()
    if detect is None:
        return None

    def picture(motion: Motion, frames: range) -> np.ndarray | None:
        camera = mouth.tracking.camera
        found = [detect(image) for image in avatar.render_motion(motion, camera=camera)]
        if any(points is None for points in found):
            return None
        return np.stack(found) * 512 / mouth.tracking.size.max()

    return picture


if __name__ == "__main__":
    main()
