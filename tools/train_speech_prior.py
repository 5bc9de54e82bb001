"""Teach the mouth for any voice: `avatar3d/motion/universal.npz` from synthetic speech alone.

    python tools/train_speech_prior.py [--check] [--readings 900] [--judged 100] [--seed 0]

eSpeak NG reads the sentences of `tools/prior_sentences.yaml`, also shuffled and with the accents of
other languages, in many voices and speeds; a Piper voice (the asset piper-joe) reads some of them
too. Sizes of the speaker, rooms, microphones and noise are made up. Phonemes
and their times give the curves to be predicted (`avatar3d.motion.visemes`). Takes about five
minutes on one core; the seed makes it repeatable on one machine.

Printed are correlations with the true curves and the closing of lips on m, b and p, for readings in
languages and voices that were not taught. --check prints them for the shipped weights.
"""

# ruff: noqa: RUF001 (IPA letters look like Latin ones)

import argparse
import json
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import yaml
from scipy.signal import butter, fftconvolve, lfilter, resample_poly, sosfilt
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, dropout

from avatar3d.assets import get
from avatar3d.audio import features, tts
from avatar3d.audio.files import SAMPLE_RATE
from avatar3d.audio.piper import PiperVoice, load_piper
from avatar3d.audio.tts import Phoneme, Speech, speak
from avatar3d.evaluation.metrics import correlation
from avatar3d.io.arrays import write_arrays
from avatar3d.motion.articulation import CURVES
from avatar3d.motion.phonetics import mouths
from avatar3d.motion.universal import (
    CLIP,
    CONTEXT,
    KNOTS,
    WEIGHTS_FILE,
    UniversalDriver,
    load_universal,
)
from avatar3d.motion.visemes import articulation
from avatar3d.motion.windows import activity, normalised
from avatar3d.progress import track

SENTENCES: dict[str, str] = yaml.safe_load(
    Path(__file__).with_name("prior_sentences.yaml").read_text(encoding="utf-8")
)
LATIN = [name for name, text in SENTENCES.items() if text[:1] < "\u0250"]
PIPER_ACCENTS = ("en", "en", "en", "cs", "de", "el", "es", "fi", "fr", "nl", "pt", "ro", "ru", "sv")
UNHEARD_LANGUAGES = ("it", "ko", "pl")
UNHEARD_VOICES = ("Annie", "Marco", "f2", "klatt3", "m3")
UNFIT_VOICES = re.compile("robo|Robot|whisper|Demonic|croak|Tweaky|Storm|fast|serious")
UNITS, LAYERS_DROPOUT, INPUT_DROPOUT, INPUT_NOISE = 64, 0.2, 0.2, 0.2
TRAIT_WEIGHT = 0.5  # of phonetic traits, learnt beside the curves, that make the units richer
EPOCHS, BATCH, FRAMES, RATE = 10, 16, 120, 3e-3
MET = 0.95  # of the bilabials in training that must shut the lips


# Phonetic traits by the IPA letters that have them.
TRAITS = (
    "aæɐɶɑɒ", "eøɘɵɤoəɚɝɛœɜɞʌɔ", "iyɨʉɯuɪʏʊ",  # open, middle, close
    "iyɪʏeøɛœæa", "uɯʊɤoʌɔɑɒ", "yʉuʏʊøɵoœɞɔɒ",  # front, back, rounded
    "pbmɓ", "fvɱ", "wʍɥ", "θð", "szɕʑ", "ʃʒʂʐ", "ɹɻɚɝ", "tdnlrɾɽɳɭʈɖ", "ɲʎcɟçʝj",
    "kɡgŋxɣqχʁ", "hɦħ", "mnɱɲŋɳ", "pbtdkɡgqʔcɟʈɖ", "fvszʃʒθðxɣχʁhɦɕʑʂʐç",  # nasal, stop, fricative
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """Feature rows, curves (T, 7), phonetic traits, spoken frames (T,) and what was said."""

    rows: dict[str, np.ndarray]
    curves: np.ndarray
    traits: np.ndarray
    active: np.ndarray
    phonemes: list[Phoneme]
    fps: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="judge the shipped weights only")
    parser.add_argument("--readings", type=int, default=900)
    parser.add_argument("--judged", type=int, default=100, metavar="READINGS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=WEIGHTS_FILE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    taught = [name for name in sorted(SENTENCES) if name not in UNHEARD_LANGUAGES]
    voices = [name for name in tts.voices() if not UNFIT_VOICES.search(name)]
    familiar = [name for name in voices if name not in UNHEARD_VOICES]
    # First, so that --check hears the very same readings: eSpeak NG's voice flutters as it goes.
    rng = np.random.default_rng(1)
    unheard = readings(rng, options.judged, list(UNHEARD_LANGUAGES), list(UNHEARD_VOICES))
    if options.check:
        judge(load_universal(), unheard)
        return
    rng = np.random.default_rng(options.seed)
    known = readings(rng, options.readings, taught, familiar)
    if spoken := options.readings // 8:
        onnxruntime.set_seed(options.seed)  # the liveliness of the Piper voice
        piper = load_piper(get("piper-joe"), get("piper-joe-settings"))
        known += readings(rng, spoken, list(PIPER_ACCENTS), [], piper)
    driver = calibrated(teach(known, options.seed), known)
    write_arrays(options.output, driver.arrays())
    print(f"Wrote {options.output}, {options.output.stat().st_size / 1024:.0f} KiB")
    judge(driver, unheard)


def readings(
    rng: np.random.Generator,
    count: int,
    languages: list[str],
    voices: list[str],
    piper: PiperVoice | None = None,
) -> list[Reading]:
    """Sentences read by eSpeak NG in its voices, or by a Piper voice with foreign accents."""
    result: list[Reading] = []
    babble = None
    for _ in track(range(count), "Reading sentences", count):
        language = str(rng.choice(languages))
        text = sentences(rng, language, rng.uniform(5, 9))
        speed = float(np.exp(rng.uniform(np.log(0.7), np.log(1.4))))
        if piper is not None:
            piper.language = language
            speech = piper(text, language, speed)
        else:
            speech = speak(text, language, str(rng.choice(voices)), speed)
        sound, phonemes = staged(rng, speech)
        if rng.random() < 0.92:
            sound = recorded(rng, sound, babble)
        if rng.random() < 0.3:
            babble = sound
        fps = float(rng.choice([25, 25, 25, 24, 30]))
        result.append(reading(sound, phonemes, fps))
    return result


def reading(sound: np.ndarray, phonemes: list[Phoneme], fps: float) -> Reading:
    count = int(np.ceil(len(sound) / SAMPLE_RATE * fps))
    rows = features(sound.astype(np.float32), fps, count)
    rows = {name: row.astype(np.float16).astype(np.float32) for name, row in rows.items()}
    curves = articulation(phonemes, fps, count / fps)[:count].clip(0, 1).astype(np.float32)
    active = activity(rows["mel"], fps)
    return Reading(rows, curves, traits(phonemes, fps, count), active, phonemes, fps)


def sentences(rng: np.random.Generator, language: str, seconds: float) -> str:
    """Text for about so many seconds: sentences in another order, or words; some of others'."""
    source = language
    if language in LATIN and rng.random() < 0.35:
        source = str(rng.choice(LATIN))
    text = SENTENCES[source]
    if rng.random() < 0.5 or " " not in text.strip():
        pieces = [piece for piece in re.split(r"(?<=[.?!。])\s*", text) if piece]
        rng.shuffle(pieces)
        text = " ".join(pieces)
    else:
        words = re.sub(r"[.,?!。、]", " ", text).split()
        rng.shuffle(words)
        text = "".join(
            word + (str(rng.choice([", ", ", ", ". "])) if rng.random() < 0.15 else " ")
            for word in words
        )
    wide = unicodedata.east_asian_width(SENTENCES[source][0]) == "W"
    return text[: int(seconds * (4.5 if wide else 14))] + "."


def staged(rng: np.random.Generator, speech: Speech) -> tuple[np.ndarray, list[Phoneme]]:
    """Sound at 16 kHz by a larger or smaller person, between silences, and its phonemes."""
    up = round(100 * float(np.exp(rng.uniform(-0.18, 0.18))))
    sound = resample_poly(speech.at_16k().astype(np.float64), up, 100)
    lead, tail = rng.uniform(0.1, 0.6), rng.uniform(0.1, 0.5)
    sides = [np.zeros(int(seconds * SAMPLE_RATE)) for seconds in (lead, tail)]
    phonemes = [
        Phoneme(p.ipa, p.start * up / 100 + lead, p.end * up / 100 + lead) for p in speech.phonemes
    ]
    return np.concatenate([sides[0], sound, sides[1]]), phonemes


def recorded(rng: np.random.Generator, sound: np.ndarray, babble: np.ndarray | None) -> np.ndarray:
    """As a microphone in some room hears it: echo, noise, colour, telephones, clipping."""
    if rng.random() < 0.6:
        sound = in_room(rng, sound)
    if rng.random() < 0.75:
        if babble is not None and rng.random() < 0.2:
            noise = np.resize(babble, len(sound))
        else:
            noise = made_noise(rng, len(sound))
        below = 10 ** (-rng.uniform(8, 40) / 20)
        sound = sound + noise * (below * sound.std() / max(noise.std(), 1e-9))
    if rng.random() < 0.6:
        sound = lfilter([1, rng.uniform(-0.6, 0.6)], [1], sound)
    if rng.random() < 0.15:
        sound = sosfilt(butter(3, [250, 3400], "band", fs=SAMPLE_RATE, output="sos"), sound)
    if rng.random() < 0.1:
        sound = np.clip(sound, -2 * sound.std(), 2 * sound.std())
    return sound


def in_room(rng: np.random.Generator, sound: np.ndarray) -> np.ndarray:
    """With an echo that falls by 60 dB in 0.08 to 0.6 s, 0 to 15 dB under the direct sound."""
    length = int(rng.uniform(0.08, 0.6) * SAMPLE_RATE)
    echo = rng.normal(size=length) * 10 ** (-3 * np.arange(length) / length)
    echo[: int(0.002 * SAMPLE_RATE)] = 0
    echo *= 10 ** (-rng.uniform(0, 15) / 20) / np.sqrt((echo**2).sum())
    echo[0] = 1
    return fftconvolve(sound, echo)[: len(sound)]


def made_noise(rng: np.random.Generator, count: int) -> np.ndarray:
    """White or dark noise, or a hum with overtones."""
    white, kind = rng.normal(size=count), rng.integers(3)
    if kind == 0:
        return white
    if kind == 1:
        return lfilter([1], [1, -rng.uniform(0.7, 0.98)], white)
    base, time = rng.uniform(50, 400), np.arange(count) / SAMPLE_RATE
    tones = [np.sin(2 * np.pi * base * k * time + rng.uniform(0, 6)) / k for k in range(1, 6)]
    return np.sum(tones, axis=0) + 0.3 * white


def traits(phonemes: list[Phoneme], fps: float, count: int) -> np.ndarray:
    """(T, 20) `TRAITS` in [0, 1] of what is heard in each frame; zero in silence."""
    fine = 4
    grid = np.arange(count * fine) / (fps * fine)
    values = np.zeros((len(grid), len(TRAITS)), np.float32)
    for ipa, start, end in phonemes:
        symbols = [s for s in unicodedata.normalize("NFD", ipa) if mouths(s)]
        edges = np.linspace(start, end, len(symbols) + 1)
        for symbol, low, high in zip(symbols, edges, edges[1:], strict=False):
            values[(grid >= low) & (grid < high)] = [symbol in letters for letters in TRAITS]
    return values.reshape(count, fine, -1).mean(axis=1)


class Network(nn.Module):
    """The network of `UniversalDriver`, and as many more outputs as there are traits."""

    def __init__(self, columns: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(columns, UNITS)
        self.second = nn.Linear(UNITS * len(CONTEXT), UNITS)
        self.last = nn.Linear(UNITS, outputs)

    def forward(self, x: Tensor, fps: float) -> Tensor:
        """Logits (B, T, outputs) of normalised features (B, T, columns)."""
        noise = torch.randn_like(x) + torch.randn(len(x), 1, x.shape[2])
        below = torch.relu(self.first(dropout(x + INPUT_NOISE * noise, INPUT_DROPOUT)))
        around = torch.cat([moved(dropout(below, LAYERS_DROPOUT), o * fps) for o in CONTEXT], -1)
        return self.last(below + torch.relu(self.second(around)))


def moved(x: Tensor, frames: float) -> Tensor:
    """x (B, T, C) read `frames` later, linearly interpolated; as `avatar3d.motion.windows.taps`."""
    last = x.shape[1] - 1
    position = (torch.arange(last + 1) + frames).clamp(0, last)
    low = position.long().clamp(max=last - 1)
    weight = (position - low)[:, None]
    return x[:, low] * (1 - weight) + x[:, low + 1] * weight


def teach(known: list[Reading], seed: int) -> UniversalDriver:
    """A driver with a trained network, not yet calibrated."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    spoken = np.concatenate([both(r)[r.active] for r in known])
    mean, std = spoken.mean(axis=0), spoken.std(axis=0) + 1e-3
    seen = [
        np.clip(normalised(both(r), r.active, mean, std, r.fps), -CLIP, CLIP).astype(np.float32)
        for r in known
    ]
    wanted = [np.concatenate([r.curves, r.traits], axis=1).astype(np.float32) for r in known]
    outputs = wanted[0].shape[1]
    weight = torch.tensor([1.0] * len(CURVES) + [TRAIT_WEIGHT] * (outputs - len(CURVES)))
    network, rates = Network(len(mean), outputs), np.array([r.fps for r in known])
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
    steps = EPOCHS * len(known) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps + 1, pct_start=0.1)
    for _ in track(range(steps), "Teaching", steps):
        fps = rng.choice(rates)
        chosen = rng.choice(np.flatnonzero(rates == fps), BATCH)
        length = min(FRAMES, *(len(seen[i]) for i in chosen))
        pieces = [(i, int(rng.integers(0, len(seen[i]) - length + 1))) for i in chosen]
        x, y, active = (
            torch.from_numpy(np.stack([source[i][first : first + length] for i, first in pieces]))
            for source in (seen, wanted, [r.active for r in known])
        )
        loss = binary_cross_entropy_with_logits(network(x, float(fps)), y, reduction="none")
        loss = (loss * (active[..., None] * 0.95 + 0.05) * weight).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    layers = {
        name: getattr(network, name).weight.detach().numpy().T.astype(np.float16)
        for name in ("first", "second", "last")
    }
    biases = {
        f"{name}_bias": getattr(network, name).bias.detach().numpy()
        for name in ("first", "second", "last")
    }
    layers["last"] = layers["last"][:, : len(CURVES)]
    biases["last_bias"] = biases["last_bias"][: len(CURVES)]
    line = np.repeat(np.linspace(0, 1, KNOTS)[:, None], len(CURVES), axis=1)
    return UniversalDriver.from_arrays(
        {"mean": mean, "std": std, **layers, **biases, "predicted": line, "wanted": line,
         "closing": np.array([0.0, 1.0])}
    )  # fmt: skip


def both(reading: Reading) -> np.ndarray:
    return np.concatenate([reading.rows["speech"], reading.rows["mel"]], axis=1)


def calibrated(driver: UniversalDriver, known: list[Reading]) -> UniversalDriver:
    """With quantiles of predictions and truth, and the predictions that shut the lips."""
    likely = [driver.likely(driver.hidden(r.rows, r.fps)) for r in known]
    raw = np.concatenate([p[r.active] for p, r in zip(likely, known, strict=True)])
    true = np.concatenate([r.curves[r.active] for r in known])
    levels = np.linspace(0, 1, KNOTS)
    rising = 1e-6 * np.arange(KNOTS)[:, None]
    predicted = np.maximum.accumulate(np.quantile(raw, levels, axis=0)) + rising
    # A curve that is hard to predict (r small) must not be blown up to its full range.
    trust = np.array([correlation(p, t) for p, t in zip(raw.T, true.T, strict=True)])
    wanted = trust * np.quantile(true, levels, axis=0) + (1 - trust) * predicted.clip(0, 1)
    column = CURVES.index("closed")
    peaks = [
        peak for p, r in zip(likely, known, strict=True) for peak, _ in closings(p[:, column], r)
    ]
    shut = float(np.quantile(peaks, 1 - MET))
    return replace(
        driver, predicted=predicted.astype(np.float32), wanted=wanted.astype(np.float32),
        closing=np.array([0.4 * shut, shut], np.float32),
    )  # fmt: skip


def closings(curve: np.ndarray, reading: Reading) -> list[tuple[float, Phoneme]]:
    """The largest value of a curve (T,) within 40 ms of every bilabial."""
    fine = np.arange(0, len(curve) / reading.fps, 0.005)
    values = np.interp(fine, np.arange(len(curve)) / reading.fps, curve)
    result = []
    for phoneme in reading.phonemes:
        if any(mouth.closed for mouth in mouths(phoneme.ipa)):
            near = (fine >= phoneme.start - 0.04) & (fine <= phoneme.end + 0.04)
            if near.any():
                result.append((float(values[near].max()), phoneme))
    return result


def judge(driver: UniversalDriver, unheard: list[Reading]) -> None:
    """Print correlations with the true curves and how often lips meet where they must."""
    found = [driver.curves(r.rows, r.fps) for r in unheard]
    said = np.concatenate([c[r.active] for c, r in zip(found, unheard, strict=True)])
    true = np.concatenate([r.curves[r.active] for r in unheard])
    print(
        f"{len(unheard)} readings in {', '.join(UNHEARD_LANGUAGES)} by {', '.join(UNHEARD_VOICES)}"
    )
    scores = {
        name: round(float(np.corrcoef(said[:, k], true[:, k])[0, 1]), 3)
        for k, name in enumerate(CURVES)
        if true[:, k].any()
    }
    print("correlation with the true curves:", json.dumps(scores))
    column = CURVES.index("closed")
    peaks = [p for c, r in zip(found, unheard, strict=True) for p, _ in closings(c[:, column], r)]
    closed, open_ = (true[:, column] > 0.8), (true[:, 0] > 0.5) & (true[:, column] < 0.05)
    print(
        f"lips shut within 40 ms of m, b, p: {np.mean(np.array(peaks) > 0.9):.3f} of {len(peaks)}"
    )
    print(f"lips shut in closed frames {np.mean(said[closed, column] > 0.5):.3f}, "
          f"in wide open ones {np.mean(said[open_, column] > 0.5):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
