"""What the whole way costs, each command in a process of its own: capture, training, speech."""

import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from reporting import run_avatar3d

from avatar3d.capture.preflight.plots import line_plot
from avatar3d.evaluation.split import TRAIN_FRACTION
from avatar3d.io.video import probe
from avatar3d.subject import Subject

__all__ = ["Benchmark", "benchmark_page"]

_SPEECH = (
    "The weather will stay bright today. Tomorrow some clouds move in from the west, and on "
    "Wednesday there may be a little rain by the sea."
)
_WITHOUT_LIMIT = "no limit"
_CURVES = ("whole frame", "psnr"), ("face", "face_psnr"), ("mouth", "mouth_psnr")


@dataclass
class Benchmark:
    """Runs the commands on one clip and gathers what they cost.

    Attributes:
        clip: video; None makes that of a synthetic person.
        folder: for everything they write.
        device: "cpu" or "cuda", of training.
        limits: seconds of training, for the curve of quality over time.
        growth: whether to measure how costs grow, which takes several times as long.
    """

    clip: Path | None
    folder: Path
    device: str = "cpu"
    limits: Sequence[float] = (20, 40, 0)
    growth: bool = False
    results: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield each step's name and figures as it ends; `results` has them by step."""
        for name, figures in self._steps():
            self.results[name] = figures
            yield name, figures

    def _steps(self) -> Iterator[tuple[str, dict[str, float]]]:
        self.folder.mkdir(parents=True, exist_ok=True)
        clip = self.clip
        if clip is None:
            clip = self.folder / "clip.mp4"
            self._call("synth", "-o", str(clip), "--seconds", "8")
        subject, figures = self._capture(clip, "clip")
        yield "capture", figures
        avatar = None
        for limit in self.limits:
            name = f"{limit:g} s" if limit else _WITHOUT_LIMIT
            avatar, figures = self._train(subject, name, f"seconds={limit:g}")
            yield f"training, {name}", figures
        assert avatar is not None
        yield "text to video", self._speak(avatar)
        yield "files", self._sizes(avatar, subject)
        if self.growth:
            yield from self._growth(clip, subject)

    def _growth(self, clip: Path, subject: Path) -> Iterator[tuple[str, dict[str, float]]]:
        """Half the clip, half the resolution, half and twice the Gaussians."""
        half = probe(clip).duration / 2
        for name, settings in (
            ("half the clip", [f"duration={half:.2f}"]), ("half the resolution", ["size=256"]),
        ):  # fmt: skip
            part, captured = self._capture(clip, name.replace(" ", "_"), *settings)
            yield f"capture, {name}", captured
            yield f"training, {name}", self._train(part, name)[1]
        for count in (12_500, 50_000):
            name = f"{count} Gaussians"
            yield f"training, {name}", self._train(subject, name, f"gaussians={count}")[1]

    def _capture(self, clip: Path, name: str, *settings: str) -> tuple[Path, dict[str, float]]:
        subject = self.folder / f"{name}.subject"
        cost = self._call("capture", str(clip), "-o", str(subject), "strict=false", *settings)
        frames = len(Subject(subject))
        return subject, cost | {"frames": frames, "ms_per_frame": 1e3 * cost["seconds"] / frames}

    def _train(self, subject: Path, name: str, *settings: str) -> tuple[Path, dict[str, float]]:
        avatar = self.folder / f"{name.replace(' ', '_')}.a3d"
        fraction = f"train_fraction={TRAIN_FRACTION:.6f}"
        cost = self._call(
            "train", str(subject), "-o", str(avatar), fraction, f"device={self.device}", *settings
        )
        folder = avatar.with_suffix(".evaluation")
        self._call(
            "evaluate", str(avatar), "--subject", str(subject), "-o", str(folder), "video=false"
        )
        means = json.loads((folder / "evaluation.json").read_text())["means"]
        wanted = ("psnr", "ssim", "face_psnr", "mouth_psnr")
        return avatar, cost | {key: means[key] for key in wanted if means.get(key) is not None}

    def _speak(self, avatar: Path) -> dict[str, float]:
        video = self.folder / "speech.mp4"
        cost = self._call("render", str(avatar), "--text", _SPEECH, "-o", str(video))
        frames = probe(video).frames
        return cost | {"frames": frames, "frames_per_second": frames / cost["seconds"]}

    def _sizes(self, avatar: Path, subject: Path) -> dict[str, float]:
        page = self.folder / "avatar.html"
        self._call("export", str(avatar), "-o", str(page))
        stored = sum(path.stat().st_size for path in subject.rglob("*") if path.is_file())
        sizes = {"avatar": avatar.stat().st_size, "page": page.stat().st_size, "subject": stored}
        return {f"{name}_mb": size / 1e6 for name, size in sizes.items()}

    def _call(self, *arguments: str) -> dict[str, float]:
        log = self.folder / f"{len(list(self.folder.glob('*.log'))):02d}_{arguments[0]}.log"
        return run_avatar3d(list(arguments), log)


def benchmark_page(found: dict[str, Any]) -> str:
    """One HTML page: the table, quality over the seconds of training, and how costs grow."""
    machine, steps = found["machine"], found["steps"]
    points = sorted(
        (figures["seconds"], figures)
        for name, figures in steps.items()
        if name.startswith("training, ") and name.endswith((" s", _WITHOUT_LIMIT))
    )
    seconds = np.array([second for second, _ in points])
    plot = ""
    if len(points) > 1:
        lines = [
            (title, seconds, np.array([figures.get(key, np.nan) for _, figures in points]))
            for title, key in (
                ("whole frame", "psnr"),
                ("face", "face_psnr"),
                ("mouth", "mouth_psnr"),
            )
        ]
        span = (0.0, float(seconds.max()))
        low = float(np.nanmin([y for _, _, y in lines]))
        plot = "<h2>Quality over the time of training</h2>" + line_plot(
            lines, "PSNR of unseen frames, dB", span, low, low + 1
        )
    names = list(dict.fromkeys(key for figures in steps.values() for key in figures))
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}" for name in names)
    rows = "".join(
        f"<tr><td>{html.escape(step)}"
        + "".join(f"<td>{figures[n]:.4g}" if n in figures else "<td>" for n in names)
        for step, figures in steps.items()
    )
    style = (
        "body{font:15px sans-serif;margin:2em;max-width:75em;--a:#2f6fde;--b:#e0662f;--c:#1f9d72;"
        "--plot:#f2f5f9;--grid:#dde4ec}td,th{padding:.2em .7em;text-align:right}"
        "td:first-child{text-align:left}svg{width:100%;max-width:60em}figcaption i{display:"
        "inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}figcaption em{margin-left:2em}"
    )
    return (
        "<!doctype html><meta charset=utf-8><title>avatar3d benchmark</title>"
        f"<style>{style}</style><h1>What avatar3d costs</h1>"
        f"<p>{html.escape(json.dumps(machine))}</p>{plot}{_growth_plot(steps)}"
        f"<table><tr><th>{head}{rows}</table>\n"
    )


def _growth_plot(steps: dict[str, dict[str, float]]) -> str:
    """A bar for each whole run of capture and of training; empty where no growth was measured."""
    left, tall, wide = 210, 24, 720
    parts = []
    for command in ("capture", "training"):
        bars = {
            name.removeprefix(f"{command}, "): figures["cpu_seconds"]
            for name, figures in steps.items()
            if name == command or (name.startswith(f"{command}, ") and not name.endswith(" s"))
        }
        if len(bars) < 2:
            continue
        scale = (wide - left - 60) / max(bars.values())
        drawn = "".join(
            f'<text x="{left - 8}" y="{tall * row + 16}" text-anchor="end">'
            f"{html.escape('the clip' if name in (command, _WITHOUT_LIMIT) else name)}</text>"
            f'<rect x="{left}" y="{tall * row + 3}" width="{value * scale:.1f}" height="18" '
            f'fill="var(--a)"/><text x="{left + value * scale + 6:.1f}" y="{tall * row + 16}">'
            f"{value:.0f} s</text>"
            for row, (name, value) in enumerate(bars.items())
        )
        parts.append(
            f"<h3>{command.capitalize()}, seconds of all threads together</h3>"
            f'<svg viewBox="0 0 {wide} {tall * len(bars)}" role="img">{drawn}</svg>'
        )
    return "<h2>How costs grow</h2>" + "".join(parts) if parts else ""
