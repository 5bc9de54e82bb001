"""`avatar3d assets`: model files and sample clips."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["assets_app"]

assets_app = typer.Typer(
    help="Model files and sample clips: list, fetch, import, rebuild.",
    no_args_is_help=False,
    invoke_without_command=True,
)


@assets_app.callback()
def assets(context: typer.Context) -> None:
    """List the assets when no sub-command is given."""
    if context.invoked_subcommand is None:
        list_assets()


@assets_app.command("list")
def list_assets() -> None:
    """List every asset with its state, size, licence and purpose."""
    from avatar3d.assets import cache_folder
    from avatar3d.assets import list_assets as statuses

    for status in statuses():
        print(f"{status.name:<22} {status.state:<8} {status.size / 1e6:5.1f} MB")
        print(f"    {status.purpose}")
        print(f"    licence: {status.licence}")
    print(f"They are kept in {cache_folder()}; set AVATAR3D_CACHE to move it.")


@assets_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name in `avatar3d assets`.", show_default=False)],
) -> None:
    """Put an asset into the cache if it is not there, and print its path."""
    from avatar3d.assets import get

    print(get(name))


@assets_app.command("import")
def import_asset(
    name: Annotated[str, typer.Argument(help="Name in `avatar3d assets`.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="The file, or the package that holds it.")],
) -> None:
    """Take an asset from a file, for machines without a registry."""
    from avatar3d.assets import import_file

    print(import_file(name, file))


@assets_app.command()
def rebuild() -> None:
    """Build the default head model anew from its data."""
    from avatar3d.head.anny import cached_path, rebuild_anny

    rebuild_anny()
    print(cached_path())
