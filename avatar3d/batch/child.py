"""A process of its own for every job, so that what one does to memory hurts no other."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

from avatar3d.batch.job import INTERRUPTED, Job
from avatar3d.batch.record import Record, read_record, row_key, write_record

__all__ = ["execute", "lost"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_GRACE = 60.0  # seconds for a checkpoint
_LOOK = 0.2


def execute(
    job: Job,
    attempts: int = 3,
    stop: threading.Event | None = None,
    gpu: str | None = None,
) -> Record:
    """Run a job in a child process, anew where it was killed, and return its record.

    Args:
        attempts: how often a job is started that does not end by itself.
        stop: set it, and the job ends after a checkpoint.
        gpu: value of CUDA_VISIBLE_DEVICES for the job.

    Raises:
        KeyboardInterrupt: stopped.
    """
    code = 0
    stop = stop or threading.Event()
    for _ in range(attempts):
        if stop.is_set():  # a job that fails within moments would end before it is told
            raise KeyboardInterrupt
        code = _run(job, stop, gpu)
        if code == 0 and (record := read_record(job.folder)) is not None:
            return record
        if code == INTERRUPTED or stop.is_set():
            raise KeyboardInterrupt
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return lost(job, f"{how}, {attempts} times")


def _run(job: Job, stop: threading.Event, gpu: str | None) -> int:
    environment = os.environ | {name: str(job.cores) for name in _THREADS}
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    job.folder.mkdir(parents=True, exist_ok=True)
    job = replace(job, started=time.time())
    with open(job.folder / "job.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "avatar3d.batch.job"],
            stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment,
            start_new_session=True,  # Ctrl-C is for us; we tell the job
        )  # fmt: skip
        assert process.stdin is not None
        try:
            process.stdin.write(f"{job.to_json()}\n".encode())
            process.stdin.flush()
            while True:
                try:
                    return process.wait(_LOOK)
                except subprocess.TimeoutExpired:
                    if stop.is_set():
                        process.send_signal(signal.SIGTERM)
                        return process.wait(_GRACE)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            process.kill()
            return process.wait()
        except BaseException:  # we are told to end: by Ray, or by Ctrl-C where there is one job
            process.send_signal(signal.SIGTERM)
            process.wait(_GRACE)
            raise
        finally:
            if process.poll() is None:
                process.kill()
            process.stdin.close()


def lost(job: Job, how: str) -> Record:
    """The record of a job that never came to its own end; `how` is part of a sentence."""
    row = job.row
    before = read_record(job.folder)
    record = Record(
        name=row.name, video=row.video, consent=row.consent, overrides=list(row.overrides),
        key=row_key(row), status="failed", stage="job", cores=job.cores,
        stages=before.stages if before else {},
        sentence=f"The job did not end by itself: {how}; see {row.name}/job.log, and run fewer "
        "jobs at a time if memory was short.",
    )  # fmt: skip
    write_record(job.folder, record)
    return record
