"""Jobs on a SLURM cluster, through submitit."""

import os
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avatar3d.batch.child import execute, lost
from avatar3d.batch.job import Job
from avatar3d.batch.record import Record
from avatar3d.errors import UserError

if TYPE_CHECKING:
    from avatar3d.batch.run import BatchOptions

__all__ = ["run_slurm"]

_LOOK = 1.0  # seconds
_POLL = 0.1
_WARNING = 120  # seconds before the end of its time that a job is told


def run_slurm(jobs: Sequence[Job], options: "BatchOptions") -> Generator[Record, None, None]:
    """Yield the records of jobs as these end; see `BatchOptions`.

    A job is warned by SIGUSR1 before its time is over or its machine is taken away. It then writes
    a checkpoint, and is queued again.

    Raises:
        UserError: no submitit, or no SLURM here.
    """
    try:
        os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")  # read when submitit is imported
        import submitit
    except ImportError as error:
        raise UserError(
            "The engine slurm is not installed; `pip install 'avatar3d[slurm]'`."
        ) from error
    executor = _executor(submitit, jobs, options)
    try:
        with executor.batch():
            submitted = [executor.submit(_Task(job.to_json(), options.attempts)) for job in jobs]
    except (OSError, RuntimeError, submitit.core.utils.FailedJobError) as error:
        raise UserError(
            f"SLURM does not take the jobs ({str(error).splitlines()[0]}); check --partition, "
            "--memory and --cores-per-job."
        ) from error
    running = dict(zip(submitted, jobs, strict=True))
    try:
        while running:
            for one in [one for one in running if one.done()]:
                yield _record(one, running.pop(one))
            time.sleep(_LOOK if running else 0)
    finally:
        for one in running:
            with suppress(Exception):
                one.cancel()


def _executor(submitit: Any, jobs: Sequence[Job], options: "BatchOptions") -> Any:
    folder = Path(jobs[0].library) / ".slurm"
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=options.cluster or "slurm")
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"There is no SLURM here ({str(error).splitlines()[0]}); run this where `sbatch` is, "
            "or take --engine local."
        ) from error
    more: dict[str, Any] = {"slurm_partition": options.partition} if options.partition else {}
    if options.memory_gb:
        more["mem_gb"] = options.memory_gb
    executor.update_parameters(
        name="avatar3d", cpus_per_task=jobs[0].cores, timeout_min=options.minutes,
        gpus_per_node=round(options.gpus), slurm_array_parallelism=options.jobs or 256,
        slurm_signal_delay_s=_WARNING, **more,
    )  # fmt: skip
    return executor


class _Task:
    """What submitit runs on a node; `checkpoint` is its name for being queued again."""

    def __init__(self, job: str, attempts: int) -> None:
        self.job, self.attempts = job, attempts

    def __call__(self) -> str:
        self.stop = threading.Event()
        found: list[Record | BaseException] = []

        def work() -> None:
            try:
                found.append(execute(Job.from_json(self.job), self.attempts, self.stop))
            except BaseException as error:
                found.append(error)

        # In a thread, so that `checkpoint`, which a signal calls in this one, can wait for it.
        self.thread = threading.Thread(target=work)
        self.thread.start()
        try:
            while self.thread.is_alive():
                time.sleep(_POLL)
        finally:
            self.stop.set()
            self.thread.join()
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0].model_dump_json()

    def checkpoint(self) -> Any:
        """Let the job save how far it is, before SLURM is asked to queue it again and ends it."""
        from submitit.helpers import DelayedSubmission

        self.stop.set()
        while self.thread.is_alive():  # for as long as `execute` gives it
            time.sleep(_POLL)
        return DelayedSubmission(_Task(self.job, self.attempts))


def _record(submitted: Any, job: Job) -> Record:
    try:
        return Record.model_validate_json(submitted.result())
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return lost(job, f"SLURM ended it ({reason})")
