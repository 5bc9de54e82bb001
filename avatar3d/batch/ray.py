"""Jobs on a Ray cluster, or on one that is started on this machine."""

import os
from collections import deque
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from avatar3d.batch.child import execute
from avatar3d.batch.job import Job
from avatar3d.batch.record import Record
from avatar3d.cores import available_cores
from avatar3d.errors import UserError

if TYPE_CHECKING:
    from avatar3d.batch.run import BatchOptions

__all__ = ["run_ray"]

_IN_FLIGHT = 2000  # tasks that Ray knows of at a time


def run_ray(jobs: Sequence[Job], options: "BatchOptions") -> Generator[Record, None, None]:
    """Yield the records of jobs as these end; see `BatchOptions`.

    Every job is a task with its cores, GPUs and memory. A task whose worker or machine is lost is
    run again elsewhere, and goes on from the last stage or checkpoint in the library, which all
    machines must see under the same path.

    Raises:
        UserError: no Ray, or no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "The engine ray is not installed; `pip install 'avatar3d[ray]'`."
        ) from error
    _start(ray, options)
    memory = {"memory": int(options.memory_gb * 1e9)} if options.memory_gb else {}
    task = ray.remote(_task).options(
        num_cpus=jobs[0].cores, num_gpus=options.gpus, max_retries=options.attempts, **memory
    )
    waiting, running = deque(jobs), dict[Any, Job]()
    try:
        while waiting or running:
            while waiting and len(running) < (options.jobs or _IN_FLIGHT):
                job = waiting.popleft()
                running[task.remote(job.to_json(), options.attempts)] = job
            for done in ray.wait(list(running), num_returns=1, timeout=1.0)[0]:
                yield _record(ray, done, running.pop(done))
    finally:
        for left in running:
            ray.cancel(left)
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=20)
        ray.shutdown()


def _start(ray: Any, options: "BatchOptions") -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Told by num_gpus=0, Ray would hide the GPUs of a machine that nobody counted.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = options.cluster or os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = {} if address else {"num_cpus": available_cores()}
    try:
        ray.init(
            address=address or "local", include_dashboard=False, log_to_driver=False,
            logging_level="error", ignore_reinit_error=True, **own,
        )  # fmt: skip
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"Cannot reach a Ray cluster at {address or 'this machine'} "
            f"({str(error).splitlines()[0]}); check --cluster and `ray status`."
        ) from error


def _task(job: str, attempts: int) -> str:
    return execute(Job.from_json(job), attempts).model_dump_json()


def _record(ray: Any, reference: Any, job: Job) -> Record:
    try:
        return Record.model_validate_json(ray.get(reference))
    except ray.exceptions.RayError as error:
        from avatar3d.batch.child import lost

        return lost(job, f"Ray gave up on its worker ({type(error).__name__})")
