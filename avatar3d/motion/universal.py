"""A mouth for any voice: a small network that was taught by synthetic speech with known phonemes.

`tools/train_speech_prior.py` had speech synthesisers read sentences in many languages and voices.
Their phonemes give articulation curves (`avatar3d.motion.visemes`), their sound, in rooms and
noise, gives speech features; the network learnt the one from the other. Its weights lie beside
this file. No recording of a person is involved.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np

from avatar3d.audio import features
from avatar3d.errors import UserError
from avatar3d.io.arrays import read_arrays
from avatar3d.motion.articulation import CURVES, to_arkit
from avatar3d.motion.motion import Motion
from avatar3d.motion.windows import activity, gate, in_parts, normalised, taps

__all__ = ["CONTEXT", "KNOTS", "WEIGHTS_FILE", "UniversalDriver", "load_universal"]

CONTEXT = (-0.08, -0.04, 0.0, 0.04, 0.08)
"""Seconds around a frame at which the second layer reads the first; any frame rate will do. The
features themselves hear 0.2 s to both sides."""
KNOTS = 33
CLIP = 5.0
"""Deviations from the mean beyond which a feature says no more."""
WEIGHTS_FILE = Path(__file__).with_name("universal.npz")
_COLUMNS = 480 + 80
_LARGEST = 8 << 20  # bytes
_MOST_UNITS = 256
_PEAK_SECONDS, _PEAK = 0.06, 0.8
_CLOSED = CURVES.index("closed")


@dataclass(frozen=True)
class UniversalDriver:
    """Speech features to articulation curves; the same for everybody. H units.

    Attributes:
        mean, std: (560,) of embedding and log-mel columns over the training's spoken frames.
        first: (560, H), first_bias (H,): from normalised features to the first layer.
        second: (5 * H, H), second_bias (H,): added to it, from the first layer at `CONTEXT`.
        last: (H, 7), last_bias (7,): to the logits of the curves; columns as `CURVES`.
        predicted, wanted: (33, 7) matching quantiles of predictions and of the true curves. A
            network hedges towards the mean; mapping quantiles gives lips back their full range.
        closing: (2,) prediction for "closed" from which lips begin to close, and are shut.
    """

    mean: np.ndarray
    std: np.ndarray
    first: np.ndarray
    first_bias: np.ndarray
    second: np.ndarray
    second_bias: np.ndarray
    last: np.ndarray
    last_bias: np.ndarray
    predicted: np.ndarray
    wanted: np.ndarray
    closing: np.ndarray

    def hidden(self, rows: dict[str, np.ndarray], fps: float) -> np.ndarray:
        """What the network makes of the sound, (T, H): phonetic features for other regressors.

        Args:
            rows: features as `avatar3d.audio.features` gives them; fps: rows per second.

        Raises:
            UserError: the features have no "speech" rows.
        """
        if "speech" not in rows:
            raise UserError(
                "The universal audio driver needs speech embeddings; install onnxruntime and run "
                "`avatar3d assets fetch speech-embedding`."
            )
        both = np.concatenate([rows["speech"], rows["mel"]], axis=1)
        clean = normalised(both, activity(rows["mel"], fps), self.mean, self.std, fps)
        clean = np.clip(clean, -CLIP, CLIP).astype(np.float32)
        below = np.maximum(clean @ self.first + self.first_bias, 0)
        around = taps(below, fps, CONTEXT)
        return below + np.maximum(around @ self.second + self.second_bias, 0)

    def curves(self, rows: dict[str, np.ndarray], fps: float) -> np.ndarray:
        """Articulation curves (T, 7) of features; arguments as `hidden`."""
        return self.curves_of(self.hidden(rows, fps), rows["mel"], fps)

    def curves_of(
        self, hidden: np.ndarray, mel: np.ndarray, fps: float, shut: bool = True
    ) -> np.ndarray:
        """The curves (T, 7) for what `hidden` gave (T, H) of the same sound.

        Args:
            hidden: of T frames; mel: their log-mel rows; fps: frames per second.
            shut: bring "closed" to 1 where a closure is likely. False leaves the hedged estimate,
                which is better to learn from.
        """
        active = activity(mel, fps)
        raw = self._spread(self.likely(hidden), active, fps)
        tables = (raw.T, self.predicted.T, self.wanted.T)
        mapped = np.stack([np.interp(r, p, w) for r, p, w in zip(*tables, strict=True)], axis=1)
        if shut:
            certain = self._closures(raw[:, _CLOSED], fps)
            mapped[:, _CLOSED] = np.maximum(mapped[:, _CLOSED], certain)
        return mapped * gate(active, fps)[:, None]

    def _closures(self, likely: np.ndarray, fps: float) -> np.ndarray:
        """(T,) in [0, 1], 1 around those peaks of `likely` (T,) that are high enough.

        Closures are short, and the network blurs them: only near the peak are the lips shut.
        """
        from scipy.ndimage import maximum_filter1d

        begin, shut = self.closing
        closed = np.clip((likely - begin) / (shut - begin), 0, 1)
        reach = 2 * max(1, round(_PEAK_SECONDS * fps)) + 1
        peak = np.maximum(maximum_filter1d(likely, reach), 1e-6)
        near = np.clip((likely / peak - _PEAK) / (1 - _PEAK) * 2, 0, 1)
        return closed * closed * (3 - 2 * closed) * near

    def likely(self, hidden: np.ndarray) -> np.ndarray:
        """The network's own answer in [0, 1] (T, 7), hedged towards the mean."""
        return 1 / (1 + np.exp(-(hidden @ self.last + self.last_bias)))

    def _spread(self, raw: np.ndarray, active: np.ndarray, fps: float) -> np.ndarray:
        """Predictions with the variance that they had in training; human voices give less."""
        spoken, prior = raw[active], 2.0 * fps
        center, expected = self.predicted.mean(axis=0), self.predicted.var(axis=0)
        found = ((spoken - center) ** 2).sum(axis=0) + prior * expected
        gain = np.sqrt(expected * (len(spoken) + prior) / np.maximum(found, 1e-12))
        return center + (raw - center) * np.clip(gain, 1.0, 1.6)

    def predict(self, samples: np.ndarray, fps: float, opening: float = 1.0) -> Motion:
        """Expression of the mouth for sound (N,) at 16 kHz; closed and neutral in silence."""
        curves = in_parts(
            samples, fps, lambda piece, _, count: self.curves(features(piece, fps, count), fps)
        )
        return Motion(fps=fps, expression=to_arkit(curves, opening), source="universal driver")

    def arrays(self) -> dict[str, np.ndarray]:
        """Plain float arrays; the large ones in half precision, which they were rounded to."""
        result = {f.name: np.asarray(getattr(self, f.name), np.float32) for f in fields(self)}
        for name in ("first", "second", "last"):
            result[name] = result[name].astype(np.float16)
        return result

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "UniversalDriver":
        """Raises UserError when an array is missing, misshapen or not finite."""
        bias = arrays.get("first_bias", np.zeros(0))
        units = bias.size if bias.ndim == 1 and bias.size <= _MOST_UNITS else 0
        curves = len(CURVES)
        shapes: dict[str, tuple[int, ...]] = {
            "mean": (_COLUMNS,), "std": (_COLUMNS,),
            "first_bias": (max(units, 1),), "first": (_COLUMNS, units),
            "second": (units * len(CONTEXT), units), "second_bias": (units,),
            "last": (units, curves), "last_bias": (curves,),
            "predicted": (KNOTS, curves), "wanted": (KNOTS, curves), "closing": (2,),
        }  # fmt: skip
        values = {}
        for name, shape in shapes.items():
            array = arrays.get(name)
            if array is None or array.shape != shape or not np.isfinite(array).all():
                raise _damaged(name)
            values[name] = np.asarray(array, np.float32)
        if values["closing"][0] >= values["closing"][1]:
            raise _damaged("closing")
        return cls(**values)


def _damaged(name: str) -> UserError:
    return UserError(
        f"The universal audio driver is damaged at {name!r}; train the avatar or install avatar3d "
        "again."
    )


@lru_cache(maxsize=1)
def load_universal() -> UniversalDriver:
    """The universal driver that comes with the package.

    Raises:
        UserError: its file is missing or damaged, or speech embeddings cannot be computed here.
    """
    from avatar3d.audio.embedding import available

    if not available():
        raise UserError(
            "The universal audio driver needs speech embeddings; install onnxruntime and run "
            "`avatar3d assets fetch speech-embedding`."
        )
    try:
        return UniversalDriver.from_arrays(read_arrays(WEIGHTS_FILE, _LARGEST))
    except (OSError, ValueError) as error:
        raise UserError(
            f"The universal audio driver {WEIGHTS_FILE} is damaged; install avatar3d again."
        ) from error
