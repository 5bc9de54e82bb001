"""`avatar3d batch`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from avatar3d.batch import Library, SharedLibrary

__all__ = ["make_batch"]

_PARTIAL = 3


def make_batch(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Videos, or a table (.csv) with the columns video, name, consent and any "
            "settings; and settings as key=value. Without videos those of the library.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("-o", "--output", help="Folder of the library, or s3://bucket/library.")
    ] = "library",
    engine: Annotated[str, typer.Option(help="local, ray or slurm.")] = "local",
    jobs: Annotated[int, typer.Option(min=0, help="At a time; 0 is as many as fit.")] = 0,
    cores_per_job: Annotated[int, typer.Option(min=1, help="Threads of each.")] = 1,
    memory: Annotated[
        float, typer.Option(min=0, help="GB that Ray or SLURM sets aside for a job; 0 does not.")
    ] = 2.0,
    gpus: Annotated[float, typer.Option(min=0, help="Of Ray or SLURM for a job.")] = 0.0,
    jobs_per_gpu: Annotated[
        int, typer.Option(min=0, help="That share a GPU of this machine; 0 is as many as fit.")
    ] = 0,
    attempts: Annotated[
        int, typer.Option(min=1, help="How often a job is started that gets killed.")
    ] = 3,
    cluster: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster; slurm, local or debug of submitit."),
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Of SLURM.")] = None,
    minutes: Annotated[int, typer.Option(min=1, help="Of SLURM for a job at a time.")] = 120,
    show: Annotated[bool, typer.Option("--list", help="Only list what the library has.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only list what failed.")] = False,
    no_provenance: Annotated[
        bool, typer.Option("--no-provenance", help="Leave out the signed statement; logged.")
    ] = False,
) -> None:
    """Make a library of avatars: capture, train, evaluate and export every video.

    Run it again to continue, to redo what failed or changed, and to add more. Exit code 0 where all
    rows are avatars, 3 where some are not, 2 where nothing was begun for a mistake.
    """
    from avatar3d.batch import BatchOptions, make_library, make_shared_library, read_rows
    from avatar3d.errors import UserError
    from avatar3d.io.storage import is_url, shown

    overrides = [text for text in sources or () if _is_setting(text)]
    files = [text for text in sources or () if not _is_setting(text)]
    library = _library(output)
    if show or failed:
        _list(files[0] if files else output, failed)
        return
    if files:
        rows = read_rows(files, overrides)
    else:
        rows = [record.row for record in library.records()]
        if not rows or overrides:
            raise UserError(
                f"Name the videos, or a table (.csv) of them, for the library {shown(output)}."
            )
    options = BatchOptions(
        engine, jobs, cores_per_job, memory, gpus, jobs_per_gpu, attempts, cluster, partition,
        minutes, not no_provenance,
    )  # fmt: skip
    make = make_shared_library if is_url(output) else make_library
    records = make(rows, output, options)
    done = sum(record.status == "done" for record in records)
    print(f"{done} of {len(rows)} avatars: {shown(output)}/index.html")
    if done < len(rows):
        raise typer.Exit(_PARTIAL)


def _is_setting(text: str) -> bool:
    return "=" in text and not Path(text).exists()


def _library(place: str) -> "Library | SharedLibrary":
    from avatar3d.batch import Library, SharedLibrary
    from avatar3d.io.storage import is_url

    return SharedLibrary(place) if is_url(place) else Library(place)


def _list(place: str, failed: bool) -> None:
    from avatar3d.errors import UserError
    from avatar3d.io.storage import shown

    records = _library(place).records()
    if not records:
        raise UserError(f"There is no library in {shown(place)}; make one with `avatar3d batch`.")
    for record in records:
        if record.status == "failed":
            print(f"{record.name:<24} failed   {record.stage}: {record.sentence}")
        elif not failed:
            scores = "  ".join(f"{name} {value:.3g}" for name, value in record.scores.items())
            seconds = sum(stage.seconds for stage in record.stages.values())
            print(f"{record.name:<24} {record.status:<8} {seconds:7.1f} s  {scores}")
