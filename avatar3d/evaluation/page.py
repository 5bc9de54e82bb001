"""The report as one page that needs nothing beside it: table, plots, pictures, the video."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from avatar3d.capture.preflight.plots import COLORS, line_plot
from avatar3d.evaluation.meanings import FIGURES, PLOTTED, SECTIONS
from avatar3d.evaluation.sheets import Panel, contact_sheet, mouth_strip
from avatar3d.io.images import data_url, read_image

__all__ = ["Pictures", "report_page"]

_LARGEST_VIDEO = 24e6  # bytes that a page takes in
_NOTE = (
    "Synthetic media: the renders on this page are computer-generated likenesses of a real person."
)
_BETTER = {"higher": "↑", "lower": "↓", "one": "→ 1", "zero": "→ 0", "": ""}
_INTERVALS = (
    "<p><small>In brackets: nine in ten means of the frames drawn again in blocks of up to a "
    "second (circular block bootstrap); differences are paired, frame by frame, and coloured where "
    "their interval leaves 0 out.</small>"
)
_SHEETS = {"frames": "Frames, evenly spread", "mouth": "Their mouths", "eyes": "Their eyes"}
_GOOD = {"higher": 1, "lower": -1}


@dataclass(frozen=True)
class Pictures:
    """For a page: contact sheets by name (see `save_sheets`), the worst frames, those of the mouth
    strip, and other pictures by title."""

    sheets: Mapping[str, np.ndarray] = field(default_factory=dict)
    worst: Sequence[Panel] = ()
    strip: Sequence[Panel] = ()
    more: Mapping[str, np.ndarray] = field(default_factory=dict)


def report_page(
    reports: Sequence[Mapping[str, Any]],
    pictures: Pictures,
    folder: Path,
    differences: Sequence[Mapping[str, Sequence[float]]] = (),
) -> str:
    """A complete HTML document; texts from the outside are escaped.

    Args:
        reports: what `report.described` gives, of each system that is compared.
        pictures: to show; folder: where `side_by_side.mp4` and `poses.png` are, if anywhere.
        differences: of every report but the first from the first, by figure: value, low, high.
    """
    style = "".join(
        resources.files(package).joinpath("page.css").read_text("utf-8")
        for package in ("avatar3d.capture.preflight", "avatar3d.evaluation")
    )
    names = " against ".join(str(report["name"]) for report in reports)
    title = html.escape(f"Evaluation of {names}")
    parts = [
        _header(reports, title),
        f"<h2>Figures</h2><div class=panel>{_table(reports, differences)}</div>",
        _parts(reports),
        _plots(reports),
        _video(folder / "side_by_side.mp4"),
        _pictures(pictures, folder),
        _facts(reports),
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{style}</style><main>{''.join(parts)}</main></html>\n"
    )


def _header(reports: Sequence[Mapping[str, Any]], title: str) -> str:
    said = list(dict.fromkeys(text for report in reports for text in report["statements"]))
    skipped = list(dict.fromkeys(text for report in reports for text in report["skipped"]))
    lines = "".join(f"<li>{html.escape(text)}" for text in said)
    items = "".join(f"<li>{html.escape(text)}" for text in skipped)
    left = f"<h2>Not measured</h2><ul>{items}</ul>" if skipped else ""
    return (
        f"<header class=note><h1>{title}</h1><ul>{lines}</ul></header>"
        f"<p class=synthetic>{_NOTE}</p>{left}"
    )


def _table(
    reports: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Sequence[float]]]
) -> str:
    heads = [html.escape(str(report["name"])) for report in reports]
    changes = [f"{head} &minus; {heads[0]}" for head in heads[1:]] if differences else []
    titles = ["", *heads, *changes, "recording", ""]
    note = _INTERVALS if any(report["intervals"] for report in reports) else ""
    rows = ["<tr>" + "".join(f"<th>{title}" for title in titles)]
    for section in SECTIONS:
        some = [_row(name, reports, differences) for name in FIGURES
                if FIGURES[name].section == section
                and any(r["means"].get(name) is not None for r in reports)]  # fmt: skip
        if some:
            rows += [f"<tr class=section><td colspan={len(titles)}>{section}", *some]
    return f"<table>{''.join(rows)}</table>{note}"


def _row(
    name: str,
    reports: Sequence[Mapping[str, Any]],
    differences: Sequence[Mapping[str, Sequence[float]]],
) -> str:
    figure = FIGURES[name]
    cells = [_cell(r["means"].get(name), r["intervals"].get(name)) for r in reports]
    for difference in differences:
        found = difference.get(name)
        cells.append("<td>" if found is None else _change(found, figure.better))
    recorded = next((r["recorded"][name] for r in reports if name in r["recorded"]), None)
    return (
        f"<tr><td class=what>{html.escape(figure.meaning)}{''.join(cells)}{_cell(recorded, None)}"
        f"<td>{_BETTER[figure.better]}"
    )


def _cell(value: float | None, bounds: Sequence[float] | None) -> str:
    if value is None:
        return "<td>"
    between = f" <small>[{bounds[0]:.3g} {bounds[1]:.3g}]</small>" if bounds else ""
    return f"<td>{value:.4g}{between}"


def _change(found: Sequence[float], better: str) -> str:
    value, low, high = found
    sign = _GOOD.get(better, 0) * ((low > 0) - (high < 0))
    kind = {1: " class=up", -1: " class=down", 0: ""}[sign]
    return f"<td{kind}>{value:+.3g} <small>[{low:+.2g} {high:+.2g}]</small>"


def _parts(reports: Sequence[Mapping[str, Any]]) -> str:
    """One line for each sound or performance."""
    parts = {
        f"{report['name']}: {part}" if len(reports) > 1 else part: figures
        for report in reports
        for part, figures in report.get("parts", {}).items()
    }
    if not parts:
        return ""
    names = [name for name in FIGURES if any(name in some for some in parts.values())]
    head = "".join(f"<th>{name.replace('_', ' ')}" for name in names)
    rows = "".join(
        f"<tr><td>{html.escape(part)}" + "".join(_cell(some.get(name), None) for name in names)
        for part, some in parts.items()
    )
    return f"<h2>Each by itself</h2><div class=panel><table><tr><th>{head}{rows}</table></div>"


def _plots(reports: Sequence[Mapping[str, Any]]) -> str:
    shown = []
    for title, names in PLOTTED.items():
        lines = []
        for report in reports[: len(COLORS)]:
            for name in names:
                values = report["per_frame"].get(name)
                if values and report["frames"] and len(values) > 1:
                    y = np.array([np.nan if v is None else v for v in values], np.float64)
                    if np.isfinite(y).sum() > 1:
                        x = (report["frames"][0] + np.arange(len(y))) / report["fps"]
                        lines.append((str(report["name"]), x, y))
        if lines:
            finite = np.concatenate([y[np.isfinite(y)] for _, _, y in lines])
            times = np.concatenate([x for _, x, _ in lines])
            span = (float(times.min()), float(times.max()))
            plot = line_plot(lines, title, span, float(finite.min()), float(finite.max()))
            shown.append(f"<h3>{html.escape(title)}</h3>{plot}")
    return f"<h2>Over time</h2><div class=panel>{''.join(shown)}</div>" if shown else ""


def _video(path: Path) -> str:
    if not path.is_file():
        return ""
    data = path.read_bytes()
    if len(data) > _LARGEST_VIDEO:
        return f"<h2>Side by side</h2><p>Too long for this page: {html.escape(path.name)}.</p>"
    source = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
    return (
        "<h2>Recording, render</h2>"
        f'<video controls loop muted playsinline preload=metadata src="{source}"></video>'
    )


def _pictures(pictures: Pictures, folder: Path) -> str:
    shown: dict[str, np.ndarray] = dict(pictures.more)
    if pictures.strip:
        shown["Mouths: recording above, render below"] = mouth_strip(pictures.strip)
    if pictures.worst:
        shown["Worst frames by face PSNR"] = contact_sheet(pictures.worst)
    for name, title in _SHEETS.items():
        if name in pictures.sheets:
            shown[title] = pictures.sheets[name]
    if (folder / "poses.png").is_file():
        shown["As never filmed"] = read_image(folder / "poses.png")[..., :3]
    return "".join(
        f'<h2>{html.escape(title)}</h2><img class=wide alt="{html.escape(title)}" '
        f'src="{data_url(image)}">'
        for title, image in shown.items()
    )


def _facts(reports: Sequence[Mapping[str, Any]]) -> str:
    report = reports[0]
    machine = report["machine"]
    rows = {
        "command": report["command"],
        "date": report["date"],
        "processor": machine["processor"],
        "threads, SIMD": f"{machine['threads']}, {machine['simd']}",
        "system": machine["system"],
        "versions": ", ".join(f"{name} {value}" for name, value in machine["versions"].items()),
        "recording, sha256": str(report["source_sha256"]),
        "settings": ", ".join(f"{key}={value}" for key, value in report["protocol"].items()),
    }
    for one in reports:
        for name, seconds in one["timings"].items():
            rows[f"{one['name']}: {name}"] = f"{seconds:.2f} s"
    cells = "".join(
        f"<tr><td>{html.escape(key)}<td class=what><code>{html.escape(str(value))}</code>"
        for key, value in rows.items()
    )
    return f"<h2>How this was measured</h2><div class=panel><table>{cells}</table></div>"
