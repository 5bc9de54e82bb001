"""The kinds of avatar that can be trained, and their settings."""

from collections.abc import Sequence

from avatar3d.config import compose
from avatar3d.errors import UserError
from avatar3d.training.config import RunConfig, TrainingConfig
from avatar3d.training.nerf.config import NerfConfig

__all__ = ["KINDS", "training_config"]

KINDS: dict[str, tuple[str, type[RunConfig]]] = {
    "splat": ("training", TrainingConfig),
    "nerf": ("nerf", NerfConfig),
}
"""Each kind's folder of presets, and its settings."""


def training_config(overrides: Sequence[str] = ()) -> RunConfig:
    """The settings of a training, of the kind that `avatar=KIND` among the overrides asks for.

    `training=PRESET` and `training.key=value` mean those of that kind.

    Raises:
        UserError: no such kind, or what `compose` does not accept.

    Example:
        training_config(["avatar=nerf", "training=fast", "iterations=4000"])
    """
    asked = [text.partition("=")[2] for text in overrides if text.startswith("avatar=")]
    kind = asked[-1] if asked else "splat"
    if kind not in KINDS:
        raise UserError(f"There is no avatar of kind {kind!r}; take one of {', '.join(KINDS)}.")
    group, schema = KINDS[kind]
    others = [text for text in overrides if not text.startswith("avatar=")]
    named = [
        group + text.removeprefix("training")
        if text.startswith(("training=", "training."))
        else text
        for text in others
    ]
    return compose(group, schema, named)
