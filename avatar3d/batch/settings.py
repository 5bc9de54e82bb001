"""Which stage a setting of a batch belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from avatar3d.capture import CaptureConfig
from avatar3d.config import compose, options
from avatar3d.errors import UserError
from avatar3d.evaluation import EvaluationConfig
from avatar3d.export import FORMATS
from avatar3d.training import training_config
from avatar3d.training.config import RunConfig

__all__ = ["Settings", "settings"]

_TRAINING = ("training", "nerf", "avatar")
_HELD_OUT = "train_fraction=0.909091"  # else nothing would be left to score an avatar by


@dataclass(frozen=True)
class Settings:
    """The settings of every stage of one row, and the formats to export."""

    capture: CaptureConfig
    training: RunConfig
    evaluation: EvaluationConfig
    export: tuple[str, ...]


def settings(overrides: Sequence[str], consent: str | None = None) -> Settings:
    """Sort `key=value` settings by stage, and compose each stage's.

    `capture.key`, `training.key` and `evaluation.key` name the stage, which may be left out where
    only one of them has the key; `avatar=nerf` and presets as in `training=fast` are as everywhere;
    `export=html,spz` chooses formats (default html). Trains on the first 10/11 of a clip unless
    told otherwise, so that there is something to evaluate on.

    Raises:
        UserError: a setting of no stage, of several, or with a wrong value.
    """
    known = _composed(tuple(overrides))
    return (
        known
        if consent is None
        else replace(known, capture=replace(known.capture, consent=consent))
    )


@lru_cache(maxsize=256)
def _composed(overrides: tuple[str, ...]) -> Settings:
    kind = [text for text in overrides if text.startswith("avatar=")]
    keys = {
        "capture": {option.key for option in options(CaptureConfig)},
        "training": {option.key for option in options(type(training_config(kind)))},
        "evaluation": {option.key for option in options(EvaluationConfig)},
    }
    sorted_: dict[str, list[str]] = {"capture": [], "training": [_HELD_OUT], "evaluation": []}
    formats: tuple[str, ...] = ("html",)
    for text in overrides:
        if text.startswith("export="):
            formats = _formats(text.partition("=")[2])
        else:
            sorted_[_stage(text, keys)].append(text)
    return Settings(
        compose("capture", CaptureConfig, sorted_["capture"]),
        training_config(sorted_["training"]),
        compose("evaluation", EvaluationConfig, sorted_["evaluation"]),
        formats,
    )


def _stage(text: str, keys: dict[str, set[str]]) -> str:
    key = text.partition("=")[0]
    first = key.partition(".")[0]
    if first in _TRAINING:
        return "training"
    if first in keys:
        return first
    having = [stage for stage, own in keys.items() if key in own]
    if len(having) > 1:
        raise UserError(
            f"The setting {key!r} is one of {' and '.join(having)}; write "
            f"{' or '.join(f'{stage}.{key}' for stage in having)}."
        )
    return having[0] if having else "training"  # which says what is like it


def _formats(text: str) -> tuple[str, ...]:
    formats = tuple(part.strip() for part in text.strip("[]").split(",") if part.strip())
    for name in formats:
        if name not in FORMATS:
            raise UserError(
                f"Cannot export as {name!r}; choose some of {', '.join(sorted(FORMATS))}."
            )
    return formats
