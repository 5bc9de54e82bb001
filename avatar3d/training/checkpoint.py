"""Checkpoints: everything needed to go on exactly where training stopped."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from avatar3d.io.atomic import atomic_path

__all__ = ["latest", "restore", "save"]

_KEEP = 2
_PREFIX = "checkpoint-"
_BEST = "best.safetensors"


def save(
    folder: Path,
    step: int,
    tensors: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    extra: dict[str, Any],
    score: float | None = None,
) -> Path:
    """Write `checkpoint-STEP.safetensors`; keep the newest two, and the best as `best.safetensors`.

    Args:
        tensors: parameters and whatever else is needed, by name.
        optimizer: its moments and step counts are kept; its parameters are in `tensors`.
        rng: the generator that training draws from.
        extra: JSON data, returned by `latest`.
        score: the loss on frames held back, where it is known; lower is better.
    """
    moments = {
        f"optimizer.{index}.{name}": value.detach().reshape(value.shape)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    header = {
        "format": "avatar3d.checkpoint",
        "version": 1,
        "step": step,
        "score": score,
        "rng": rng.bit_generator.state,
        "eps": [group["eps"] for group in optimizer.param_groups],
        "extra": extra,
    }
    path = folder / f"{_PREFIX}{step:09d}.safetensors"
    everything = {**{k: v.detach().contiguous() for k, v in tensors.items()}, **moments}
    with atomic_path(path) as temporary:
        try:
            save_file(everything, temporary, metadata={"avatar3d": json.dumps(header)})
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(str(error)) from error
    if score is not None and score < _best_score(folder):
        _link(path, folder / _BEST)
    for old in sorted(folder.glob(f"{_PREFIX}*.safetensors"))[:-_KEEP]:
        old.unlink()
    return path


def latest(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Header and tensors of the newest readable checkpoint in `folder`, the best one if none of
    the others can be read, or None."""
    for path in (*sorted(folder.glob(f"{_PREFIX}*.safetensors"), reverse=True), folder / _BEST):
        try:
            return _header(path), load_file(path)
        except (SafetensorError, OSError, KeyError, ValueError):
            continue  # a damaged file must not hide the older, good one
    return None


def restore(
    header: dict[str, Any],
    tensors: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
) -> None:
    """Put optimiser moments, step counts and the generator back as they were at `save`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    described = optimizer.state_dict()
    described["state"] = state
    optimizer.load_state_dict(described)
    for group, eps in zip(optimizer.param_groups, header["eps"], strict=True):
        group["eps"] = eps
    rng.bit_generator.state = header["rng"]


def _header(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {})["avatar3d"])
    if header["format"] != "avatar3d.checkpoint" or header["version"] != 1:
        raise ValueError("not a checkpoint of this version")
    return header


def _best_score(folder: Path) -> float:
    """That of the best checkpoint so far; infinite where there is none to be read."""
    try:
        return float(_header(folder / _BEST)["score"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        return math.inf


def _link(path: Path, name: Path) -> None:
    """Another name for a file, or a copy where the disk knows no second names."""
    with atomic_path(name) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
