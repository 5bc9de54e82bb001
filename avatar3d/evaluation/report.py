"""An evaluation on disk: JSON for programs, CSV for tables, one page for people."""

import csv
import io
import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avatar3d import kernels
from avatar3d.evaluation.meanings import FIGURES
from avatar3d.evaluation.page import Pictures, report_page
from avatar3d.io.atomic import atomic_write
from avatar3d.progress import say
from avatar3d.provenance import declared_write, slot
from avatar3d.subject import Subject

__all__ = ["Pictures", "described", "figure_rows", "machine", "print_table", "write_report"]

_LIBRARIES = ("avatar3d", "torch", "numpy", "scipy", "mediapipe", "av")


def described(
    name: str,
    subject: Subject | None,
    config: Mapping[str, Any],
    statements: Sequence[str],
    skipped: Sequence[str],
    means: Mapping[str, float | None],
    intervals: Mapping[str, tuple[float, float]],
    recorded: Mapping[str, float | None],
    per_frame: Mapping[str, Sequence[float]],
    frames: Sequence[int],
    timings: Mapping[str, float],
    parts: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """The report as plain data; `null` stands for what is not defined.

    Args:
        statements: what was compared and how it was aligned; skipped: what was not measured, why.
        means: by metric; intervals: bounds of nine in ten bootstrap draws of them.
        recorded: the recording's own figures, where it has such.
        per_frame: by metric, one value for each of `frames`.
        parts: figures of each sound or performance by itself.
    """
    data = {
        "name": name,
        "subject": subject.info.source_name if subject is not None else None,
        "source_sha256": subject.info.source_sha256 if subject is not None else None,
        "size": [subject.info.width, subject.info.height] if subject is not None else None,
        "fps": subject.fps if subject is not None else None,
        "protocol": dict(config),
        "statements": list(statements),
        "skipped": list(skipped),
        "frames": [frames[0], frames[-1]] if frames else [],
        "means": {key: _finite(value) for key, value in means.items()},
        "intervals": {key: list(bounds) for key, bounds in intervals.items()},
        "recorded": {key: _finite(value) for key, value in recorded.items()},
        "per_frame": {key: [_finite(v) for v in values] for key, values in per_frame.items()},
        "timings": {key: round(seconds, 3) for key, seconds in timings.items()},
        "machine": machine(),
        "command": " ".join(["avatar3d", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "parts": {part: {key: _finite(v) for key, v in some.items()}
                  for part, some in (parts or {}).items()},
    }  # fmt: skip
    return dict(json.loads(json.dumps(data)))  # as it is read from the file


def machine() -> dict[str, Any]:
    """Processor, kernels and versions, for whoever wants to compare times."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    info = kernels.backend_info()
    return {
        "processor": _processor(),
        "threads": kernels.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "simd": info.get("simd"),
        "versions": versions,
    }


def write_report(
    report: dict[str, Any],
    folder: str | Path,
    pictures: "Pictures",
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write `evaluation.json`, `evaluation.csv` and `report.html`.

    The page holds everything, the video `side_by_side.mp4` of the folder included.
    """
    folder = Path(folder)
    atomic_write(folder / "evaluation.json", json.dumps(report, indent=1) + "\n")
    atomic_write(folder / "evaluation.csv", _table([report]))
    page = report_page([report], pictures, folder)
    declared_write(folder / "report.html", f"{page}<!-- {slot(facts)} -->\n", facts)


def figure_rows(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the figures that any report has, in the order of the table."""
    return [
        name for name in FIGURES if any(report["means"].get(name) is not None for report in reports)
    ]


def print_table(report: Mapping[str, Any]) -> None:
    """To the terminal: what was compared, each figure and its meaning, and what was left out."""
    for sentence in report["statements"]:
        say(sentence)
    for name in figure_rows([report]):
        bounds = report["intervals"].get(name)
        between = f"[{bounds[0]:.3f} {bounds[1]:.3f}]" if bounds else ""
        say(f"  {report['means'][name]:8.3f}  {between:18} {FIGURES[name].meaning}")
    for sentence in report["skipped"]:
        say(f"Not measured: {sentence}.")


def _table(reports: Sequence[Mapping[str, Any]]) -> str:
    """CSV: one line a figure; value, bounds where there are any, and the recording's own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = [("value", "low", "high") if r["intervals"] else ("value",) for r in reports]
    heads = [f"{r['name']} {part}" for r, some in zip(reports, parts, strict=True) for part in some]
    writer.writerow(["figure", *heads, "recording", "better", "meaning"])
    for name in figure_rows(reports):
        cells: list[Any] = []
        for report, some in zip(reports, parts, strict=True):
            bounds = report["intervals"].get(name, (None, None))
            cells += [report["means"].get(name), *bounds][: len(some)]
        recorded = reports[0]["recorded"].get(name)
        figure = FIGURES[name]
        writer.writerow([name, *cells, recorded, figure.better, figure.meaning])
    return text.getvalue()


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} logical cores"
    except OSError:
        pass
    return platform.processor() or platform.machine()
