"""Publishing and fetching: whole, verified, stored once, and never half visible."""

import hashlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.io import storage_remote
from avatar3d.io.storage import fetch, local_copy, publish, published, read_object, remove
from avatar3d.io.storage_manifest import CONDEMNED, Manifest
from avatar3d.io.storage_remote import CHUNK, Remote, shown
from avatar3d.io.storage_sweep import DAY, list_published, sweep


def make(folder: Path, seed: int = 0, frames: int = 5) -> Path:
    """Laid out like a subject: some files at the top, many small ones in folders."""
    rng = np.random.default_rng(seed)
    for name in ("subject.json", "frames/{}.jpg", "mattes/{}.png", ".capture/state.json"):
        for number in range(frames if "{}" in name else 1):
            path = folder / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rng.bytes(int(rng.integers(0, 3000))))
    (folder / "audio.wav").write_bytes(b"")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def objects(root: str) -> set[str]:
    remote = Remote(root)
    shards = remote.entries("objects/sha256")
    return {e.name for s in shards for e in remote.entries(f"objects/sha256/{s.name}")}


@pytest.fixture
def writes(monkeypatch):
    """Keys that are written, in order."""
    keys: list[str] = []
    for name in ("write", "write_file"):
        original = getattr(Remote, name)

        def noted(self, key, data, original=original):
            keys.append(key)
            original(self, key, data)

        monkeypatch.setattr(Remote, name, noted)
    return keys


def test_what_is_fetched_is_what_was_published(root, tmp_path, writes):
    source = make(tmp_path / "anna.subject")
    (source / ".partial-0123-frame.jpg").write_bytes(b"half")
    big = np.random.default_rng(9).bytes(CHUNK + 5)  # longer than what is held in the memory
    (source / "big.bin").write_bytes(big)
    publish(source, f"{root}/people/anna.subject", root)
    assert writes[-1] == "people/anna.subject.manifest.json"
    assert len(writes) < 1 + len(contents(source)), "small files share objects"
    fetched = fetch(f"{root}/people/anna.subject", tmp_path / "other" / "anna.subject")
    (source / ".partial-0123-frame.jpg").unlink()
    assert contents(fetched) == contents(source)
    file = fetch(f"{root}/people/anna.subject", tmp_path / "second")
    assert contents(file) == contents(source)

    single = tmp_path / "anna.a3d"
    single.write_bytes(big)
    count = len(writes)
    publish(single, f"{root}/people/anna.a3d", root)
    assert writes[count:] == ["people/anna.a3d.manifest.json"], "its content was there already"
    assert fetch(f"{root}/people/anna.a3d", tmp_path / "b.a3d").read_bytes() == big
    assert [name for name, _ in list_published(root)] == ["people/anna.a3d", "people/anna.subject"]


def test_nothing_is_uploaded_twice(root, tmp_path, writes):
    source = make(tmp_path / "a")
    publish(source, f"{root}/a", root)
    before = list(writes)
    assert len(before) == len(set(before))
    publish(source, f"{root}/a", root)
    assert writes == before, "not even the manifest"
    publish(source, f"{root}/jobs/b", root)
    assert writes[len(before) :] == ["jobs/b.manifest.json"]
    (source / "mattes" / "3.png").write_bytes(b"changed")
    publish(source, f"{root}/a", root)
    assert len(writes) == len(before) + 3, "one object and one manifest more"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("root", ["memory", "file"], indirect=True)
def test_an_upload_that_ends_at_any_object_leaves_the_old_state(root, tmp_path, monkeypatch):
    url = f"{root}/anna.subject"
    old, new = make(tmp_path / "old", 1), make(tmp_path / "new", 2)
    original = Remote.write
    calls, last = [0], [0]

    def dying(self, key, data):
        calls[0] += 1
        if calls[0] > last[0]:
            raise Killed
        original(self, key, data)

    monkeypatch.setattr(Remote, "write", dying)
    for name, source in (("nothing", new), ("old", old)):
        if name == "old":
            last[0] = 10**6
            publish(old, url)
        for last[0] in range(20):
            calls[0] = 0
            try:
                publish(source if name == "nothing" else new, url, rewrite=True)
            except Killed:
                pass
            else:
                break
            if name == "nothing":
                assert published(url) is None
                with pytest.raises(UserError, match="Nothing is published"):
                    fetch(url, tmp_path / "x")
                assert not (tmp_path / "x").exists()
            else:
                assert contents(fetch(url, tmp_path / f"old{last[0]}")) == contents(old)
        assert 5 <= last[0] < 20, "it was interrupted at every object"
        assert contents(fetch(url, tmp_path / f"after {name}")) == contents(new)
        remove(url)


KILLED = """
import os, signal, sys
from avatar3d.io.storage_remote import Remote
from avatar3d.io.storage import publish

source, url, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
for name in ("write", "write_file"):
    def write(self, key, data, original=getattr(Remote, name), calls=[]):
        calls.append(key)
        if len(calls) > last:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, key, data)
    setattr(Remote, name, write)
publish(source, url)
"""


def test_processes_killed_at_any_object_leave_nothing_visible_on_s3(bucket, tmp_path):
    source = make(tmp_path / "source")
    objects = len(publish(source, "memory://count/source").objects)
    running = [
        subprocess.Popen([sys.executable, "-c", KILLED, source, f"{bucket}/{last}/anna", str(last)])
        for last in range(objects + 2)
    ]
    codes = [process.wait(60) for process in running]
    assert codes == [-9] * (objects + 1) + [0], "killed at each object, and at the manifest"
    for last in range(objects + 1):
        assert published(f"{bucket}/{last}/anna") is None
        assert list(list_published(f"{bucket}/{last}")) == []
    assert contents(fetch(f"{bucket}/{objects + 1}/anna", tmp_path / "x")) == contents(source)


def test_of_several_publishers_one_wins_whole(root, tmp_path):
    sources = [make(tmp_path / str(seed), seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda source: publish(source, f"{root}/same"), sources))
    assert contents(fetch(f"{root}/same", tmp_path / "got")) in map(contents, sources)


def test_damage_is_found_and_mended(root, tmp_path):
    source = make(tmp_path / "a")
    manifest = publish(source, f"{root}/a")
    damaged = max(manifest.objects, key=lambda stored: stored.size)
    remote = Remote(root)
    key = f"objects/sha256/{damaged.sha256[:2]}/{damaged.sha256}"
    data = bytearray(remote.read(key, 1 << 20))
    data[len(data) // 2] ^= 1
    remote.write(key, bytes(data))
    with pytest.raises(UserError, match="came damaged"):
        fetch(f"{root}/a", tmp_path / "x")
    remote.write(key, bytes(data[:-1]))
    with pytest.raises(UserError, match="missing or cut short"):
        fetch(f"{root}/a", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    publish(source, f"{root}/a", rewrite=True)
    assert contents(fetch(f"{root}/a", tmp_path / "x")) == contents(source)


EVIL = [
    "../x", "/etc/x", "a/../../x", "a//b", "", ".", "a\\..\\x", "C:x", "a\0b", "a/./b",
]  # fmt: skip


@pytest.mark.parametrize("path", EVIL)
def test_a_manifest_that_leaves_its_folder_is_refused(path, tmp_path):
    url = "memory://evil/a"
    manifest = publish(make(tmp_path / "a"), url)
    content = manifest.model_dump()
    content["files"][0]["path"] = path
    Remote("memory://evil").write("a.manifest.json", json.dumps(content).encode())
    with pytest.raises(UserError, match="not a manifest that this version"):
        fetch(url, tmp_path / "x")


@pytest.mark.parametrize(
    "change",
    [
        {"up": 17},
        {"up": -1},
        {"version": 2},
        {"more": 1},
        {"kind": "file"},
        {"objects": []},
        {"objects": [{"sha256": "../" * 21 + "x", "size": 1}]},
    ],
)
def test_other_forged_manifests_are_refused(change, tmp_path):
    content = publish(make(tmp_path / "a"), "memory://evil/b").model_dump() | change
    Remote("memory://evil").write("b.manifest.json", json.dumps(content).encode())
    with pytest.raises(UserError, match="not a manifest that this version"):
        published("memory://evil/b")


def test_a_manifest_cannot_point_above_its_storage(tmp_path):
    content = publish(make(tmp_path / "a"), "memory://evil/c").model_dump() | {"up": 9}
    Remote("memory://evil").write("c.manifest.json", json.dumps(content).encode())
    with pytest.raises(UserError, match="outside its storage"):
        fetch("memory://evil/c", tmp_path / "x")


def test_limits_and_places(tmp_path):
    source, url = make(tmp_path / "a"), "memory://limits/a"
    publish(source, url)
    with pytest.raises(UserError, match="more than the 0 MB allowed"):
        fetch(url, tmp_path / "x", max_bytes=100)
    Remote("memory://limits").write("plain.a3d", b"x" * 1000)
    with pytest.raises(UserError, match="larger than it may be"):
        fetch("memory://limits/plain.a3d", tmp_path / "x", max_bytes=100)
    assert fetch("memory://limits/plain.a3d", tmp_path / "p.a3d").read_bytes() == b"x" * 1000
    with pytest.raises(UserError, match="exists already"):
        fetch(url, source)
    with pytest.raises(UserError, match="is not inside"):
        publish(source, url, "memory://elsewhere")
    os.symlink(tmp_path, source / "link")
    with pytest.raises(UserError, match="is a link"):
        publish(source, url)
    with pytest.raises(UserError, match="no file or folder"):
        publish(tmp_path / "none", url)


def test_a_copy_is_fetched_once_and_again_when_it_changes(root, tmp_path, capsys):
    source, url = make(tmp_path / "a", 1), f"{root}/anna.subject"
    publish(source, url)
    with ThreadPoolExecutor(4) as pool:
        copies = set(pool.map(local_copy, [url] * 4))
    assert len(copies) == 1
    assert capsys.readouterr().err.count("Fetching") == 1
    assert contents(copies.pop()) == contents(source)
    publish(make(tmp_path / "a", 2), url)
    again = local_copy(url)
    assert again.name == "anna.subject"
    assert contents(again) == contents(source)
    assert local_copy("some/local.a3d") == Path("some/local.a3d")


def test_a_sweep_takes_what_nobody_needs_and_nothing_else(root, tmp_path, monkeypatch):
    one, two = make(tmp_path / "one", 1), make(tmp_path / "two", 2)
    publish(one, f"{root}/one")
    kept = objects(root)
    publish(two, f"{root}/deep/two", root)
    assert sweep(root) == (0, 0, 0)
    assert remove(f"{root}/deep/two")
    assert not remove(f"{root}/deep/two")
    assert sweep(root)[0] == 0, "young objects may belong to somebody who is publishing"
    everything, start = objects(root), time.time()
    monkeypatch.setattr(time, "time", lambda: start + 2 * DAY)
    removed, _, condemned = sweep(root)
    assert (removed, condemned) == (0, len(everything - kept))
    assert objects(root) == everything, "first they are only condemned"

    # Somebody publishes the same again: condemned objects are uploaded anew and then in use.
    publish(two, f"{root}/two")
    monkeypatch.setattr(time, "time", lambda: start + 4 * DAY)
    assert sweep(root)[0] == 0
    assert objects(root) == everything
    assert json.loads(read_object(f"{root}/{CONDEMNED}")) == {}

    remove(f"{root}/two")
    sweep(root)
    monkeypatch.setattr(time, "time", lambda: start + 6 * DAY)
    assert sweep(root)[0] == len(everything - kept)
    assert objects(root) == kept
    assert contents(fetch(f"{root}/one", tmp_path / "x")) == contents(one)
    remove(f"{root}/one")
    assert sweep(root, grace=0)[0] == len(kept)
    assert objects(root) == set()


def test_a_sweep_that_cannot_read_a_manifest_removes_nothing(tmp_path):
    root = "memory://sweeping"
    publish(make(tmp_path / "a"), f"{root}/a")
    before = objects(root)
    Remote(root).write("b.manifest.json", b"{}")
    with pytest.raises(UserError, match="not a manifest"):
        sweep(root, grace=0)
    assert objects(root) == before


def test_faults_that_pass_are_tried_again(tmp_path, monkeypatch):
    import fsspec

    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    memory = fsspec.filesystem("memory")
    original = type(memory).pipe_file
    faults = iter([ConnectionResetError(), TimeoutError(), OSError(16, "SlowDown"), None] * 50)

    def flaky(self, path, value, **options):
        if (fault := next(faults)) is not None:
            raise fault
        original(self, path, value, **options)

    monkeypatch.setattr(type(memory), "pipe_file", flaky)
    source = make(tmp_path / "a")
    publish(source, "memory://flaky/a")
    assert contents(fetch("memory://flaky/a", tmp_path / "x")) == contents(source)
    assert all(0.3 < seconds < 6 for seconds in waited)
    assert waited[2] > waited[0]


def refused(call, *arguments) -> str:
    with pytest.raises(UserError) as error:
        call(*arguments)
    text = "".join(map(str, (error.value, error.value.__cause__)))
    assert "\n" not in text
    assert "secret" not in text
    assert "Traceback" not in text
    return str(error.value)


def test_bad_storage_is_one_sentence(s3_server, bucket, tmp_path, monkeypatch):
    source = make(tmp_path / "a")
    assert "There is no bucket 'nobucket'" in refused(publish, source, "s3://nobucket/lib/a")
    assert "There is no bucket 'nobucket'" in refused(fetch, "s3://nobucket/a", tmp_path / "x")
    assert "Nothing is published" in refused(fetch, f"{bucket}/a", tmp_path / "x")
    assert "unknown protocol" in refused(publish, source, "gopher://x/a")
    assert "keep it out of the URL" in refused(publish, source, "s3://me:secret@bucket/a")
    assert "pip install gcsfs" in refused(publish, source, "gs://bucket/a")
    assert "plain URL" in refused(publish, source, "s3://bucket/../a")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    storage_remote._file_system.cache_clear()
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3")
    assert "pip install 'avatar3d[s3]'" in refused(publish, source, f"{bucket}/a")
    assert shown("https://u:p@host/a.a3d?X-Amz-Signature=secret") == "https://host/a.a3d"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("EndpointConnectionError", "cannot be reached"),
        ("NoCredentialsError", "check your credentials"),
        ("AccessDenied", "check your credentials"),
        ("InvalidRequest", "cannot be used"),
    ],
)
def test_faults_of_s3_are_told_apart(fault, said, bucket, tmp_path, monkeypatch):
    import botocore.exceptions
    import s3fs

    kind = getattr(botocore.exceptions, fault, None)
    if kind is not None:
        error = kind(endpoint_url="https://secret")
    else:
        content = {"Error": {"Code": fault, "Message": "secret"}}
        error = s3fs.errors.translate_boto_error(
            botocore.exceptions.ClientError(content, "PutObject")
        )
    monkeypatch.setattr(time, "sleep", lambda _: None)

    def failing(*_, **__):
        raise error

    monkeypatch.setattr(storage_remote._file_system("s3"), "cat_file", failing)
    assert said in refused(published, f"{bucket}/a")


def test_manifests_are_stable(tmp_path):
    """The same content gives the same bytes, whoever publishes it, so that nothing is rewritten."""
    first = publish(make(tmp_path / "a"), "memory://stable/1/x")
    second = publish(make(tmp_path / "b"), "memory://stable/2/x")
    assert first == second
    assert Manifest.model_validate_json(first.model_dump_json()) == first
