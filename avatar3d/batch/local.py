"""Jobs on this machine: a few at a time, each a process of its own."""

import threading
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue

from avatar3d.batch.child import execute
from avatar3d.batch.gpus import gpu_slots
from avatar3d.batch.job import Job
from avatar3d.batch.record import Record
from avatar3d.cores import available_cores

__all__ = ["run_local"]


def run_local(
    jobs: Sequence[Job], at_once: int, attempts: int = 3, jobs_per_gpu: int = 0
) -> Generator[Record, None, None]:
    """Yield the records of jobs as these end.

    Args:
        at_once: how many jobs; 0 is as many as have cores of their own, and with GPUs as many as
            fit into their memory.
        attempts: how often a job that gets killed is started.
        jobs_per_gpu: jobs that share a GPU; 0 is as many as fit.
    """
    slots = gpu_slots(jobs_per_gpu)
    cores = jobs[0].cores if jobs else 1
    at_once = at_once or max(1, min(available_cores() // cores, len(slots) or len(jobs)))
    free: SimpleQueue[str | None] = SimpleQueue()
    for place in range(at_once):
        free.put(slots[place % len(slots)] if slots else None)
    stop = threading.Event()

    def work(job: Job) -> Record:
        if stop.is_set():
            raise KeyboardInterrupt
        slot = free.get()
        try:
            return execute(job, attempts, stop, slot)
        finally:
            free.put(slot)

    with ThreadPoolExecutor(at_once) as pool:
        try:
            waiting: set[Future[Record]] = {pool.submit(work, job) for job in jobs}
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BaseException:
            stop.set()
            raise
