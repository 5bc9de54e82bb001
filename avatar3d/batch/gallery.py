"""A page that shows a library: pictures, scores, what failed and why, time and memory."""

import base64
from html import escape
from pathlib import Path
from urllib.parse import quote

from avatar3d.batch.record import Record

__all__ = ["gallery_page"]

_EMBEDDED = 1000  # pictures inside the page; a larger library's page points at their files
_STYLE = """
body{font:14px system-ui,sans-serif;margin:2em;background:#fafafa;color:#222}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:14px}
article{background:#fff;border:1px solid #ddd;border-radius:6px;padding:10px;overflow-wrap:anywhere}
article.failed{border-color:#c33}img{width:100%;border-radius:4px}h2{font-size:15px;margin:.3em 0}
p{margin:.3em 0}.why{color:#a11}.cost{color:#666;font-size:12px}
"""
_POLICY = "default-src 'none'; img-src data: 'self' file:; style-src 'unsafe-inline'"


def gallery_page(folder: Path, records: list[Record], linked: bool = True) -> str:
    """HTML without scripts; whatever comes from a table or a clip is escaped."""
    failed = sum(record.status == "failed" for record in records)
    inside = len(records) <= _EMBEDDED
    cards = "\n".join(
        _card(folder, record, inside, linked)
        for record in sorted(records, key=lambda r: (r.status != "failed", r.name))
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width"><title>Library</title>'
        f"<style>{_STYLE}</style><h1>{escape(folder.absolute().name)}</h1>"
        f"<p>{sum(r.status == 'done' for r in records)} avatars, {failed} failed. "
        "The pictures are synthetic.</p>"
        f"<main>\n{cards}\n</main></html>\n"
    )


def _card(folder: Path, record: Record, inside: bool, linked: bool) -> str:
    name = escape(record.name)
    lines = [f'<article class="{record.status}">']
    picture = folder / record.name / "thumbnail.png"
    if record.status == "done" and picture.is_file():
        source = (
            f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
            if inside
            else quote(f"{record.name}/thumbnail.png")
        )
        lines.append(f'<img alt="{name}" src="{source}" loading="lazy">')
    lines.append(f"<h2>{name}</h2>")
    if record.status == "failed":
        lines.append(f'<p class="why">{escape(record.stage)}: {escape(record.sentence)}</p>')
    elif record.scores:
        scores = ", ".join(f"{key} {value:.3g}" for key, value in sorted(record.scores.items()))
        lines.append(f"<p>{escape(scores)}</p>")
    links = (
        f'<a href="{escape(quote(file))}">{escape(Path(file).suffix)}</a>'
        for file in (record.files if linked else ())
    )
    lines.append(f"<p>{' '.join(links)}</p>")
    if record.stages:
        spent = sum(stage.seconds for stage in record.stages.values())
        memory = max(stage.peak_memory for stage in record.stages.values())
        lines.append(f'<p class="cost">{spent:.0f} s, {memory / 1e9:.2f} GB</p>')
    if record.overrides:
        lines.append(f'<p class="cost">{escape(" ".join(record.overrides))}</p>')
    return "".join([*lines, "</article>"])
