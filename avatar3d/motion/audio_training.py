"""Fitting an `AudioDriver` to a captured clip."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from avatar3d.errors import UserError
from avatar3d.head.model import HeadModel, ShapedHead
from avatar3d.motion.audio_driver import KNOTS, AudioDriver, heard, inputs, prior_components
from avatar3d.motion.lips import LipSpace
from avatar3d.motion.mouth_shapes import MouthShapes
from avatar3d.motion.regression import RidgeFit, fit_ridge
from avatar3d.motion.universal import UniversalDriver, load_universal
from avatar3d.motion.windows import activity, taps
from avatar3d.progress import say
from avatar3d.subject.tracking import Tracking

__all__ = ["MIN_SPEECH", "fit_audio_driver", "restored_amplitude"]

MIN_SPEECH = 1.5
"""Seconds of speech below which nothing personal can be learnt."""
LITTLE_SPEECH = 2.0
"""Seconds below which only the universal mouth is scaled to the person."""
_MOST_FRAMES = 3000  # more is redundant: the regression then takes every second frame, and so on
_WIDEST = 0.985  # quantile of the lip gap: what was seen once or twice is not asked for
_DELAYS = np.arange(-0.12, 0.121, 0.02)
_LEADS = (-0.04, 0.04)
"""Seconds of the clip's delay that stay, as nobody notices them: they may be the person's way, or
the estimate's error; more is the camera's."""
_DELAY_PENALTY = 0.2  # of correlation, for a delay of 0.1 s


def fit_audio_driver(
    features: dict[str, np.ndarray],
    tracking: Tracking,
    head: ShapedHead | HeadModel,
    fps: float,
    audible: np.ndarray | None = None,
    universal: UniversalDriver | None = None,
    voices: Sequence[dict[str, np.ndarray]] = (),
) -> AudioDriver | None:
    """See `AudioDriver.fit`."""
    model = head.model if isinstance(head, ShapedHead) else head
    for heard_as in (features, *voices):
        _check(heard_as, tracking, model)
    if "speech" not in features:
        say("No speech embedding, so no personal audio driver: the mouth will follow the energy.")
        return None
    seen = tracking.valid.astype(bool)
    if audible is not None:
        seen = seen & np.asarray(audible, bool)
    usable = seen & activity(features["mel"], fps)
    seconds = float(usable.sum() / fps)
    if seconds < MIN_SPEECH:
        say(f"Only {seconds:.1f} s of speech, so the mouth will follow the universal driver.")
        return None
    if isinstance(head, HeadModel):
        head = head.shaped(tracking.identity, tracking.landmark_offsets)
    lips = LipSpace.of(head)
    weights = tracking.weights[:, lips.rows].astype(np.float64)
    shapes = MouthShapes.of(weights[seen], lips)
    try:
        universal = universal or load_universal()
    except UserError as error:
        say(f"No personal audio driver: {error}")
        return None
    driver = _fit([features, *voices], weights, usable, lips, shapes, fps, universal, model)
    gap, width = (driver.report[f"lip_{name}_correlation"] for name in ("gap", "width"))
    say(
        f"The mouth follows speech ({driver.report['method']}, {seconds:.0f} s of speech); on "
        f"unseen parts of the clip it predicts lip gap with correlation {gap:.2f} and width with "
        f"{width:.2f}."
    )
    return driver


def _fit(
    voices: list[dict[str, np.ndarray]],
    weights: np.ndarray,
    usable: np.ndarray,
    lips: LipSpace,
    shapes: MouthShapes,
    fps: float,
    universal: UniversalDriver,
    model: HeadModel,
) -> AudioDriver:
    displacement = lips.displacement(weights)
    units = [universal.hidden(rows, fps) for rows in voices]
    priors = [
        prior_components(universal.curves_of(hidden, rows["mel"], fps, shut=False), lips, shapes)
        for rows, hidden in zip(voices, units, strict=True)
    ]
    delay = _delay(lips, displacement, shapes.displacement(priors[0]), usable, fps)
    columns = [heard(rows, hidden) for rows, hidden in zip(voices, units, strict=True)]
    mean, std = columns[0][usable].mean(axis=0), columns[0][usable].std(axis=0) + 1e-3
    frames = np.flatnonzero(usable)
    many = len(voices) if len(frames) * len(voices) <= _MOST_FRAMES else 1
    stride = int(np.ceil(len(frames) / _MOST_FRAMES))
    frames = frames[::stride]
    x = [
        inputs(column, activity(rows["mel"], fps), mean, std, fps, shift=delay)[frames]
        for rows, column in zip(voices[:many], columns, strict=False)
    ]
    prior = [_later(rows, fps, delay)[frames] for rows in priors[:many]]
    y, seconds = shapes.components(displacement)[frames], float(usable.sum() / fps)
    found = fit_ridge(
        _interleaved(x), _interleaved([y] * many), _interleaved(prior), fps / stride * many,
        allow_ridge=seconds >= LITTLE_SPEECH,
    )  # fmt: skip
    found = replace(found, held_out=found.held_out[::many])  # of the person's own voice
    middle = y.mean(axis=0)
    gain = restored_amplitude(found.held_out, y)
    restored = middle + gain * (found.held_out - middle)
    gap = lips.gap(displacement[frames])
    levels, tiny = np.linspace(0, 1, KNOTS), 1e-9 * np.arange(KNOTS)
    predicted = np.quantile(lips.gap(shapes.displacement(restored)), levels) + tiny
    return AudioDriver(
        universal=universal, lips=lips, shapes=shapes, mean=mean, std=std, map=found.weights,
        bias=found.bias, slope=found.slope, middle=middle, gain=gain,
        spread=restored.std(axis=0), gap_predicted=predicted,
        gap_wanted=np.quantile(gap, np.minimum(levels, _WIDEST)),
        lead=float(np.clip(delay, *_LEADS)), residual_count=model.residual_count,
        report=_report(lips, shapes, found, displacement[frames], seconds, delay),
    )  # fmt: skip


def _interleaved(parts: list[np.ndarray]) -> np.ndarray:
    """(T * N, C) of N parts (T, C), so that what belongs to one moment is held out together."""
    return np.stack(parts, axis=1).reshape(-1, parts[0].shape[1])


def _delay(
    lips: LipSpace, true: np.ndarray, prior: np.ndarray, usable: np.ndarray, fps: float
) -> float:
    """Seconds by which the clip's sound comes after its picture, by the universal driver.

    Cameras and converters often shift the sound by a frame or three. A driver that learnt this
    would be out of step with every other sound; `_LEADS` are kept, though.
    """

    def score(delay: float) -> float:
        moved = _later(prior, fps, delay)
        values = [
            _correlation(measure(moved)[usable], measure(true)[usable])
            for measure in (lips.gap, lips.width)
        ]
        return sum(values) / 2 - _DELAY_PENALTY * (delay / 0.1) ** 2

    return float(max(_DELAYS, key=score))


def _later(rows: np.ndarray, fps: float, seconds: float) -> np.ndarray:
    """Row i becomes what was at i / fps + seconds."""
    return taps(rows, fps, (0.0,), seconds)


def restored_amplitude(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(K,) factors that give predictions the deviation of the truth.

    A regression predicts the less motion the less it knows, and lips would barely move. Components
    that cannot be predicted are muted instead: enlarging them would enlarge noise.
    """
    gain = np.clip(true.std(axis=0) / np.maximum(predicted.std(axis=0), 1e-9), 1.0, 2.0)
    known = [_correlation(p, t) for p, t in zip(predicted.T, true.T, strict=True)]
    return gain * np.clip(np.array(known) / 0.2, 0, 1)


def _report(
    lips: LipSpace,
    shapes: MouthShapes,
    found: RidgeFit,
    true: np.ndarray,
    seconds: float,
    delay: float,
) -> dict[str, float | str]:
    predicted = shapes.displacement(found.held_out)
    personal = np.isfinite(found.ridge).any()
    return {
        "method": "personal regression" if personal else "universal driver, scaled",
        "lip_gap_correlation": _correlation(lips.gap(predicted), lips.gap(true)),
        "lip_width_correlation": _correlation(lips.width(predicted), lips.width(true)),
        "speech_seconds": round(seconds, 2),
        "sound_delay": round(delay, 3),
        "components": float(len(shapes.basis)),
    }


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    norm = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / norm) if norm > 1e-15 else 0.0


def _check(features: dict[str, np.ndarray], tracking: Tracking, model: HeadModel) -> None:
    if tracking.head_model_fingerprint != model.fingerprint:
        raise UserError(
            f"The tracking was made with another head model ({tracking.head_model}) than "
            f"{model.name}; run `avatar3d capture` again."
        )
    for name, rows in features.items():
        if len(rows) != len(tracking) or not np.isfinite(rows).all():
            raise UserError(
                f"The speech features {name!r} ({len(rows)} rows) do not fit the tracking of "
                f"{len(tracking)} frames; run `avatar3d capture` again."
            )
