"""`make_library`: bring every row of a library up to date, by one of the engines."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from avatar3d.batch.job import Job
from avatar3d.batch.library import Library
from avatar3d.batch.record import Record
from avatar3d.batch.table import Row
from avatar3d.errors import UserError
from avatar3d.progress import say, track

__all__ = ["ENGINES", "BatchOptions", "make_library"]

ENGINES = ("local", "ray", "slurm")


@dataclass(frozen=True)
class BatchOptions:
    """Where jobs run and what each may use.

    Attributes:
        engine: local, ray or slurm.
        jobs: at a time; 0 is as many as there are cores for.
        cores_per_job: threads of a job.
        memory_gb: that a scheduler sets aside for a job; 0 says nothing of memory.
        gpus: of Ray's or SLURM's that a job needs; on this machine they are found.
        jobs_per_gpu: that share a GPU on this machine; 0 is as many as fit.
        attempts: how often a job is started that gets killed.
        cluster: address of a Ray cluster (default RAY_ADDRESS, else one on this machine), or what
            submitit calls a cluster: slurm, local or debug.
        partition: of SLURM.
        minutes: that SLURM gives a job before it is stopped and queued again.
        provenance: write the signed statement that files are synthetic.
    """

    engine: str = "local"
    jobs: int = 0
    cores_per_job: int = 1
    memory_gb: float = 2.0
    gpus: float = 0.0
    jobs_per_gpu: int = 0
    attempts: int = 3
    cluster: str | None = None
    partition: str | None = None
    minutes: int = 120
    provenance: bool = True

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UserError(f"There is no engine {self.engine!r}; take {', '.join(ENGINES)}.")


def make_library(
    rows: Sequence[Row],
    output: str | Path,
    options: BatchOptions | None = None,
    finished: Callable[[Record], None] | None = None,
) -> list[Record]:
    """Make or update the avatars of a library; rows that are up to date cost a look at their files.

    A row that fails stops no other: its record says why. Run again, failed and changed rows are
    done anew, from the first stage that has to be. `finished` is told of each row that was run.

    Returns:
        The records of `rows`, in their order.

    Raises:
        UserError: a setting that no stage has, or an engine that is not installed; nothing has
            begun then.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    options, library = options or BatchOptions(), Library(output)
    waiting = library.outdated(rows)
    say(f"{len(rows) - len(waiting)} of {len(rows)} rows are up to date.")
    if waiting:
        _check(waiting)
        place = str(library.folder.absolute())
        jobs = [Job(row, place, options.cores_per_job, options.provenance) for row in waiting]
        try:
            with closing(_records(jobs, options)) as records:
                for record in track(records, "Making avatars", len(jobs)):
                    if record.status == "failed":
                        say(f"{record.name}: {record.sentence}")
                    if finished is not None:
                        finished(record)
        finally:
            library.write_index()
    else:
        library.write_index()
    known = {record.name: record for record in library.records()}
    return [known[row.name] for row in rows if row.name in known]


def _records(jobs: list[Job], options: BatchOptions) -> Generator[Record, None, None]:
    if options.engine == "ray":
        from avatar3d.batch.ray import run_ray

        return run_ray(jobs, options)
    if options.engine == "slurm":
        from avatar3d.batch.slurm import run_slurm

        return run_slurm(jobs, options)
    from avatar3d.batch.local import run_local

    return run_local(jobs, options.jobs, options.attempts, options.jobs_per_gpu)


def _check(rows: Sequence[Row]) -> None:
    """Find mistakes in settings before anything starts."""
    from avatar3d.batch.settings import settings

    for row in rows:
        try:
            settings(row.overrides)
        except UserError as error:
            raise UserError(f"Row {row.name!r}: {error}") from error
