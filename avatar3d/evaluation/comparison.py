"""Several systems on the same frames: paired differences, in one table and on one page."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.errors import UserError
from avatar3d.evaluation.bootstrap import drawn
from avatar3d.evaluation.meanings import FIGURES
from avatar3d.evaluation.page import Pictures, report_page
from avatar3d.evaluation.report import figure_rows
from avatar3d.io.atomic import atomic_write
from avatar3d.io.images import read_image
from avatar3d.progress import say
from avatar3d.provenance import declared_write, slot

__all__ = ["compare", "paired"]


def paired(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, tuple[float, float, float]]:
    """By how much the second report's figures are above the first's, frame by frame.

    Returns:
        Mean difference and the bounds of nine in ten bootstrap draws, by figure that both have
        for every frame; frames that either lacks do not count.

    Raises:
        UserError: they have no frames in common.
    """
    frames = range(
        max(r["frames"][0] for r in (first, second)),
        min(r["frames"][-1] for r in (first, second)) + 1,
    )
    if not len(frames):
        raise UserError(
            f"{first['name']} and {second['name']} have no test frames in common, so they cannot "
            "be compared; train both with the same train_fraction, or set last_frames."
        )
    indices = drawn(len(frames), round(first["fps"]))
    result = {}
    for name in FIGURES:
        series = []
        for report in (first, second):
            values = report["per_frame"].get(name)
            if values:
                start = frames.start - report["frames"][0]
                part = values[start : start + len(frames)]
                series.append(np.array([np.nan if v is None else v for v in part], np.float64))
        if len(series) == 2:
            change = series[1] - series[0]
            if np.isfinite(change).sum() > 2:
                some = change[indices]
                some = some[np.isfinite(some).any(1)]
                low, high = np.quantile(np.nanmean(some, 1), (0.05, 0.95))
                result[name] = float(np.nanmean(change)), float(low), float(high)
    return result


def compare(reports: Sequence[Mapping[str, Any]], folder: str | Path) -> dict[str, Any]:
    """Write `comparison.json`, `.csv` and `.html` on reports whose pictures are in FOLDER/NAME.

    Every report but the first is compared with the first.
    """
    folder = Path(folder)
    differences = [paired(reports[0], other) for other in reports[1:]]
    result = {
        "names": [report["name"] for report in reports],
        "frames": [report["frames"] for report in reports],
        "means": [report["means"] for report in reports],
        "intervals": [report["intervals"] for report in reports],
        "differences": [
            {"name": f"{other['name']} minus {reports[0]['name']}", "figures": found}
            for other, found in zip(reports[1:], differences, strict=True)
        ],
    }
    atomic_write(folder / "comparison.json", json.dumps(result, indent=1) + "\n")
    atomic_write(folder / "comparison.csv", _table(reports, differences))
    more = {}
    for report in reports:
        sheet = folder / str(report["name"]) / "mouth.png"
        if sheet.is_file():
            more[f"Mouths of {report['name']}"] = read_image(sheet)[..., :3]
    page = report_page(reports, Pictures(more=more), folder, differences)
    declared_write(folder / "comparison.html", f"{page}<!-- {slot()} -->\n")
    _say(reports, differences)
    return result


def _table(
    reports: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Sequence[float]]]
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [str(report["name"]) for report in reports]
    changes = [
        f"{name} minus {names[0]}{part}" for name in names[1:] for part in ("", " low", " high")
    ]
    writer.writerow(["figure", *names, *changes, "better", "meaning"])
    for name in figure_rows(reports):
        cells: list[Any] = [report["means"].get(name) for report in reports]
        for found in differences:
            cells += found.get(name, (None, None, None))
        writer.writerow([name, *cells, FIGURES[name].better, FIGURES[name].meaning])
    return text.getvalue()


def _say(
    reports: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Sequence[float]]]
) -> None:
    for other, found in zip(reports[1:], differences, strict=True):
        say(f"{other['name']} against {reports[0]['name']}, paired:")
        for name, (value, low, high) in found.items():
            sure = " " if low <= 0 <= high else "*"
            say(f" {sure}{value:+8.3f}  [{low:+.3f} {high:+.3f}]  {FIGURES[name].meaning}")
