"""The page that a finished training leaves behind: curves, pictures, settings and figures."""

import html
import time
from pathlib import Path

import numpy as np

from avatar3d.io.images import data_url
from avatar3d.provenance import declared_write, facts_of, slot
from avatar3d.subject.consent import consent_line
from avatar3d.training.events import Done, Event, HeldBack, Preview, Said, Step

__all__ = ["RunReport"]

_NOTE = (
    "Synthetic media: the renders on this page are computer-generated likenesses of a real person. "
    "Make avatars only of people who agreed to it, say that a video is synthetic where it matters, "
    "and keep the avatar as carefully as the recording."
)
_STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:70em}td{padding:.15em 1em}img,svg{max-width:"
    "100%}pre{background:#eee;padding:1em}p.note{background:#fec;padding:1em}"
)
_EVERY = 10  # steps; the losses between are only averaged
_COLORS = {"warmup": "#888", "final": "#06c", "held back": "#c40"}


class RunReport:
    """Gathers what happens and writes `RUN/report.html` when training is done.

    Args:
        run: the run folder, whose `config.yaml` is shown.
        title: heading of the page.
    """

    def __init__(self, run: Path, title: str) -> None:
        self._run, self._title = run, title
        self._start = time.monotonic()
        self._curves: dict[str, list[tuple[int, float]]] = {name: [] for name in _COLORS}
        self._recent: list[float] = []
        self._terms: dict[str, float] = {}
        self._said: list[str] = []
        self._sheet: dict[int, np.ndarray] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step):
            self._recent.append(event.loss)
            self._terms = event.terms
            if event.iteration % _EVERY == 0:
                point = event.iteration, float(np.mean(self._recent))
                self._curves[event.phase].append(point)
                self._recent = []
        elif isinstance(event, HeldBack):
            self._curves["held back"].append((event.iteration, event.loss))
        elif isinstance(event, Said):
            self._said.append(event.message)
        elif isinstance(event, Preview):
            self._sheet[event.frame] = event.image
        elif isinstance(event, Done):
            self._write(event)

    def _write(self, done: Done) -> None:
        avatar = done.avatar
        last = {name: points[-1] for name, points in self._curves.items() if points}
        figures = {
            "seconds of this run": f"{time.monotonic() - self._start:.1f}",
            "iterations": str(last["final"][0] if "final" in last else 0),
            **avatar.figures(),
            "picture": f"{avatar.camera.width} x {avatar.camera.height} pixels",
            "frames of the training part": str(avatar.info["train_frames"]),
            "source, sha256": str(avatar.info["source_sha256"]),
            "consent": consent_line(avatar.info["consent"]),
            **{f"last loss, {name}": f"{value:.5f}" for name, (_, value) in last.items()},
            **{f"last term, {name}": f"{value:.5f}" for name, value in self._terms.items()},
        }
        rows = "".join(f"<tr><td>{html.escape(k)}<td>{html.escape(v)}" for k, v in figures.items())
        notes = "".join(f"<li>{html.escape(sentence)}" for sentence in self._said)
        pictures = "".join(
            f'<p>frame {frame}<br><img alt="frame {frame}" src="{data_url(image)}">'
            for frame, image in sorted(self._sheet.items())
        )
        config = html.escape((self._run / "config.yaml").read_text())
        facts = facts_of(avatar.info)
        page = (
            f"<!doctype html><meta charset=utf-8><title>{html.escape(self._title)}</title>"
            f"<style>{_STYLE}</style><h1>{html.escape(self._title)}</h1>"
            f'<p class="note">{_NOTE}<ul>{notes}</ul>{_chart(self._curves)}<table>{rows}</table>'
            f"<h2>Recording, render, five times their difference</h2>{pictures}"
            f"<h2>Settings</h2><pre>{config}</pre>\n"
        )
        declared_write(self._run / "report.html", f"{page}<!-- {slot(facts)} -->\n", facts)


def _chart(curves: dict[str, list[tuple[int, float]]], width: int = 800, height: int = 260) -> str:
    """Losses over iterations as SVG, the loss logarithmic."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    last = max(x for x, _ in points)
    heights = np.log10([max(y, 1e-6) for _, y in points])
    low, high = float(heights.min()), float(heights.max()) + 1e-3
    lines = []
    for number, (name, curve) in enumerate(curves.items()):
        path = " ".join(
            f"{x / last * width:.1f},{(high - np.log10(max(y, 1e-6))) / (high - low) * height:.1f}"
            for x, y in curve
        )
        style = f'stroke="{_COLORS[name]}" fill="none" stroke-width="1.5"'
        lines.append(f'<polyline points="{path}" {style}/>')
        lines.append(
            f'<text x="{width - 90}" y="{18 * (number + 1)}" fill="{_COLORS[name]}">{name}</text>'
        )
    scale = f"loss {10**high:.3g} (top) to {10**low:.3g} (bottom), {last} iterations"
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="loss curves">'
        f'<rect width="{width}" height="{height}" fill="#f6f6f6"/>{"".join(lines)}</svg>'
        f"<p>{scale}"
    )
