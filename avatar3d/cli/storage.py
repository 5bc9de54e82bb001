"""`avatar3d storage`: subjects and avatars on shared storage."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["storage_app"]

storage_app = typer.Typer(
    help="Shared storage: publish, fetch, list, remove, sweep.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Url = Annotated[str, typer.Argument(help="Such as s3://bucket/library/anna.a3d, or file:///...")]
Root = Annotated[
    str | None,
    typer.Option(help="URL above, whose contents are shared by everything below it [parent]."),
]


@storage_app.command()
def publish(
    source: Annotated[Path, typer.Argument(help="File or folder.")],
    url: Url,
    root: Root = None,
    rewrite: Annotated[
        bool, typer.Option("--rewrite", help="Upload everything anew, to mend damage.")
    ] = False,
) -> None:
    """Make a file or folder visible at a URL, whole or not at all."""
    from avatar3d.io.storage import publish as run
    from avatar3d.io.storage import shown

    run(source, url, root, rewrite)
    print(shown(url))


@storage_app.command()
def fetch(url: Url, output: Annotated[Path, typer.Argument(help="File or new folder.")]) -> None:
    """Download what is published at a URL, verified."""
    from avatar3d.io.storage import fetch as run

    print(run(url, output))


@storage_app.command("list")
def list_all(url: Url) -> None:
    """What is published below a URL, with sizes."""
    from avatar3d.io.storage_sweep import list_published

    for name, manifest in list_published(url):
        print(f"{manifest.size / 1e6:10.1f} MB  {len(manifest.files):6} files  {name}")


@storage_app.command()
def remove(url: Url) -> None:
    """Make what is published at a URL invisible; `sweep` then frees its space."""
    from avatar3d.errors import UserError
    from avatar3d.io.storage import remove as run
    from avatar3d.io.storage import shown

    if not run(url):
        raise UserError(f"Nothing is published at {shown(url)}; check the URL.")
    print(f"removed  {shown(url)}")


@storage_app.command()
def sweep(
    root: Annotated[str, typer.Argument(help="URL that holds `objects`.")],
    grace: Annotated[
        float, typer.Option(min=0, help="Hours that a publisher may take; 0: none is at work.")
    ] = 24.0,
) -> None:
    """Remove contents that nothing published uses, after a first sweep has listed them."""
    from avatar3d.io.storage_sweep import sweep as run

    swept = run(root, grace * 3600)
    print(
        f"removed {swept.removed} objects, {swept.freed / 1e6:.1f} MB; {swept.condemned} more "
        f"will be removed by a sweep in {grace:g} hours"
    )
