"""A library at a URL: what is published, what is skipped, what a bad place or index says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import avatar3d.batch.shared as shared_module
from avatar3d.batch import BatchOptions, Job, SharedLibrary, make_shared_library, read_rows
from avatar3d.batch.record import Record, row_key, write_record
from avatar3d.errors import UserError
from avatar3d.io.storage import fetch, read_object, write_object


class Engine:
    """Makes small files of the names of a real job's, and counts the jobs."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.had_subject: list[bool] = []

    def __call__(self, jobs: list[Job], options: BatchOptions):
        for job in jobs:
            name, folder = job.row.name, job.folder
            self.ran.append(name)
            self.had_subject.append((folder / f"{name}.subject" / "subject.json").is_file())
            files = [f"{name}.a3d", f"{name}.html", "thumbnail.png"]
            for file in [f"{name}.subject/subject.json", f"{name}.evaluation/e.json", *files]:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_text(f"{file} of {job.row.overrides}")
            record = Record(
                name=name, video=job.row.video, overrides=list(job.row.overrides),
                key=row_key(job.row), status="done", files=[f"{name}/{x}" for x in files[:2]],
            )  # fmt: skip
            write_record(folder, record)
            yield record


@pytest.fixture
def engine(monkeypatch, tmp_path):
    made = Engine()
    monkeypatch.setattr("avatar3d.batch.run._records", made)
    monkeypatch.setenv("AVATAR3D_CACHE", str(tmp_path / "cache"))
    return made


@pytest.fixture
def rows(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    return read_rows([tmp_path / f"{name}.mp4" for name in "abc"], ["size=256"])


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_rows_are_published_once_and_only_changed_ones_again(
    engine, rows, tmp_path, monkeypatch, kind
):
    url = f"memory://{tmp_path.name}/L" if kind == "memory" else (tmp_path / "s/L").as_uri()
    records = make_shared_library(rows, url)
    assert [(r.name, r.status) for r in records] == [(name, "done") for name in "abc"]
    got = fetch(f"{url}/b/b.subject", tmp_path / "got")
    there = SharedLibrary(url).local / "b" / "b.subject" / "subject.json"
    assert (got / "subject.json").read_bytes() == there.read_bytes()
    index = json.loads(read_object(f"{url}/library.json"))["rows"]
    assert [row["name"] for row in index] == ["a", "b", "c"]

    make_shared_library(rows, url)
    monkeypatch.setenv("AVATAR3D_CACHE", str(tmp_path / "another machine"))
    assert make_shared_library(rows, url) == records
    assert engine.ran == ["a", "b", "c"]

    changed = replace(rows[1], overrides=("size=128",))
    again = make_shared_library([rows[0], changed, rows[2]], url)
    assert engine.ran == ["a", "b", "c", "b"]
    assert engine.had_subject[-1]  # fetched, so that only what changed is made again
    assert again[1].overrides == ["size=128"]
    assert "size=128" in fetch(f"{url}/b/b.a3d", tmp_path / "b.a3d").read_text()


def test_what_was_made_before_the_storage_failed_is_only_published(
    engine, rows, tmp_path, monkeypatch
):
    url = (tmp_path / "s").as_uri()
    with monkeypatch.context() as patch:

        def refuse(*_):
            raise UserError("The storage is full; free some.")

        patch.setattr("avatar3d.batch.shared.publish", refuse)
        with pytest.raises(UserError, match="full"):
            make_shared_library(rows[:1], url)
    assert read_object(f"{url}/a/row.json") is None
    assert make_shared_library(rows[:1], url)[0].status == "done"
    assert engine.ran == ["a"]


def test_a_row_that_is_refused_stops_no_other_and_is_tried_again(
    engine, rows, tmp_path, monkeypatch, capsys
):
    url, real, calls = (tmp_path / "s").as_uri(), shared_module.publish, []

    def refuse(local, target, root):
        calls.append(target)
        if "/b/" in target and len([c for c in calls if "/b/" in c]) <= limit:
            raise UserError("The storage is full; free some.")
        return real(local, target, root)

    monkeypatch.setattr(shared_module, "publish", refuse)
    limit = 2  # when it was made, and at the end
    with pytest.raises(UserError, match=r"1 of 3 rows are made but not published \(b\)"):
        make_shared_library(rows, url)
    assert "b is not published yet: The storage is full" in capsys.readouterr().err
    assert engine.ran == ["a", "b", "c"]
    index = json.loads(read_object(f"{url}/library.json"))["rows"]
    assert [row["name"] for row in index] == ["a", "c"]

    calls.clear()
    limit = 1  # there is space again at the end
    assert [record.status for record in make_shared_library(rows, url)] == ["done"] * 3
    assert engine.ran == ["a", "b", "c"]


def test_a_place_that_cannot_be_written_stops_before_any_work(engine, rows, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/L"):
        make_shared_library(rows, (tmp_path / "file" / "L").as_uri())
    with pytest.raises(UserError, match="cannot be named 'objects'"):
        make_shared_library([replace(rows[0], name="objects")], (tmp_path / "s").as_uri())
    assert engine.ran == []


@pytest.mark.parametrize("files", [["../x"], ["b/a.html"], ["a/../../x"], ["/etc/x"]])
def test_an_index_that_names_other_places_is_refused(tmp_path, files):
    shared = SharedLibrary((tmp_path / "s").as_uri())
    row = Record(name="a", video="a.mp4", status="done", files=files).model_dump()
    write_object(f"{shared.url}/library.json", json.dumps({"rows": [row]}).encode())
    with pytest.raises(UserError, match="not the index of a library"):
        shared.records()
    write_object(f"{shared.url}/a/row.json", json.dumps(row).encode())
    assert shared.record("a") is None


def test_the_command_publishes_failed_rows_and_lists_them(run_here, tmp_path: Path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    url = (tmp_path / "store").as_uri()
    result = run_here("batch", tmp_path / "bad.mp4", "-o", url)
    assert result.returncode == 3, result.stderr
    assert f"0 of 1 avatars: {url}/index.html" in result.stdout
    assert "is not a readable video" in (tmp_path / "store" / "index.html").read_text("utf-8")
    assert "is not a readable video" in run_here("batch", url, "--failed").stdout
