"""The report as one page that needs nothing beside it: pictures, plots, and what to do."""

import base64
import html
from importlib import resources

import numpy as np

from avatar3d.capture.preflight.measures import Measures
from avatar3d.capture.preflight.plots import histogram_pose, line_plot, timeline
from avatar3d.capture.preflight.report import CheckReport, Finding
from avatar3d.capture.preflight.scan import Sample

__all__ = ["report_page"]

_VERDICTS = {"good": "Good", "limits": "Usable, with limits", "fail": "Will fail"}
_STRIP = 10


def report_page(report: CheckReport, measures: Measures) -> str:
    """A complete HTML document; texts from the outside are escaped."""
    style = resources.files(__package__).joinpath("page.css").read_text("utf-8")
    title = f"Check of {report.source}"
    bad = [f for f in report.findings if f.state != "good"]
    order = {"fail": 0, "limit": 1, "note": 2}
    cards = "".join(_card(f, measures) for f in sorted(bad, key=lambda f: order[f.state]))
    fine = "".join(
        f"<div>{html.escape(f.title)}: {html.escape(_lower(f.text))}</div>"
        for f in report.findings
        if f.state == "good"
    )
    parts = [
        _header(report),
        "<h2>The clip</h2>",
        _strip(measures),
        timeline(
            max(report.seconds, 1e-3), [(u.start, u.stop, u.reason) for u in report.unused],
            report.cuts,
        ),
        f"<h2>What to know</h2><div class=cards>{cards}</div>" if cards else "",
        f"<h2>What is fine</h2><div class=ok>{fine}</div>" if fine else "",
        _plots(report, measures) if report.series.time else "",
        _figures(report),
    ]  # fmt: skip
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style>"
        f"<main>{''.join(parts)}</main></html>\n"
    )


def _header(report: CheckReport) -> str:
    first = f"<p>First at {_clock(report.first_bad)}.</p>" if report.first_bad is not None else ""
    facts = (
        f"{report.width} by {report.height} pixels, {report.fps:.2f} frames a second, "
        f"{report.seconds:.1f} s, {100 * report.usable:.0f} % of the frames used"
    )
    return (
        f"<header class={report.verdict}><p class=file>{html.escape(report.source)}</p>"
        f"<h1>{html.escape(report.summary)}</h1>"
        f"<p><span class=badge>{_VERDICTS[report.verdict]}</span></p>{first}"
        f"<p class=file>{facts}</p></header>"
    )


def _card(finding: Finding, measures: Measures) -> str:
    picture = ""
    if finding.first is not None:
        sample = _nearest(measures, finding.first)
        if sample is not None:
            picture = _picture(sample, measures)
    remedy = f"<p class=do>{html.escape(finding.remedy)}</p>" if finding.remedy else ""
    return (
        f"<article class='card {finding.state}'><div><h3>{html.escape(finding.title)}</h3>"
        f"<p>{html.escape(finding.text)}</p>{remedy}</div>{picture}</article>"
    )


def _strip(measures: Measures) -> str:
    shown = [s for s in measures.scan.samples if s.picture]
    places = np.unique(np.linspace(0, len(shown) - 1, min(_STRIP, len(shown))).round().astype(int))
    return f"<div class=strip>{''.join(_picture(shown[k], measures) for k in places)}</div>"


def _picture(sample: Sample, measures: Measures) -> str:
    data = base64.b64encode(sample.picture).decode()
    clock = _clock(measures.time(sample.index))
    return (
        f'<figure><img alt="frame at {clock}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{clock}</figcaption></figure>"
    )


def _nearest(measures: Measures, seconds: float) -> Sample | None:
    shown = [s for s in measures.scan.samples if s.picture]
    index = seconds * measures.fps
    return min(shown, key=lambda s: abs(s.index - index), default=None)


def _plots(report: CheckReport, measures: Measures) -> str:
    series, span = report.series, (0.0, report.seconds)
    time = np.array(series.time)
    shade = [(u.start, u.stop) for u in report.unused]
    yaw, pitch = np.array(series.yaw), np.array(series.pitch)
    turning = line_plot(
        [("left and right", time, yaw), ("up and down", time, pitch)],
        "degrees", span, -20, 20, shade,
    )  # fmt: skip
    mouth = line_plot(
        [("opening of the mouth", time, np.array(series.mouth)),
         ("opening of the eyes", time, np.array(series.eyes)), *_voice(measures)],
        "distances between the eyes; eye widths", span, 0, 0.5, shade,
    )  # fmt: skip
    together = ""
    if measures.offset is not None:
        shifts, scores = measures.offset.curve.T
        together = (
            "<h2>Lips and sound</h2><div class=panel>"
            + line_plot(
                [("agreement of the lips with the sound moved this much", shifts * 1e3, scores)],
                "correlation", (shifts[0] * 1e3, shifts[-1] * 1e3), 0, 0.6, across="ms",
            )
            + "</div>"
        )  # fmt: skip
    return (
        "<h2>How the head turns</h2><div class='panel two'>"
        f"<div>{turning}</div>{histogram_pose(yaw, pitch)}</div>"
        f"<h2>Mouth, eyes and voice</h2><div class=panel>{mouth}</div>{together}"
    )


def _voice(measures: Measures) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Loudness of the sound, scaled to fit beside the lips."""
    samples = measures.sound.samples
    if not measures.sound.audible:
        return []
    size = max(len(samples) // 600, 1)
    count = len(samples) // size
    level = np.sqrt((samples[: count * size].reshape(count, size) ** 2).mean(1))
    time = (np.arange(count) + 0.5) * size / 16000
    return [("loudness", time, 0.4 * level / max(float(level.max()), 1e-9))]


def _figures(report: CheckReport) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(f.title)}<td>{html.escape(name.replace('_', ' '))}<td>{value:g}"
        for f in report.findings
        for name, value in f.values.items()
    )
    table = f"<div class=panel><table>{rows}</table></div>"
    return f"<details><summary>All figures</summary>{table}</details>"


def _clock(seconds: float | None) -> str:
    minutes, rest = divmod(seconds or 0.0, 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
