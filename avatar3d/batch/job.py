"""One row of a library: capture, train, evaluate, export, by the functions the commands call.

    python -m avatar3d.batch.job      # a Job as JSON in the first line of standard input

is the process that an engine starts for a row (`batch.child`). It ends when its input does, so that
it never outlives whoever started it.
"""

import atexit
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avatar3d.batch.measure import Cost, measured
from avatar3d.batch.record import VERSION, Record, StageRecord, read_record, row_key, write_record
from avatar3d.batch.table import Row
from avatar3d.errors import UserError, explained
from avatar3d.io.atomic import atomic_write, sweep_temporaries
from avatar3d.io.locks import file_lock
from avatar3d.progress import say

__all__ = ["INTERRUPTED", "Job", "run_job"]

INTERRUPTED = 75
"""Exit code of a job that was told to stop; the same job goes on from there."""
_GRACE = 60.0  # seconds for a checkpoint once the input has ended
_SCORES = ("psnr", "ssim", "face_psnr", "mouth_psnr", "lip_distance", "jitter")


@dataclass(frozen=True)
class Job:
    """A row, the library it goes to, and what it may use.

    `started` is when its process was (seconds of the epoch), 0 in a process that others use too.
    """

    row: Row
    library: str
    cores: int = 1
    provenance: bool = True
    started: float = 0.0

    @property
    def folder(self) -> Path:
        return Path(self.library) / self.row.name

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        values = json.loads(text)
        row = values.pop("row")
        row["overrides"] = tuple(row["overrides"])
        return cls(Row(**row), **values)


def run_job(job: Job) -> Record:
    """Bring a row up to date: stages whose input has not changed are not run again.

    What goes wrong is in the record that is returned and written, `status` "failed".

    Raises:
        KeyboardInterrupt: told to stop.
    """
    folder = job.folder
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "row.json"):  # another engine's process may not be quite dead yet
        sweep_temporaries(folder)
        return _Stages(job).run()


@dataclass
class _Stages:
    job: Job
    record: Record = field(init=False)
    spent: list[Cost] = field(default_factory=list)
    worked: bool = False

    def __post_init__(self) -> None:
        job = self.job
        row = job.row
        before = read_record(job.folder)
        self.record = Record(
            name=row.name, video=row.video, consent=row.consent, overrides=list(row.overrides),
            key=row_key(row), stages=before.stages if before else {}, cores=job.cores,
            scores=before.scores if before else {},
        )  # fmt: skip

    def run(self) -> Record:
        record, stage = self.record, "settings"
        try:
            from avatar3d.batch.settings import settings

            self.settings = settings(self.job.row.overrides, self.job.row.consent)
            for name, work in (
                ("capture", self._capture), ("train", self._train),
                ("evaluate", self._evaluate), ("export", self._export),
            ):  # fmt: skip
                stage = name
                work()
            record.status = "done"
            self._note_start()
        except Exception as error:
            record.status, record.stage = "failed", stage
            record.sentence, _ = (
                (str(error), 2) if isinstance(error, UserError) else explained(error)
            )
            say(record.sentence)
        write_record(self.job.folder, record)
        return record

    def _path(self, suffix: str) -> Path:
        return self.job.folder / f"{self.job.row.name}{suffix}"

    def _capture(self) -> None:
        """Capture has hashes of its own for every step, and says itself what is up to date."""
        from avatar3d.capture import capture
        from avatar3d.subject import Subject

        path = self._path(".subject")
        try:
            known = Subject(path).info.stages
        except UserError:
            known = {}
        with self._measured() as cost:
            subject = capture(self.job.row.video, path, self.settings.capture)
        self.subject_key = _hash(subject.info.source_sha256, subject.info.stages)
        if known != subject.info.stages or "capture" not in self.record.stages:
            self._done("capture", self.subject_key, cost, [path])

    def _train(self) -> None:
        from avatar3d.training import train

        path, config = self._path(".a3d"), self.settings.training
        consent = self.settings.capture.consent
        self.train_key = _hash(VERSION, self.subject_key, asdict(config), consent)
        self._stage(
            "train", self.train_key, [path],
            lambda: train(self._path(".subject"), path, config), also=[self._path(".run")],
        )  # fmt: skip

    def _evaluate(self) -> None:
        from avatar3d.evaluation import evaluate_files

        path, config = self._path(".evaluation"), self.settings.evaluation
        self._stage(
            "evaluate", _hash(self.train_key, asdict(config)), [path],
            lambda: evaluate_files([self._path(".a3d")], self._path(".subject"), path, config),
        )  # fmt: skip
        means = json.loads((path / "evaluation.json").read_bytes())["means"]
        self.record.scores = {name: means[name] for name in _SCORES if means.get(name) is not None}

    def _export(self) -> None:
        paths = [self._path(f".{name}") for name in self.settings.export]
        thumbnail = self.job.folder / "thumbnail.png"
        key = _hash(self.train_key, self.settings.export)
        self._stage("export", key, [*paths, thumbnail], lambda: self._write_exports(thumbnail))
        self.record.files = [
            str(path.relative_to(self.job.library)) for path in [self._path(".a3d"), *paths]
        ]

    def _write_exports(self, thumbnail: Path) -> None:
        from zipfile import ZipFile

        from avatar3d.avatar import NerfAvatar, load
        from avatar3d.export import export
        from avatar3d.training.distill import DistillConfig, to_splats

        avatar = load(self._path(".a3d"))
        if isinstance(avatar, NerfAvatar) and set(self.settings.export) - {"mov", "png", "webm"}:
            avatar = to_splats(avatar, DistillConfig())
        for name in self.settings.export:
            export(avatar, self._path(f".{name}"), format=name)
        with ZipFile(self._path(".a3d")) as file:
            atomic_write(thumbnail, file.read("preview.png"))

    def _stage(
        self,
        name: str,
        key: str,
        paths: list[Path],
        work: Callable[[], Any],
        also: list[Path] | None = None,
    ) -> None:
        done = self.record.stages.get(name)
        if done is not None and done.key == key and all(path.exists() for path in paths):
            return
        with self._measured() as cost:
            work()
        self._done(name, key, cost, [*paths, *(also or [])])

    @contextmanager
    def _measured(self) -> Iterator[Cost]:
        with measured() as cost:
            self.spent.append(cost)
            yield cost

    def _note_start(self) -> None:
        """What this process has spent outside the stages, which a plan has to count too."""
        if not self.job.started or not self.worked:  # else it may have waited for another's lock
            return
        seconds = time.time() - self.job.started - sum(cost.seconds for cost in self.spent)
        cpu_seconds = sum(os.times()[:4]) - sum(cost.cpu_seconds for cost in self.spent)
        self.record.stages["start"] = StageRecord(
            key="", seconds=round(max(0.0, seconds), 3), cpu_seconds=round(cpu_seconds, 3),
            peak_memory=0, bytes=0,
        )  # fmt: skip

    def _done(self, name: str, key: str, cost: Cost, paths: list[Path]) -> None:
        self.worked = True
        self.record.stages[name] = StageRecord(
            key=key, bytes=sum(map(_size, paths)), **asdict(cost)
        )
        write_record(self.job.folder, self.record)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _main() -> int:
    line = sys.stdin.readline()
    job = Job.from_json(line)
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_input, daemon=True).start()
    from avatar3d.provenance import without_provenance

    try:
        if job.provenance:
            run_job(job)
        else:
            with without_provenance():
                run_job(job)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _end_with_input() -> None:
    # Not through the buffered reader: a thread in it at exit would stop the interpreter.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_GRACE)
    os._exit(INTERRUPTED)


def _leave(code: list[int]) -> None:
    """End without the second in which libraries free memory that is about to be gone anyway."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code[0])


if __name__ == "__main__":
    code = [1]
    atexit.register(_leave, code)  # first here, so that it is the last to be called
    code[0] = _main()
