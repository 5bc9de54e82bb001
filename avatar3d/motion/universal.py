"""A mouth for any voice, learnt from synthetic speech whose phonemes are known.

eSpeak NG reads sentences in a dozen languages in several voices. The phonemes give articulation
curves (`avatar3d.motion.visemes`), the sound gives speech embeddings, and a ridge regression from
the one to the other then serves for any human voice. No recording of a person is involved.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.assets import cache_folder
from avatar3d.audio import features
from avatar3d.audio.files import SAMPLE_RATE
from avatar3d.errors import UserError
from avatar3d.io.arrays import write_arrays
from avatar3d.motion.articulation import CURVES, to_arkit
from avatar3d.motion.motion import Motion
from avatar3d.motion.sentences import SENTENCES
from avatar3d.motion.visemes import articulation
from avatar3d.motion.windows import activity, gate, in_parts, normalised, taps

__all__ = ["UniversalDriver", "load_universal"]

_FPS = 25.0
_OFFSETS = (-0.08, -0.04, 0.0, 0.04, 0.08)
_FOURTH = slice(288, 480)  # the layer that sees 0.4 s; adding the third one transfers less well
_VOICES = (None, "f2", "m3", "Annie")
_RIDGE = 0.5
_KNOTS = 33
_INGREDIENTS = (
    "audio/embedding.py", "audio/features.py", "audio/mel.py", "audio/tts.py",
    "motion/articulation.py", "motion/phonetics.py", "motion/sentences.py", "motion/universal.py",
    "motion/visemes.py", "motion/windows.py",
)  # fmt: skip


@dataclass(frozen=True)
class UniversalDriver:
    """Speech features to articulation curves; the same for everybody.

    Attributes:
        mean, std: (192,) statistics of the embedding's fourth pooling layer over spoken frames.
        weights: (960, 7), bias (7,): curves = taps @ weights + bias; columns as `CURVES`.
        predicted, wanted: (33, 7) matching quantiles of predictions and of the true curves. A
            regression hedges towards the mean; mapping quantiles gives lips back their full range.
    """

    mean: np.ndarray
    std: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    predicted: np.ndarray
    wanted: np.ndarray

    def curves(self, rows: dict[str, np.ndarray], fps: float) -> np.ndarray:
        """Articulation curves (T, 7) of features as `avatar3d.audio.features` gives them.

        Raises:
            UserError: the features have no "speech" rows.
        """
        if "speech" not in rows:
            raise UserError(
                "The universal audio driver needs speech embeddings; install onnxruntime and run "
                "`avatar3d assets fetch speech-embedding`."
            )
        active = activity(rows["mel"], fps)
        speech = normalised(rows["speech"][:, _FOURTH], active, self.mean, self.std, fps)
        raw = self._spread(taps(speech, fps, _OFFSETS) @ self.weights + self.bias, active, fps)
        mapped = [
            np.interp(raw[:, k], self.predicted[:, k], self.wanted[:, k])
            for k in range(len(CURVES))
        ]
        return np.stack(mapped, axis=1) * gate(active, fps)[:, None]

    def _spread(self, raw: np.ndarray, active: np.ndarray, fps: float) -> np.ndarray:
        """Predictions with the variance that they had in training; human voices give less."""
        spoken, prior = raw[active], 2.0 * fps
        center, expected = self.predicted.mean(axis=0), self.predicted.var(axis=0)
        found = ((spoken - center) ** 2).sum(axis=0) + prior * expected
        gain = np.sqrt(expected * (len(spoken) + prior) / found)
        return center + (raw - center) * np.clip(gain, 1.0, 1.6)

    def predict(self, samples: np.ndarray, fps: float, opening: float = 1.0) -> Motion:
        """Expression of the mouth for sound (N,) at 16 kHz; closed and neutral in silence."""
        curves = in_parts(
            samples, fps, lambda piece, count: self.curves(features(piece, fps, count), fps)
        )
        return Motion(fps=fps, expression=to_arkit(curves, opening), source="universal driver")

    def arrays(self) -> dict[str, np.ndarray]:
        return {f.name: np.asarray(getattr(self, f.name), np.float32) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "UniversalDriver":
        """Raises UserError when an array is missing, misshapen or not finite."""
        width = (_FOURTH.stop - _FOURTH.start,)
        shapes = {
            "mean": width, "std": width, "weights": (width[0] * len(_OFFSETS), len(CURVES)),
            "bias": (len(CURVES),), "predicted": (_KNOTS, len(CURVES)),
            "wanted": (_KNOTS, len(CURVES)),
        }  # fmt: skip
        for name, shape in shapes.items():
            array = arrays.get(name)
            if array is None or array.shape != shape or not np.isfinite(array).all():
                raise UserError(
                    f"The universal audio driver is damaged at {name!r}; make it again."
                )
        return cls(**{name: np.asarray(arrays[name], np.float32) for name in shapes})

    @classmethod
    def fit(cls, voices: tuple[str | None, ...] = _VOICES, seed: int = 0) -> "UniversalDriver":
        """Learn from synthetic speech; some seconds.

        Raises:
            UserError: eSpeak NG, onnxruntime or the speech embedding is missing.
        """
        rows, curves, active = _synthetic_data(voices, np.random.default_rng(seed))
        spoken = np.concatenate([r[a] for r, a in zip(rows, active, strict=True)])
        mean, std = spoken.mean(axis=0), spoken.std(axis=0) + 1e-3
        x = np.concatenate(
            [
                taps(normalised(r, a, mean, std, _FPS), _FPS, _OFFSETS)
                for r, a in zip(rows, active, strict=True)
            ]
        )
        y, spoken_frames = np.concatenate(curves), np.concatenate(active)
        center = x.mean(axis=0)
        x -= center
        gram = x.T @ x + _RIDGE * len(x) * np.eye(x.shape[1], dtype=x.dtype)
        weights = np.linalg.solve(gram, x.T @ (y - y.mean(axis=0)))
        bias = y.mean(axis=0) - center @ weights
        levels = np.linspace(0, 1, _KNOTS)
        raw = (x @ weights + y.mean(axis=0))[spoken_frames]
        predicted = np.maximum.accumulate(
            np.quantile(raw, levels, axis=0) + 1e-6 * np.arange(_KNOTS)[:, None]
        )
        # A curve that is hard to predict (r small) must not be blown up to its full range.
        y = y[spoken_frames]
        trust = np.array([np.corrcoef(raw[:, k], y[:, k])[0, 1] for k in range(len(CURVES))])
        wanted = trust * np.quantile(y, levels, axis=0) + (1 - trust) * np.clip(predicted, 0, 1)
        return cls.from_arrays(
            {"mean": mean, "std": std, "weights": weights, "bias": bias,
             "predicted": predicted, "wanted": wanted}
        )  # fmt: skip


def _synthetic_data(
    voices: tuple[str | None, ...], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Embedding rows, articulation curves and spoken frames, one entry per reading."""
    from scipy.signal import lfilter

    from avatar3d.audio.tts import speak
    from avatar3d.progress import track

    rows, curves, active = [], [], []
    jobs = [(language, voice) for language in SENTENCES for voice in voices]
    for language, voice in track(jobs, "Learning from synthetic speech"):
        speech = speak(SENTENCES[language], language, voice)
        sound = speech.at_16k()
        # Rooms and microphones: noise at 15 to 40 dB below the voice, and a tilted spectrum.
        noise = rng.normal(size=len(sound)) * sound.std() * 10 ** (-rng.uniform(15, 40) / 20)
        sound = lfilter([1, rng.uniform(-0.5, 0.5)], [1], sound + noise).astype(np.float32)
        target = articulation(speech.phonemes, _FPS, len(sound) / SAMPLE_RATE)
        found: dict[str, Any] = features(sound, _FPS, len(target))
        if "speech" not in found:
            raise UserError(
                "Learning from synthetic speech needs speech embeddings; install onnxruntime and "
                "run `avatar3d assets fetch speech-embedding`."
            )
        rows.append(found["speech"][:, _FOURTH])
        curves.append(target)
        active.append(activity(found["mel"], _FPS))
    return rows, curves, active


@lru_cache(maxsize=1)
def load_universal() -> UniversalDriver:
    """The universal driver, learnt at first use on this machine and cached on disk.

    Raises:
        UserError: as `UniversalDriver.fit`.
    """
    path = cache_folder() / "drivers" / f"universal-{_recipe()}.npz"
    try:
        with np.load(path, allow_pickle=False) as data:
            return UniversalDriver.from_arrays(dict(data))
    except (OSError, ValueError, UserError):
        driver = UniversalDriver.fit()
    # Where the cache cannot be written the driver is learnt again next time.
    with suppress(UserError):
        write_arrays(path, driver.arrays(), compressed=False)
    return driver


def _recipe() -> str:
    """Hash of the code that makes the driver, so that a cached one is never out of date."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for part in _INGREDIENTS:
        digest.update((package / part).read_bytes())
    return digest.hexdigest()[:16]
