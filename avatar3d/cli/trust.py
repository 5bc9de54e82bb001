"""`avatar3d verify` and `avatar3d forget`."""

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["forget_subject", "verify_file"]

_LOOKED_AT = 5  # pictures


def verify_file(
    file: Annotated[Path, typer.Argument(help="Video, picture, page, model or avatar file.")],
) -> None:
    """Say whether a file states that it is synthetic, and whether it was changed since."""
    from avatar3d.provenance import verify

    verdict = verify(file)
    if verdict.state != "valid" and _has_watermark(file):
        print("The pictures have the invisible mark of avatar3d: they are synthetic.")
    if verdict.state == "none":
        print("none: the file carries no statement, which proves nothing: it can be removed")
        raise typer.Exit(1)
    reason = f": {verdict.reason}" if verdict.reason else ""
    print(f"{verdict.state}{reason} ({verdict.how}, signed by {verdict.signer or 'unknown'})")
    for name, value in _lines(verdict.statement):
        print(f"    {name:<18} {value}")
    raise typer.Exit(0 if verdict.state == "valid" else 1)


def _has_watermark(path: Path) -> bool:
    """Whether most of the first pictures of a video or a picture have the invisible mark."""
    from avatar3d.errors import UserError
    from avatar3d.io.images import read_image
    from avatar3d.io.video import read_frames
    from avatar3d.provenance.watermark import detect

    suffix = path.suffix.lower()
    try:
        if suffix in (".png", ".jpg", ".jpeg"):
            frames = [read_image(path)]
        elif suffix in (".mp4", ".m4v", ".mov", ".mkv", ".webm"):
            frames = list(islice(read_frames(path), _LOOKED_AT))
        else:
            return False
    except UserError:
        return False
    found = [detect(frame)[0] for frame in frames if frame.ndim == 3]
    return 2 * sum(found) > len(found)


def _lines(statement: dict[str, Any]) -> list[tuple[str, str]]:
    from avatar3d.subject.consent import consent_line

    lines = []
    if kind := str(statement.get("digitalSourceType", "")):
        lines.append(("source type", kind.rpartition("/")[2]))
    if statement.get("source_sha256"):
        lines.append(("clip, sha256", str(statement["source_sha256"])))
    consent = statement.get("consent")
    known = consent if isinstance(consent, dict | str) else None
    lines.append(("consent", consent_line(known).partition("\n")[0][:300]))
    return lines


def forget_subject(
    subject: Annotated[Path, typer.Argument(help="Subject folder.")],
    avatars: Annotated[
        bool, typer.Option("--avatars", help="Also the avatars beside it that were made of it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a captured person from this machine, and list what was removed."""
    from avatar3d.errors import UserError
    from avatar3d.subject.forgetting import forget, made_from, traces

    if ":/" in str(subject):
        raise UserError(
            f"{subject} is in a storage; take it from there with `avatar3d storage remove` and "
            "`avatar3d storage sweep`."
        )

    paths = traces(subject)
    others = made_from(subject)
    if avatars:
        paths, others = [*paths, *others], []
    if not yes:
        print("\n".join(map(str, paths)))
        typer.confirm("Remove these for good?", abort=True)
    forget(paths)
    for path in paths:
        print(f"removed  {path}")
    for path in others:
        print(f"kept     {path}")
    print("The recording itself and files made elsewhere are yours to remove.")
