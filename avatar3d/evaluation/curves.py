"""A motion as curves over time, beside the waveform that goes with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avatar3d.head.arkit import ARKIT_52, ARKIT_INDEX
from avatar3d.motion.blinks import find_blinks, lid_closure
from avatar3d.motion.motion import Motion
from avatar3d.motion.paths import head_angles

__all__ = ["describe", "draw_curves"]

_COLORS = (
    (31, 119, 180), (214, 39, 40), (44, 160, 44), (255, 127, 14), (148, 103, 189), (23, 190, 207),
    (227, 119, 194), (140, 86, 75),
)  # fmt: skip
_LEFT, _RIGHT, _HEIGHT, _GAP, _FOOT = 44, 150, 130, 10, 20
_GRID, _INK = (225, 225, 225), (70, 70, 70)
_PER_GROUP = 6


@dataclass(frozen=True)
class _Panel:
    """One strip: named curves, each (T,), within [low, high]."""

    title: str
    curves: dict[str, np.ndarray]
    low: float
    high: float


def describe(motion: Motion) -> str:
    """A few lines on what a motion holds: length, parts, blinks, the weights that move most."""
    tracks = [n for n in ("expression", "head_pose", "gaze", "torso_pose") if _has(motion, n)]
    if motion.residual is not None and motion.residual.shape[1]:
        tracks.append(f"{motion.residual.shape[1]} residual rows")
    lines = [
        f"{len(motion)} frames at {motion.fps:g} a second, {motion.duration:.2f} s",
        f"source: {motion.source or 'unknown'}",
        f"has: {', '.join(tracks).replace('_', ' ')}",
    ]
    if motion.head_pose is not None:
        ranges = [np.degrees([a.min(), a.max()]).round(1) for a in head_angles(motion.head_pose)]
        lines.append(
            "head: " + ", ".join(f"{name} {low:g} to {high:g} degrees" for name, (low, high) in
                                 zip(("yaw", "pitch", "roll"), ranges, strict=True))
        )  # fmt: skip
    if motion.expression is not None:
        blinks = find_blinks(lid_closure(motion), motion.fps)
        each = f" of {np.mean([b.width for b in blinks]) / motion.fps:.2f} s" if blinks else ""
        lines.append(f"blinks: {60 * len(blinks) / motion.duration:.1f} a minute{each}")
        high = motion.expression.max(0)
        rows = [i for i in np.argsort(-high) if high[i] > 0.02][:8]
        lines.append(
            "largest: " + (", ".join(f"{ARKIT_52[i]} {high[i]:.2f}" for i in rows) or "none")
        )
    return "\n".join(lines)


def draw_curves(
    motion: Motion, samples: np.ndarray | None = None, rate: float = 16_000, width: int = 1400
) -> np.ndarray:
    """A picture (H, width, 3) uint8: the waveform, mouth, eyes and brows, head angles and gaze.

    Args:
        motion: what to show; parts that it lacks are left out.
        samples: (N,) the sound that goes with it, from the same moment on; rate: of it, in Hz.
        width: pixels.
    """
    from PIL import Image, ImageDraw

    panels = _panels(motion)
    sounds = 0 if samples is None else 1
    height = (len(panels) + sounds) * (_HEIGHT + _GAP) + _GAP + _FOOT
    image = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    inner = width - _LEFT - _RIGHT
    top = _GAP
    if samples is not None:
        _frame(draw, top, inner, "sound", -1, 1)
        _waveform(draw, top, inner, samples[: round(motion.duration * rate)], motion, rate)
        top += _HEIGHT + _GAP
    for panel in panels:
        _frame(draw, top, inner, panel.title, panel.low, panel.high)
        _seconds(draw, top, inner, motion.duration, labels=panel is panels[-1])
        for number, (name, curve) in enumerate(panel.curves.items()):
            color = _COLORS[number % len(_COLORS)]
            _curve(draw, top, inner, curve, panel, color)
            draw.text((_LEFT + inner + 8, top + 4 + 15 * number), name, fill=color)
        top += _HEIGHT + _GAP
    return np.array(image)


def _panels(motion: Motion) -> list[_Panel]:
    panels = []
    if motion.expression is not None:
        groups = {"mouth": ("jaw", "mouth", "tongue", "cheekPuff"), "eyes, brows": ("eye", "brow")}
        for title, starts in groups.items():
            curves = _liveliest(motion.expression, starts)
            if curves:
                panels.append(_Panel(title, curves, 0, 1))
    if motion.head_pose is not None:
        angles = np.degrees(np.stack(head_angles(motion.head_pose)))
        most = max(5.0, float(np.abs(angles).max()))
        panels.append(
            _Panel("head, deg", dict(zip(("yaw", "pitch", "roll"), angles, strict=True)),
                   -most, most)
        )  # fmt: skip
    if motion.gaze is not None:
        look = np.degrees(motion.gaze.mean(1)).T
        most = max(5.0, float(np.abs(look).max()))
        panels.append(_Panel("gaze, deg", {"left": look[0], "up": look[1]}, -most, most))
    return panels


def _liveliest(expression: np.ndarray, starts: Sequence[str]) -> dict[str, np.ndarray]:
    """The curves of the group that move most; a left and right pair that agree as one."""
    chosen: dict[str, np.ndarray] = {}
    columns = [i for i, name in enumerate(ARKIT_52) if name.startswith(tuple(starts))]
    shown: set[str] = set()
    for column in sorted(columns, key=lambda i: -np.ptp(expression[:, i])):
        name, curve = ARKIT_52[column], expression[:, column]
        if np.ptp(curve) < 0.02 or len(chosen) == _PER_GROUP:
            break
        if name in shown:
            continue
        stem = name.removesuffix("Left").removesuffix("Right")
        other = f"{stem}{'Right' if name.endswith('Left') else 'Left'}"
        agree = (
            other in ARKIT_INDEX
            and stem not in ("jaw", "mouth")  # whose sides are opposites
            and np.abs(expression[:, ARKIT_INDEX[other]] - curve).mean() < 0.05
        )
        shown |= {name, other} if agree else {name}
        chosen[stem if agree else name] = curve
    return chosen


def _frame(pen: Any, top: int, inner: int, title: str, low: float, high: float) -> None:
    pen.rectangle((_LEFT, top, _LEFT + inner, top + _HEIGHT), outline=_GRID)
    pen.text((_LEFT + 4, top + 2), title, fill=_INK)
    for value, y in ((high, top), (low, top + _HEIGHT - 11)):
        pen.text((4, y), f"{value:.3g}", fill=_INK)


def _seconds(pen: Any, top: int, inner: int, duration: float, labels: bool) -> None:
    """Upright lines at whole steps of at most about twenty to the picture."""
    step = next(s for s in (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1e9) if duration / s <= 20)
    for number in range(1, int(duration / step) + 1):
        x = _LEFT + inner * number * step / duration
        pen.line((x, top + 1, x, top + _HEIGHT - 1), fill=_GRID)
        if labels:
            pen.text((x - 8, top + _HEIGHT + 4), f"{number * step:g} s", fill=_INK)


def _curve(
    pen: Any, top: int, inner: int, curve: np.ndarray, panel: _Panel, color: tuple[int, int, int]
) -> None:
    share = (np.clip(curve, panel.low, panel.high) - panel.low) / (panel.high - panel.low)
    x = _LEFT + inner * (np.arange(len(curve)) + 0.5) / len(curve)
    y = top + _HEIGHT - 2 - (_HEIGHT - 4) * share
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    pen.line(points if len(points) > 1 else points * 2, fill=color, width=2)


def _waveform(
    pen: Any, top: int, inner: int, samples: np.ndarray, motion: Motion, rate: float
) -> None:
    """The largest swings under each pixel."""
    loudest = max(float(np.abs(samples).max(initial=0)), 1e-3)
    per_pixel = motion.duration * rate / inner
    middle = top + _HEIGHT / 2
    for pixel in range(inner):
        piece = samples[int(pixel * per_pixel) : int((pixel + 1) * per_pixel) + 1]
        if len(piece):
            low, high = piece.min() / loudest, piece.max() / loudest
            reach = _HEIGHT / 2 - 2
            x = _LEFT + pixel
            pen.line((x, middle - reach * high, x, middle - reach * low), fill=_COLORS[0])


def _has(motion: Motion, name: str) -> bool:
    return getattr(motion, name) is not None
