"""Tables, settings, records, and jobs in processes of their own that fail, die and are repeated."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from avatar3d.batch import BatchOptions, Job, Library, Row, make_library, read_rows
from avatar3d.batch.child import execute
from avatar3d.batch.gallery import gallery_page
from avatar3d.batch.record import Record, read_record, row_key, write_record
from avatar3d.batch.settings import settings
from avatar3d.cores import available_cores
from avatar3d.errors import UserError


@pytest.fixture
def noise(tmp_path: Path) -> list[Path]:
    """Two files that are no videos: the cheapest rows that go through a whole job."""
    paths = [tmp_path / f"{name}.mp4" for name in ("a", "b")]
    for path in paths:
        path.write_bytes(os.urandom(2000))
    return paths


def test_a_table_gives_rows_with_their_own_settings_first(tmp_path, noise):
    (tmp_path / "consent.yaml").write_text("who: A")
    table = tmp_path / "t.csv"
    table.write_text(
        "\ufeffvideo,name,consent,training.iterations\na.mp4,Anna,consent.yaml,50\n"
        'b.mp4,,"by mail, 1 May",\n'
    )
    anna, b = read_rows([table], ["training.iterations=9"])
    assert anna == Row(
        "Anna", str(noise[0]), str(tmp_path / "consent.yaml"),
        ("training.iterations=50", "training.iterations=9"),
    )  # fmt: skip
    assert b == Row("b", str(noise[1]), "by mail, 1 May", ("training.iterations=9",))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("clip,name\na.mp4,x\n", "no column `video`"),
        ("video,name\na.mp4,x\nb.mp4,X\n", "Two rows are named"),
        ("video\nc.mp4\n", "There is no video"),
        ("video,name\na.mp4,../x\n", "cannot be the name"),
        ("video,name\n,x\n", "names no video"),
        ("video\na.mp4,b\n", "more cells"),
        ("video,video\na.mp4,b\n", "column twice"),
        ("video\n", "Name the videos"),
    ],
)
def test_mistakes_in_a_table_are_one_sentence(tmp_path, noise, text, sentence):
    table = tmp_path / "t.csv"
    table.write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_rows([table])


def test_settings_find_their_stage():
    found = settings(
        ["size=256", "training.iterations=7", "capture.iterations=5", "video=false",
         "export=html,spz"], consent="by mail",
    )  # fmt: skip
    assert (found.capture.size, found.capture.iterations, found.capture.consent) == (
        256, 5, "by mail",
    )  # fmt: skip
    assert (found.training.iterations, found.training.train_fraction) == (7, 0.909091)
    assert (found.evaluation.video, found.export) == (False, ("html", "spz"))
    with pytest.raises(UserError, match=r"capture\.iterations or training\.iterations"):
        settings(["iterations=5"])
    with pytest.raises(UserError, match="did you mean 'gaussians'"):
        settings(["gausians=5"])


def test_bad_settings_stop_before_anything_starts(tmp_path, noise):
    with pytest.raises(UserError, match=r"Row 'a'.*no setting 'nonsense'"):
        make_library(read_rows(noise[:1], ["nonsense=1"]), tmp_path / "L")
    assert not (tmp_path / "L").exists()


@pytest.mark.parametrize("engine", ["local", "ray", "slurm"])
def test_failed_rows_say_why_and_stop_no_other(tmp_path, noise, engine, capsys):
    if engine != "local":
        pytest.importorskip({"ray": "ray", "slurm": "submitit"}[engine])
    cluster = "local" if engine == "slurm" else None
    options = BatchOptions(engine, jobs=2, memory_gb=0, cluster=cluster)
    records = make_library(read_rows(noise), tmp_path / "L", options)
    assert [(r.name, r.status, r.stage) for r in records] == [
        ("a", "failed", "capture"), ("b", "failed", "capture"),
    ]  # fmt: skip
    assert all("is not a readable video" in record.sentence for record in records)
    rows = json.loads((tmp_path / "L" / "library.json").read_bytes())["rows"]
    assert [row["name"] for row in rows] == ["a", "b"]
    assert "is not a readable video" in (tmp_path / "L" / "index.html").read_text("utf-8")


def test_what_is_done_is_left_alone_until_it_changes(tmp_path, noise):
    library, rows = Library(tmp_path / "L"), read_rows(noise, ["size=256"])
    for row in rows:
        record = Record(name=row.name, video=row.video, key=row_key(row), status="done")
        write_record(library.folder / row.name, record)
    assert library.outdated(rows) == []
    changed = replace(rows[0], overrides=("size=128",))
    assert library.outdated([changed, rows[1]]) == [changed]
    noise[1].write_bytes(b"another")
    assert library.outdated(rows) == [rows[1]]


def test_a_killed_job_is_started_again_and_one_told_to_stop_is_not(tmp_path, noise, monkeypatch):
    job = Job(read_rows(noise)[0], str(tmp_path / "L"))
    monkeypatch.setattr("avatar3d.batch.child._run", lambda *_: -9)
    record = execute(job, attempts=2)
    assert record.status == "failed"
    assert "signal 9, 2 times" in record.sentence
    assert read_record(job.folder) == record
    monkeypatch.undo()
    endless = tmp_path / "endless"
    endless.write_text("#!/bin/sh\nexec sleep 100\n")
    endless.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(endless))
    stop = threading.Event()
    threading.Timer(1, stop.set).start()
    start = time.monotonic()
    for _ in ("while it runs", "before it starts"):
        with pytest.raises(KeyboardInterrupt):
            execute(job, stop=stop)
    assert time.monotonic() - start < 30


def test_a_warned_slurm_job_saves_before_it_is_queued_again(tmp_path, noise, monkeypatch):
    """SLURM ends a job when it is asked to queue it again, so the saving has to come first."""
    pytest.importorskip("submitit")
    from submitit.core.job_environment import SignalHandler
    from submitit.core.utils import DelayedSubmission, JobPaths
    from submitit.local.local import LocalJobEnvironment

    from avatar3d.batch import slurm

    happened = []

    def execute(job, attempts, stop):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.wait(60)
        happened.append("saved")
        raise KeyboardInterrupt

    class Node(LocalJobEnvironment):
        global_rank = 0

        def _requeue(self, countdown):
            happened.append("queued")

    monkeypatch.setattr(slurm, "execute", execute)
    job = Job(read_rows(noise)[0], str(tmp_path / "L"))
    paths = JobPaths(tmp_path, "1")
    delayed = DelayedSubmission(slurm._Task(job.to_json(), 3))
    delayed.set_timeout(60, 3)
    handler = SignalHandler(Node(), paths, delayed)
    before = signal.signal(signal.SIGUSR1, handler.checkpoint_and_try_requeue)
    try:
        with pytest.raises(SystemExit):
            delayed.function()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert happened == ["saved", "queued"]
    again = DelayedSubmission.load(paths.submitted_pickle).function
    assert Job.from_json(again.job) == job


def test_the_gallery_runs_nothing_that_a_row_says(tmp_path):
    evil = '"><script>alert(1)</script>'
    page = gallery_page(
        tmp_path,
        [Record(name="a", video=evil, status="failed", sentence=evil, overrides=[evil])],
    )
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_process_uses_the_cores_it_was_given(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert available_cores() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert available_cores() == len(os.sched_getaffinity(0))


def test_the_exit_code_says_partial(run_here, tmp_path, noise):
    result = run_here("batch", noise[0], "-o", tmp_path / "L")
    assert result.returncode == 3
    listed = run_here("batch", tmp_path / "L", "--failed")
    assert listed.returncode == 0
    assert "a" in listed.stdout
    assert "is not a readable video" in listed.stdout
    assert run_here("batch", tmp_path / "nothing.mp4", "-o", tmp_path / "L").returncode == 2
