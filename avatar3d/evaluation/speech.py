"""How well a mouth follows speech: measures of audio drivers against a clip and against phonemes.

Lip geometry is that of the head model in its own frame, in metres (`avatar3d.motion.lips`): pose,
camera and pictures play no part. What a viewer sees is measured on renders, by the caller.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from avatar3d.audio.files import SAMPLE_RATE, load_audio
from avatar3d.audio.tts import Phoneme, speak
from avatar3d.evaluation.bootstrap import Estimate, correlated, estimate
from avatar3d.evaluation.metrics import averaged, landmark_distance, level_and_opening
from avatar3d.evaluation.split import TRAIN_FRACTION
from avatar3d.head import load_head
from avatar3d.head.model import ShapedHead
from avatar3d.motion.audio_driver import OFFSETS, AudioDriver
from avatar3d.motion.energy import from_audio_energy
from avatar3d.motion.lips import LipSpace
from avatar3d.motion.motion import Motion
from avatar3d.motion.regression import blocks, fit_ridge
from avatar3d.motion.universal import load_universal
from avatar3d.motion.voices import other_voices
from avatar3d.motion.windows import activity, normalised, taps
from avatar3d.subject import Subject, Tracking

__all__ = [
    "BILABIAL_TEXTS", "Closures", "Mouth", "bilabials", "closures", "energy_agreement", "heard_by",
    "lag", "offset", "silence", "unseen_landmarks", "unseen_parts",
]  # fmt: skip

BILABIAL_TEXTS: dict[str, str] = {
    "en": "My brother's pony jumped above a bumpy path. Please put both lamps by the small bed.",
    "de": "Am Abend probt Emma mit Papa ein Lied. Beim Bäcker bekommt man bald mehr Brombeeren.",
    "fr": "Le pompier a emporté six pommes. Ma belle-mère habite au bout de la promenade.",
    "cmn": "爸爸明天买苹果和面包。妹妹跑步比我慢。",
    "ja": "ぼくは まいばん パンを たべます。ママは ピアノも べんきょう します。",
}
"""What `bilabials` has eSpeak NG say; none of it was used to train a driver."""

_LEAST_SPEECH = 3.0  # seconds that cross-validation takes
_CLOSED = 0.10  # of the clip's 95th percentile of lip opening: about a pixel at 512
_NEAR = 0.04  # seconds
_BILABIAL, _OPEN_VOWELS = "mbp", "aɑæɐɔɛʌ"  # noqa: RUF001
_LARGEST_LAG = 0.25  # seconds
_STEP = 0.005  # seconds between delays that are tried
_LEAST_AGREEMENT = 0.2  # correlation with the sound below which an offset means nothing

Predict = Callable[[np.ndarray], Motion]
"""From sound (N,) at 16 kHz to the motion of a mouth."""


@dataclass(frozen=True)
class Closures:
    """How the lips met the sounds that need them: counts; see `closures`."""

    bilabials: int
    met: int
    open_vowels: int
    shut: int

    def __add__(self, other: "Closures") -> "Closures":
        return Closures(
            self.bilabials + other.bilabials, self.met + other.met,
            self.open_vowels + other.open_vowels, self.shut + other.shut,
        )  # fmt: skip


@dataclass(frozen=True)
class Mouth:
    """The mouth of one captured person, as measured in the clip.

    Attributes:
        subject: with tracking.
        head: its head.
    """

    subject: Subject
    head: ShapedHead

    @classmethod
    def of(cls, subject: Subject) -> "Mouth":
        tracking = subject.tracking
        model = load_head(tracking.head_model)
        return cls(subject, model.shaped(tracking.identity, tracking.landmark_offsets))

    @property
    def tracking(self) -> Tracking:
        return self.subject.tracking

    @cached_property
    def lips(self) -> LipSpace:
        return LipSpace.of(self.head)

    @cached_property
    def spoken(self) -> np.ndarray:
        """(T,) bool, usable frames in which somebody speaks."""
        rows = self.subject.audio_features
        if self.subject.audio_path is None or "speech" not in rows:
            return np.zeros(len(self.tracking), bool)
        return self.tracking.valid.astype(bool) & activity(rows["mel"], self.subject.fps)

    @cached_property
    def voices(self) -> list[dict[str, np.ndarray]]:
        """The clip's sound in other voices, as training hears it."""
        assert self.subject.audio_path is not None
        samples, _ = load_audio(self.subject.audio_path)
        return other_voices(samples, self.subject.fps, len(self.tracking))

    def driver(self, audible: np.ndarray | None = None) -> AudioDriver | None:
        """A driver learnt from the frames `audible` (T,), as training would."""
        if not self.spoken.any():
            return None
        rows, fps = self.subject.audio_features, self.subject.fps
        return AudioDriver.fit(rows, self.tracking, self.head, fps, audible, voices=self.voices)

    def measure(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lip gap and width (T,) metres of weights (T, 52 + R) of all expression rows."""
        moved = self.lips.displacement(weights[:, self.lips.rows].astype(np.float64))
        return self.lips.gap(moved), self.lips.width(moved)

    def opening(self, motion: Motion) -> np.ndarray:
        """(T,) by how much the lips of a motion are open, 1 being the clip's 95th percentile.

        0 is the clip's closed mouth, the mean of its tightest twentieth.
        """
        return self._scaled(self.measure(all_weights(motion, self.tracking.residual.shape[1]))[0])

    @cached_property
    def captured_opening(self) -> np.ndarray:
        """The same of the clip itself."""
        return self._scaled(self.measure(self.tracking.weights)[0])

    def _scaled(self, gap: np.ndarray) -> np.ndarray:
        clip = self.measure(self.tracking.weights[self.tracking.valid])[0]
        closed = clip[clip <= np.quantile(clip, 0.05)].mean()
        return (gap - closed) / max(float(np.quantile(clip, 0.95) - closed), 1e-4)

    def landmarks(self, weights: np.ndarray, frames: range) -> np.ndarray:
        """(T, 478, 2) pixels of a frame 512 pixels large: these weights in the clip's own poses."""
        tracking = self.tracking
        result = []
        for row, frame in zip(weights, frames, strict=True):
            points = self.head.model.landmarks_of(self.head.posed(row))
            pose = tracking.T_camera_head[frame]
            result.append(tracking.camera.project(points @ pose[:3, :3].T + pose[:3, 3]))
        return np.stack(result) * 512 / tracking.size.max()


def all_weights(motion: Motion, residual: int) -> np.ndarray:
    """(T, 52 + R) of a motion that may lack residual rows."""
    assert motion.expression is not None
    rest = np.zeros((len(motion), residual)) if motion.residual is None else motion.residual
    return np.concatenate([motion.expression, rest], axis=1)


def unseen_parts(mouth: Mouth) -> dict[str, np.ndarray]:
    """Lip gap and width of speech that was not learnt from, beside the clip's.

    Blocked five-fold cross-validation over the spoken frames of the whole way from sound to
    weights: everything is learnt anew on four fifths, the rest is predicted.

    Returns:
        (F, 2) metres of the F spoken frames. "clip": what was captured; then by driver:
        "personal"; "prior", the driver for any voice; "energy", that without a model; "mel", ridge
        regression on log-mel spectra alone, regularised as the personal driver is. Empty with too
        little speech.
    """
    subject, frames = mouth.subject, np.flatnonzero(mouth.spoken)
    if len(frames) < _LEAST_SPEECH * subject.fps:
        return {}
    truth = np.stack(mouth.measure(mouth.tracking.weights), axis=1)
    series = {name: np.zeros_like(truth) for name in ("personal", "mel")}
    for train, test in blocks(len(frames), subject.fps):
        audible = np.zeros(len(truth), bool)
        audible[frames[train]] = True
        driver = mouth.driver(audible)
        if driver is None:
            return {}
        series["personal"][frames[test]] = heard_by(driver, mouth, mouth)[frames[test]]
        series["mel"][frames[test]] = _mel_baseline(mouth, truth, frames[train])[frames[test]]
    assert subject.audio_path is not None
    samples, _ = load_audio(subject.audio_path)
    for name, motion in (
        ("prior", load_universal().predict(samples, subject.fps)),
        ("energy", from_audio_energy(samples, subject.fps)),
    ):
        rest = all_weights(motion, mouth.tracking.residual.shape[1])
        full = np.concatenate([rest, np.repeat(rest[-1:], max(0, len(truth) - len(rest)), 0)])
        series[name] = np.stack(mouth.measure(full[: len(truth)]), axis=1)
    return {name: values[frames] for name, values in ({"clip": truth} | series).items()}


def heard_by(driver: AudioDriver, listener: Mouth, speaker: Mouth) -> np.ndarray:
    """(T, 2) metres, gap and width of the listener's lips, by their driver, for another's clip."""
    rows = speaker.subject.audio_features
    weights = np.zeros((len(speaker.tracking), listener.tracking.weights.shape[1]))
    weights[:, driver.lips.rows] = driver.weights(rows, speaker.subject.fps)
    return np.stack(listener.measure(weights), axis=1)


def _mel_baseline(mouth: Mouth, truth: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(T, 2) gap and width by ridge regression on log-mel rows around each frame."""
    rows, fps = mouth.subject.audio_features["mel"], mouth.subject.fps
    active = activity(rows, fps)
    mean, std = rows[active].mean(axis=0), rows[active].std(axis=0) + 1e-3
    x = taps(normalised(rows, active, mean, std, fps), fps, OFFSETS)
    scaled = truth * 1e3
    found = fit_ridge(x[train], scaled[train], np.zeros_like(scaled[train]), fps)
    return found.bias + x @ found.weights


def unseen_landmarks(
    mouth: Mouth, picture: Callable[[Motion, range], np.ndarray | None] | None = None
) -> dict[str, float]:
    """LMD, pixels at 512, of the last 1/11 of the clip, driven by its sound in its own poses.

    Args:
        mouth: the person; the driver is learnt from the first 10/11.
        picture: from a motion of some frames to landmarks (T, 478, 2) found in its renders, in
            pixels at 512; None in the reply leaves "rendered" out.

    Returns:
        "audio": the model's lips against those detected in the recording; "tracked": the same for
        the clip's own expressions, which is the floor; "rendered": the lips found in the renders.
        Empty where nothing can be learnt.
    """
    subject, tracking = mouth.subject, mouth.tracking
    start = int(len(tracking) * TRAIN_FRACTION + 1e-9)
    audible = np.arange(len(tracking)) < start
    if not mouth.spoken.any():
        return {}
    rows = subject.audio_features
    driver = mouth.driver(audible)
    if driver is None:
        return {}
    frames = range(start, len(tracking))
    weights = tracking.weights.astype(np.float64)
    weights[:, driver.lips.rows] = driver.weights(rows, subject.fps)
    truth = tracking.landmarks[start:] * 512 / tracking.size.max()
    result = {
        "audio": landmark_distance(mouth.landmarks(weights[start:], frames), truth),
        "tracked": landmark_distance(mouth.landmarks(tracking.weights[start:], frames), truth),
    }
    if picture is not None:
        motion = tracking.motion(subject.fps)
        driven = replace(motion, expression=weights[:, :52], residual=weights[:, 52:])
        seen = picture(driven.slice(start, len(tracking)), frames)
        if seen is not None:
            result["rendered"] = landmark_distance(seen, truth)
    return result


def silence(mouth: Mouth, predict: Predict) -> dict[str, float]:
    """Mean lip opening where nothing is said, 1 being the clip's 95th percentile.

    Returns:
        "digital" zeros, "noise" of 40 dB below speech, and "pause": 2 s between two sentences.
    """
    rng, fps = np.random.default_rng(0), mouth.subject.fps
    noise = (0.001 * rng.normal(size=2 * SAMPLE_RATE)).astype(np.float32)
    speech = speak("We waited by the door.", "en", None).at_16k()
    with_pause = np.concatenate([speech, 0.2 * noise, speech])
    opening = mouth.opening(predict(with_pause))
    first = len(speech) / SAMPLE_RATE
    pause = opening[round((first + 0.3) * fps) : round((first + 1.7) * fps)]
    still = [mouth.opening(predict(sound)).mean() for sound in (np.zeros_like(noise), noise)]
    return {"digital": float(still[0]), "noise": float(still[1]), "pause": float(pause.mean())}


def bilabials(mouth: Mouth, predict: Predict, voice: str | None = None) -> dict[str, Closures]:
    """How often the lips meet for m, b and p of synthetic speech, by language; `BILABIAL_TEXTS`."""
    result = {}
    for language, text in BILABIAL_TEXTS.items():
        speech = speak(text, language, voice)
        opening = mouth.opening(predict(speech.at_16k()))
        result[language] = closures(opening, mouth.subject.fps, speech.phonemes)
    return result


def closures(opening: np.ndarray, fps: float, phonemes: Sequence[Phoneme]) -> Closures:
    """Judge a lip opening (T,) by the phonemes that were said.

    Closed is an opening under a tenth. A bilabial is met when the lips are closed at some moment
    from 40 ms before to 40 ms after it; an open vowel is missed when they are closed throughout.
    """
    fine = np.arange(0, len(opening) / fps, 0.005)
    closed = np.interp(fine, np.arange(len(opening)) / fps, opening) < _CLOSED
    met, missed = [], []
    for ipa, start, end in phonemes:
        if any(letter in ipa for letter in _BILABIAL):
            met.append(bool(closed[(fine >= start - _NEAR) & (fine <= end + _NEAR)].any()))
        elif any(letter in ipa for letter in _OPEN_VOWELS):
            missed.append(bool(closed[(fine >= start) & (fine <= end)].all()))
    return Closures(len(met), sum(met), len(missed), sum(missed))


def offset(opening: np.ndarray, samples: np.ndarray, fps: float) -> Estimate:
    """Seconds by which the sound follows the lips best: the peak of their cross-correlation.

    Lip opening (T,) against the level of the sound (N,) at 16 kHz in dB; between steps of 5 ms a
    parabola. Positive: the lips lead. NaN without a clear peak within 0.25 s, as for faces that do
    more than speak. Lips follow what is said, not how loud: see how wide the interval is.
    """
    level = _level(samples, _STEP)
    return _delay(_resampled(opening, fps, len(level)), level)


def lag(opening: np.ndarray, true: np.ndarray, fps: float) -> Estimate:
    """Seconds by which lips (T,) follow the true ones (T,), likewise; negative when they lead.

    Lips are more alike than lips and loudness, so seconds of speech suffice.
    """
    count = int(len(true) / fps / _STEP)
    return _delay(_resampled(true, fps, count), _resampled(opening, fps, count))


def _resampled(series: np.ndarray, fps: float, count: int) -> np.ndarray:
    return np.interp(np.arange(count) * _STEP, np.arange(len(series)) / fps, series)


def _delay(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Seconds by which `second` follows `first`, both (N,) every `_STEP` seconds."""
    reach = round(_LARGEST_LAG / _STEP)
    count = len(first) - 2 * reach
    if count < 1 / _STEP:
        return Estimate(*[float("nan")] * 3)
    inner = first[reach : reach + count]
    moved = np.lib.stride_tricks.sliding_window_view(second, count)[: 2 * reach + 1]
    clear = _peak(inner, moved)[1] >= _LEAST_AGREEMENT
    found = estimate(lambda i: _peak(inner[i], moved[:, i])[0], count, 1 / _STEP)
    edge = abs(found.value) >= _LARGEST_LAG - _STEP / 2
    return found if clear and not edge else replace(found, value=float("nan"))


def _peak(fixed: np.ndarray, moved: np.ndarray) -> tuple[float, float]:
    """Seconds and correlation with `fixed` (N,) of the best row of `moved` (2 * R + 1, N)."""
    fixed = fixed - fixed.mean()
    moved = moved - moved.mean(axis=1, keepdims=True)
    norms = np.sqrt((moved**2).sum(axis=1) * (fixed @ fixed))
    scores = moved @ fixed / np.maximum(norms, 1e-12)
    best, reach = int(np.argmax(scores)), len(scores) // 2
    position = float(best - reach)
    if 0 < best < len(scores) - 1:
        before, here, after = scores[best - 1 : best + 2]
        bend = before - 2 * here + after
        position += 0.5 * (before - after) / bend if bend < 0 else 0.0
    return position * _STEP, float(scores[best])


def energy_agreement(
    opening: np.ndarray, samples: np.ndarray, fps: float, among: np.ndarray | None = None
) -> Estimate:
    """Correlation of the lip opening (T,) with the level of the sound (N,) at 16 kHz.

    Means over 0.2 s. Most of it is that mouths rest in pauses, so it depends on how many of them
    a recording has: in a few seconds without a pause it says little, as its interval shows.

    Args:
        among: (T,) bool, the frames to judge, such as those of speech; default all.
    """
    frames = level_and_opening(opening, fps, samples, SAMPLE_RATE)
    level, lips = averaged(frames, fps)
    if among is not None:
        begin = (len(frames[0]) - len(level)) // 2
        judged = among[begin : begin + len(level)]
        level, lips = level[judged], lips[judged]
    return correlated(level, lips, fps)


def _level(samples: np.ndarray, step: float) -> np.ndarray:
    """Level in dB every `step` seconds, of 50 ms of sound, not below 50 dB under the loudest."""
    count = int(len(samples) / SAMPLE_RATE / step)
    window = round(0.05 * SAMPLE_RATE)
    total = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    middle = (np.arange(count) * step * SAMPLE_RATE).astype(int)
    low, high = np.maximum(middle - window // 2, 0), np.minimum(middle + window // 2, len(samples))
    power = (total[high] - total[low]) / window
    level = 10 * np.log10(np.maximum(power, 1e-12))
    return np.maximum(level, level.max() - 50)
