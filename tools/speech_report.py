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
    lag              milliseconds by which cross-validated lips follow the clip's own
    offset           milliseconds by which the sound follows the clip's lips, and ours; ours minus
                     the clip's
    R with level     correlation of lip opening with the level of the sound: the clip's own, ours,
                     and for each WAV, with its ratio to ours. As most of it is that mouths rest in
                     pauses, also while speaking only
    languages        the same for a quarter of a minute of synthetic speech, whose visemes show
                     what can be expected of a language
    gap R for        correlation of the lip gap with that of the other subjects, for their sound:
                     unheard voices, often in another language
    x real time      of a minute of sound

In brackets, where nine in ten bootstrap draws of one-second blocks lie; `?` marks what is unknown
by more than a frame either way, or a ratio unknown by more than a fifth.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from avatar3d.audio import load_audio
from avatar3d.audio.files import SAMPLE_RATE
from avatar3d.audio.tts import speak
from avatar3d.evaluation import speech
from avatar3d.evaluation.bootstrap import Estimate
from avatar3d.evaluation.metrics import correlation
from avatar3d.motion.audio_driver import AudioDriver
from avatar3d.motion.motion import Motion
from avatar3d.motion.visemes import from_phonemes
from avatar3d.subject import Subject

LANGUAGES = ("de", "en", "fr", "ja", "cmn")
VOICES = (None, "Annie", "m3")
WIDE_SCRIPTS = ("ja", "cmn")  # whose letters are syllables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subjects", nargs="+", type=Path)
    parser.add_argument("--avatar", nargs="*", default=[], metavar="SUBJECT=AVATAR")
    parser.add_argument("--speech", nargs="*", default=[], type=Path, metavar="WAV")
    options = parser.parse_args()
    avatars = dict(pair.split("=", 1) for pair in options.avatar)
    table: dict[str, dict[str, str]] = {}
    mouths = {
        p.name.removesuffix(".subject"): speech.Mouth.of(Subject(p)) for p in options.subjects
    }
    for path, (name, mouth) in zip(options.subjects, mouths.items(), strict=True):
        others = {other: each for other, each in mouths.items() if other != name}
        table[name] = measure(mouth, options.speech, avatars.get(str(path)), others)
        print(path, file=sys.stderr)
    names = dict.fromkeys(name for column in table.values() for name in column)
    print("".ljust(28) + "".join(title[:24].rjust(26) for title in table))
    for name in names:
        print(name.ljust(28) + "".join(c.get(name, "-").rjust(26) for c in table.values()))


def measure(
    mouth: speech.Mouth, sounds: list[Path], avatar: str | None, others: dict[str, speech.Mouth]
) -> dict[str, str]:
    """The column of one subject: figures by the name of their row."""
    fps = mouth.subject.fps
    rows: dict[str, str] = {}
    rows["speech, s"] = f"{mouth.spoken.sum() / fps:.1f}"
    lips = speech.unseen_parts(mouth)
    for name in lips:
        gap, width = (correlation(lips[name][:, k], lips["clip"][:, k]) for k in (0, 1))
        if name != "clip":
            rows[f"gap, width R {name}"] = f"{gap:.2f} {width:.2f}"
    picture = None if avatar is None else renderer(mouth, avatar)
    for name, distance in speech.unseen_landmarks(mouth, picture).items():
        rows[f"LMD {name}"] = f"{distance:.2f}"
    personal = mouth.driver()
    rows |= predicted_rows(mouth, "personal" if personal else "universal", personal)
    if personal is not None:
        rows |= closure_rows(mouth, "universal", None)
        rows |= other_rows(mouth, personal, others)
    if lips:
        late = speech.lag(lips["personal"][:, 0], lips["clip"][:, 0], fps)
        rows["lag, ms"] = milliseconds(late) + unsure(late, fps)
    rows |= sound_rows(mouth, personal, sounds)
    return rows | language_rows(mouth, personal)


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


def other_rows(
    mouth: speech.Mouth, driver: AudioDriver, others: dict[str, speech.Mouth]
) -> dict[str, str]:
    rows = {}
    for name, other in others.items():
        frames = other.spoken
        if frames.sum() > other.subject.fps:
            heard = speech.heard_by(driver, mouth, other)[frames, 0]
            true = other.measure(other.tracking.weights)[0][frames]
            rows[f"gap R for {name}"] = f"{correlation(heard, true):.2f}"
    return rows


def sound_rows(
    mouth: speech.Mouth, driver: AudioDriver | None, sounds: list[Path]
) -> dict[str, str]:
    predict, fps = predictor(mouth, driver), mouth.subject.fps
    rows: dict[str, str] = {}
    own = None
    path = mouth.subject.audio_path
    if path is not None and mouth.spoken.any():
        samples, _ = load_audio(path)
        ours, clip = mouth.opening(predict(samples)), mouth.captured_opening
        true, made = (speech.offset(lips, samples, fps) for lips in (clip, ours))
        rows["offset, ms: clip's"] = milliseconds(true)
        rows["  offset of ours"] = milliseconds(made)
        doubt = unsure(true, fps) or unsure(made, fps)
        rows["  offset, difference"] = whole(made.value - true.value) + doubt
        own = speech.energy_agreement(ours, samples, fps)
        rows["R with level: clip's"] = bounded(speech.energy_agreement(clip, samples, fps))
        rows["  R of ours"] = bounded(own)
        speaking = [speech.energy_agreement(x, samples, fps, mouth.spoken) for x in (clip, ours)]
        rows["  R of both, while speaking"] = " ".join(f"{found.value:.2f}" for found in speaking)
    for sound in sounds:
        samples, _ = load_audio(sound)
        found = speech.energy_agreement(mouth.opening(predict(samples)), samples, fps)
        rows[f"  {sound.stem}, {len(samples) / SAMPLE_RATE:.1f} s"] = bounded(found)
        if own is not None and own.low > 0:
            ratio = found / own
            doubt = "?" if ratio.width > 0.4 else ""
            rows[f"  {sound.stem} / ours"] = bounded(ratio) + doubt
    minute = np.random.default_rng(0).normal(0, 0.05, 60 * SAMPLE_RATE).astype(np.float32)
    predict(minute[:SAMPLE_RATE])
    begin = time.perf_counter()
    predict(minute)
    rows["x real time"] = f"{60 / (time.perf_counter() - begin):.0f}"
    return rows


def language_rows(mouth: speech.Mouth, driver: AudioDriver | None) -> dict[str, str]:
    """Correlation of lips with level in five languages: of true visemes, ours, and any voice's."""
    fps = mouth.subject.fps
    ways = {"universal": predictor(mouth, None)}
    if driver is not None:
        ways["personal"] = predictor(mouth, driver)
    found: dict[str, list[str]] = {name: [] for name in ("visemes", *ways)}
    sentences = Path(__file__).with_name("prior_sentences.yaml").read_text(encoding="utf-8")
    texts = yaml.safe_load(sentences)
    for language in LANGUAGES:
        text = f"{speech.BILABIAL_TEXTS[language]} {texts[language]}"
        values: dict[str, list[float]] = {name: [] for name in found}
        for voice in VOICES:
            said = speak(text[: 110 if language in WIDE_SCRIPTS else 300], language, voice)
            samples = said.at_16k()
            motions = {name: way(samples) for name, way in ways.items()}
            motions["visemes"] = from_phonemes(said.phonemes, fps, len(samples) / SAMPLE_RATE)
            for name, motion in motions.items():
                agreement = speech.energy_agreement(mouth.opening(motion), samples, fps)
                values[name].append(agreement.value)
        for name, each in values.items():
            found[name].append(f"{np.mean(each):.2f}"[1 if np.mean(each) >= 0 else 0 :])
    rows = {f"  R of {name}": " ".join(values) for name, values in found.items()}
    return {"languages": " ".join(LANGUAGES)} | rows


def bounded(found: Estimate) -> str:
    return f"{found.value:.2f} [{found.low:.2f} {found.high:.2f}]"


def milliseconds(found: Estimate) -> str:
    return f"{whole(found.value)} [{whole(found.low)} {whole(found.high)}]"


def whole(seconds: float) -> str:
    return f"{1e3 * seconds:+.0f}" if np.isfinite(seconds) else "-"


def unsure(found: Estimate, fps: float) -> str:
    return "" if found.width <= 2 / fps else "?"


def renderer(mouth: speech.Mouth, path: str) -> Any:
    """Landmarks that the detector finds in the avatar's renders; see `unseen_landmarks`."""
    from avatar3d.avatar import load
    from avatar3d.evaluation.landmarks import face_detector

    avatar, detect = load(path), face_detector()
    if detect is None:
        return None

    def picture(motion: Motion, frames: range) -> np.ndarray | None:
        camera = mouth.tracking.camera
        found = [detect(image) for image in avatar.render_motion(motion, camera=camera)]
        if any(face is None for face in found):
            return None
        return np.stack([face.points[:, :2] for face in found]) * 512 / mouth.tracking.size.max()

    return picture


if __name__ == "__main__":
    main()
