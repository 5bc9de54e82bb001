"""Small plots as SVG text, without any library."""

import html

import numpy as np

__all__ = ["histogram_pose", "line_plot", "timeline"]

WIDTH, HEIGHT = 720, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 24
COLORS = ("var(--a)", "var(--b)", "var(--c)")
REASON_COLORS = {
    "": "var(--good)", "no face": "#9aa4b2", "other person": "#d9534f", "second face": "#e8833a",
    "other view": "#8a6fd1", "hidden mouth": "#d6a400", "poor fit": "#c0c0c0",
}  # fmt: skip


def line_plot(
    lines: list[tuple[str, np.ndarray, np.ndarray]],
    unit: str,
    seconds: tuple[float, float],
    low: float,
    high: float,
    shade: list[tuple[float, float]] | None = None,
    across: str = "s",
) -> str:
    """Lines over time.

    Args:
        lines: (name, x, y) each; NaN in y breaks a line.
        unit: of y; across: of x.
        seconds: range of x.
        low, high: range of y, widened where the data need it.
        shade: stretches of x to colour lightly.
    """
    values = np.concatenate([y[np.isfinite(y)] for _, _, y in lines] or [np.zeros(1)])
    low, high = min([low, *values]), max([high, *values])
    high = high if high > low else low + 1

    def px(x: np.ndarray) -> np.ndarray:
        span = max(seconds[1] - seconds[0], 1e-9)
        return _LEFT + (x - seconds[0]) / span * (WIDTH - _LEFT - _RIGHT)

    def py(y: np.ndarray) -> np.ndarray:
        return HEIGHT - _BOTTOM - (y - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    parts = [_frame()]
    for start, stop in shade or ():
        a, b = px(np.array([start, stop]))
        parts.append(_rect(a, _TOP, b - a, HEIGHT - _TOP - _BOTTOM, "var(--shade)"))
    for value in _ticks(low, high, 4):
        y = float(py(np.array(value)))
        parts.append(_line(_LEFT, y, WIDTH - _RIGHT, y, "var(--grid)"))
        parts.append(_text(_LEFT - 6, y + 4, f"{value:g}", "end"))
    for value in _ticks(*seconds, 8):
        place = min(float(px(np.array(value))), WIDTH - 22)
        parts.append(_text(place, HEIGHT - 7, f"{value:g} {across}", "middle"))
    for color, (_, xs, ys) in zip(COLORS, lines, strict=False):
        for part in _unbroken(xs, ys):
            points = " ".join(
                f"{a:.1f},{b:.1f}" for a, b in zip(px(xs[part]), py(ys[part]), strict=True)
            )
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.6" '
                'stroke-linejoin="round"/>'
            )
    legend = "".join(
        f'<span><i style="background:{color}"></i>{html.escape(name)}</span>'
        for color, (name, _, _) in zip(COLORS, lines, strict=False)
    )
    caption = f"<figcaption>{legend}<em>{unit}</em></figcaption>"
    return f"<figure>{_svg(''.join(parts), WIDTH, HEIGHT)}{caption}</figure>"


def timeline(seconds: float, stretches: list[tuple[float, float, str]], cuts: list[float]) -> str:
    """A bar of the clip, coloured by what is wrong, with cuts as lines."""
    wide, tall = WIDTH, 34
    parts = [_rect(0, 6, wide, 16, REASON_COLORS[""], 4)]
    for start, stop, reason in stretches:
        x, width = start / seconds * wide, max((stop - start) / seconds * wide, 1.5)
        parts.append(_rect(x, 6, width, 16, REASON_COLORS.get(reason, "#c0c0c0")))
    for cut in cuts:
        x = cut / seconds * wide
        parts.append(_line(x, 0, x, 28, "var(--ink)", 1.5))
    shown = ["", *sorted({reason for _, _, reason in stretches})]
    legend = "".join(
        f'<span><i style="background:{REASON_COLORS.get(name, "#c0c0c0")}"></i>'
        f"{html.escape(name or 'used')}</span>"
        for name in shown
    )
    legend += '<span><i class="cut"></i>cut</span>' if cuts else ""
    return f"<figure>{_svg(''.join(parts), wide, tall)}<figcaption>{legend}</figcaption></figure>"


def histogram_pose(yaw: np.ndarray, pitch: np.ndarray, reach: float = 40.0) -> str:
    """Where the head pointed: one dot a look, yaw to the right, pitch up, degrees."""
    size = 240
    scale = (size - 40) / (2 * reach)

    def place(a: float, b: float) -> tuple[float, float]:
        bound = np.clip([a, b], -reach, reach)
        return size / 2 + bound[0] * scale, size / 2 - bound[1] * scale

    parts = [_rect(20, 20, size - 40, size - 40, "var(--plot)", 6)]
    for radius in (10, 20, 30):
        parts.append(
            f'<circle cx="{size / 2}" cy="{size / 2}" r="{radius * scale:.1f}" fill="none" '
            'stroke="var(--grid)"/>'
        )
        parts.append(_text(size / 2 + radius * scale, size / 2 - 4, f"{radius}°", "middle"))
    for a, b in zip(yaw, pitch, strict=True):
        x, y = place(float(a), float(b))
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="var(--a)" fill-opacity=".35"/>'
        )
    for x, y, text in ((size / 2, 14, "up"), (size / 2, size - 6, "down")):
        parts.append(_text(x, y, text, "middle"))
    return f"<figure class=small>{_svg(''.join(parts), size, size)}</figure>"


def _unbroken(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Index arrays of runs that are finite and without holes in time."""
    index = np.flatnonzero(np.isfinite(y))
    if len(index) < 2:
        return []
    usual = float(np.median(np.diff(x[index])))
    breaks = np.flatnonzero((np.diff(index) > 1) | (np.diff(x[index]) > 3 * usual + 1e-6)) + 1
    return [part for part in np.split(index, breaks) if len(part) > 1]


def _ticks(low: float, high: float, count: int) -> list[float]:
    span = max(high - low, 1e-9)
    rough = span / count
    power = 10 ** np.floor(np.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    first = np.ceil(low / step - 1e-9)
    values = np.arange(first, high / step + 1e-9) * step
    return [round(float(v), 6) + 0.0 for v in values]


def _frame() -> str:
    return _rect(_LEFT, _TOP, WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM, "var(--plot)", 4)


def _rect(x: float, y: float, w: float, h: float, fill: str, radius: float = 0) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{radius}" '
        f'fill="{fill}"/>'
    )


def _line(x: float, y: float, u: float, v: float, color: str, width: float = 1) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{u:.1f}" y2="{v:.1f}" stroke="{color}" '
        f'stroke-width="{width}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _svg(body: str, width: int, height: int) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img">{body}</svg>'
