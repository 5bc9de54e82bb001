"""How one person's mouth moves with speech, learnt from their own recording."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from avatar3d.audio.features import features
from avatar3d.audio.files import SAMPLE_RATE
from avatar3d.head.model import HeadModel, ShapedHead
from avatar3d.motion.articulation import CURVES, to_arkit
from avatar3d.motion.lips import LipSpace
from avatar3d.motion.motion import Motion
from avatar3d.motion.mouth_shapes import MouthShapes
from avatar3d.motion.universal import UniversalDriver
from avatar3d.motion.visemes import articulation
from avatar3d.motion.windows import activity, gate, in_parts, normalised, taps
from avatar3d.subject.tracking import Tracking

__all__ = ["AudioDriver"]

OFFSETS = (-0.08, -0.04, 0.0, 0.04, 0.08)
"""Seconds around a frame at which features are read. A row of the embedding itself hears 0.2 s to
both sides, so the mouth knows 0.28 s of what is to come."""
PERSONAL = "audio driver"
"""`Motion.source` of what `AudioDriver` makes."""
MEL_WEIGHT = 0.3
KNOTS = 33
_SMOOTH_SECONDS = 0.018  # tames frame-to-frame noise to that of a tracked mouth


@dataclass(frozen=True)
class AudioDriver:
    """Sound to mouth motion of one person. Make it with `AudioDriver.fit`.

    Speech features, what the universal network makes of them, and its mouth go through a ridge
    regression to K components of lip motion, get back the amplitude that a regression loses, and
    become weights of the person's own mouth shapes. Where the phonemes of the sound are known,
    their mouth takes the place of the universal one. C feature columns.

    Attributes:
        universal: the driver for any voice that this one corrects.
        lips, shapes: this person's lip geometry and mouth shapes.
        mean, std: (C,) statistics of `heard` over the clip's spoken frames.
        map: (C * 5, K), bias (K,), slope (K,): components = bias + slope * prior + taps @ map.
        middle: (K,) metres, mean while speaking; gain: (K,) factor around it that restores the
            amplitude; spread: (K,) metres, the resulting deviation.
        gap_predicted, gap_wanted: (33,) metres, matching quantiles of the lip gap.
        lead: seconds by which the lips are ahead of the sound, as in the clip, unless it was too
            much to be natural (`avatar3d.motion.audio_training`).
        residual_count: R, rows of the head model after the 52.
        report: what was found, numbers and short texts; see `fit`.
    """

    universal: UniversalDriver
    lips: LipSpace
    shapes: MouthShapes
    mean: np.ndarray
    std: np.ndarray
    map: np.ndarray
    bias: np.ndarray
    slope: np.ndarray
    middle: np.ndarray
    gain: np.ndarray
    spread: np.ndarray
    gap_predicted: np.ndarray
    gap_wanted: np.ndarray
    lead: float
    residual_count: int
    report: dict[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def fit(
        cls,
        features: dict[str, np.ndarray],
        tracking: Tracking,
        head: ShapedHead | HeadModel,
        fps: float,
        audible: np.ndarray | None = None,
        universal: UniversalDriver | None = None,
        voices: Sequence[dict[str, np.ndarray]] = (),
    ) -> "AudioDriver | None":
        """Learn from a captured clip with speech; see `avatar3d.motion.audio_training`.

        Args:
            features: of the clip's sound, one row per frame (`avatar3d.audio.features`).
            tracking: of the same frames.
            head: this person's head, or the model it came from.
            fps: frames per second of both.
            audible: (T,) bool, frames whose sound may be used; default all.
            universal: default `load_universal()`.
            voices: features of the same frames in other voices, so that the driver does not hang
                on this one (`avatar3d.motion.voices`).

        Returns:
            None, after saying why, when there is too little speech or no speech embedding; the
            universal or the energy driver must do then. The report has "lip_gap_correlation" and
            "lip_width_correlation" (blocked five-fold cross-validation over spoken frames),
            "speech_seconds", "sound_delay" (how much later than the lips the clip's sound is,
            seconds) and "method".

        Raises:
            UserError: features, tracking and head do not belong together.
        """
        from avatar3d.motion.audio_training import fit_audio_driver

        return fit_audio_driver(features, tracking, head, fps, audible, universal, voices)

    def predict(
        self, samples: np.ndarray, fps: float, phonemes: Sequence[tuple[str, float, float]] = ()
    ) -> Motion:
        """Mouth motion (expression and residual) for sound of any voice.

        Only the mouth's weights are set; brows, eyes, pose and gaze come from elsewhere
        (`avatar3d.motion.speech`). In silence the mouth rests closed as this person's does.

        Args:
            samples: (N,) mono sound at 16 kHz, of any length.
            fps: frames per second of the motion, ceil(duration * fps) frames.
            phonemes: (IPA, start, end) in seconds, what is said when, where that is known.

        Raises:
            UserError: empty or broken sound, or speech embeddings cannot be computed here.
        """
        known = articulation(phonemes, fps, len(samples) / SAMPLE_RATE) if phonemes else None

        def rows_of(piece: np.ndarray, first: int, count: int) -> np.ndarray:
            said = None if known is None else known[first : first + count]
            return self.weights(features(piece, fps, count), fps, said)

        weights = in_parts(samples, fps, rows_of)
        expression = np.zeros((len(weights), 52 + self.residual_count), np.float32)
        expression[:, self.lips.rows] = weights
        return Motion(
            fps=fps,
            expression=expression[:, :52],
            residual=expression[:, 52:] if self.residual_count else None,
            source=PERSONAL,
        )

    def weights(
        self, rows: dict[str, np.ndarray], fps: float, said: np.ndarray | None = None
    ) -> np.ndarray:
        """Mouth weights (T, M) of feature rows; columns as `lips.rows`.

        Args:
            rows: features of T frames; fps: frames per second.
            said: (T, 7) articulation curves, where the phonemes are known.
        """
        from scipy.ndimage import gaussian_filter1d

        mel = rows["mel"]
        active = activity(mel, fps)
        speaking = gate(active, fps)
        hidden = self.universal.hidden(rows, fps)
        soft = said if said is not None else self.universal.curves_of(hidden, mel, fps, shut=False)
        hard = said if said is not None else self.universal.curves_of(hidden, mel, fps)
        # Lips that meet do so when it is heard: a lead, and halves of frames, would blur it.
        prior = prior_components(taps(soft, fps, (0.0,), self.lead), self.lips, self.shapes)
        seen = inputs(heard(rows, hidden), active, self.mean, self.std, fps, self.lead)
        raw = self.bias + self.slope * prior + seen @ self.map
        components = self._level(self.middle + self.gain * (raw - self.middle), active, fps)
        shape = self.shapes.displacement(components)
        shape = gaussian_filter1d(shape, _SMOOTH_SECONDS * fps, axis=0, mode="nearest")
        shape = shape + self._gap_change(shape, hard)[:, None] * self.shapes.basis[0]
        rest = self.shapes.rest_shape
        shape = rest + speaking[:, None] * (shape - rest)
        return self.shapes.weights(shape, speaking, self.lips).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Plain float arrays from which `from_arrays` rebuilds the driver, without the report."""
        result: dict[str, Any] = {name: getattr(self, name) for name in _OWN}
        result |= {"residual_count": self.residual_count, "lead": self.lead}
        for prefix, part in (("lips", self.lips), ("shapes", self.shapes)):
            for f in fields(part):
                result[f"{prefix}.{f.name}"] = getattr(part, f.name)
        arrays = {name: np.asarray(array, np.float32) for name, array in result.items()}
        return arrays | {f"universal.{n}": array for n, array in self.universal.arrays().items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "AudioDriver":
        """Rebuild a driver from untrusted arrays.

        Raises:
            UserError: an array is missing, of an impossible shape, or not finite.
        """
        from avatar3d.motion.driver_arrays import driver_from_arrays

        return driver_from_arrays(arrays)

    def _level(self, components: np.ndarray, active: np.ndarray, fps: float) -> np.ndarray:
        """Components with the deviation of the clip: unfamiliar voices move the model less."""
        spoken, prior = components[active], 2.0 * fps
        expected = self.spread**2
        found = ((spoken - self.middle) ** 2).sum(axis=0) + prior * expected
        ratio = np.sqrt(expected * (len(spoken) + prior) / np.maximum(found, 1e-18))
        return self.middle + (components - self.middle) * np.clip(ratio, 1.0, 1.5)

    def _gap_change(self, shape: np.ndarray, curves: np.ndarray) -> np.ndarray:
        """(T,) metres to add to the lip gap: the clip's own range, and shut on bilabials."""
        gap = self.lips.gap(shape)
        wanted = np.interp(gap, self.gap_predicted, self.gap_wanted)
        shut = np.clip((curves[:, CURVES.index("closed")] - 0.55) / 0.35, 0, 1)
        least = self.gap_wanted[0]
        return least + (wanted - least) * (1 - shut) - gap


_OWN = (
    "mean", "std", "map", "bias", "slope", "middle", "gain", "spread", "gap_predicted",
    "gap_wanted",
)  # fmt: skip


def heard(rows: dict[str, np.ndarray], hidden: np.ndarray) -> np.ndarray:
    """(T, C) all that the regression knows of the sound: 480 embedding and 80 mel columns, then
    what the universal network made of them (T, H)."""
    return np.concatenate([rows["speech"], rows["mel"], hidden], axis=1)


def inputs(
    columns: np.ndarray,
    active: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    fps: float,
    shift: float = 0.0,
) -> np.ndarray:
    """(T, C * 5) normalised, weighted columns of `heard` around each frame, `shift` s later."""
    clean = normalised(columns, active, mean, std, fps)
    groups = np.array([480, 80, columns.shape[1] - 560])
    scale = np.repeat(np.sqrt([1.0, MEL_WEIGHT, 1.0] / groups), groups)
    return taps((clean * scale).astype(np.float32), fps, OFFSETS, shift)


def prior_components(curves: np.ndarray, lips: LipSpace, shapes: MouthShapes) -> np.ndarray:
    """(T, K) lip components of articulation curves (T, 7) on this head."""
    weights = np.zeros((len(curves), int(lips.rows.max()) + 1), np.float32)
    weights[:, :52] = to_arkit(curves)
    return shapes.components(lips.displacement(weights[:, lips.rows]) + shapes.rest_shape)
