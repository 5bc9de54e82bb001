"""A place that holds objects, local or far: reads and writes that are tried again, and whole.

Object stores write an object whole or not at all. On a local or network file system the file is
written beside its place and renamed; over other protocols likewise.
"""

import errno
import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from avatar3d.errors import UserError
from avatar3d.io.atomic import atomic_path, atomic_write

__all__ = ["CHUNK", "Entry", "Remote", "is_url", "shown"]

T = TypeVar("T")

CHUNK = 16 << 20
"""Bytes that are read at a time."""

_PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
_PROTOCOLS = {
    "abfs", "az", "file", "gcs", "gs", "hdfs", "http", "https", "local", "memory", "s3", "s3a",
    "sftp", "smb",
}  # fmt: skip
_WHOLE = {"abfs", "az", "gcs", "gs", "memory", "s3", "s3a"}
"""Protocols whose writes appear whole or not at all."""
_PACKAGES = {"s3": "'avatar3d[s3]'", "s3a": "'avatar3d[s3]'", "gs": "gcsfs", "gcs": "gcsfs",
             "abfs": "adlfs", "az": "adlfs", "hdfs": "pyarrow", "sftp": "paramiko",
             "smb": "smbprotocol", "http": "aiohttp", "https": "aiohttp"}  # fmt: skip
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://([^/]*)(/?.*)", re.DOTALL)

# Whatever is thrown by libraries that may not be installed is known by its name.
_PASSING = {
    "ClientConnectionError", "ClientPayloadError", "ConnectTimeoutError", "ConnectionClosedError",
    "ConnectionError", "EndpointConnectionError", "FSTimeoutError", "HTTPClientError",
    "IncompleteReadError", "ReadTimeoutError", "ResponseStreamingError", "TimeoutError",
}  # fmt: skip
_REFUSED = {
    "CredentialRetrievalError", "InvalidConfigError", "NoCredentialsError", "PermissionError",
    "PartialCredentialsError", "ProfileNotFound", "SSOError", "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
}  # fmt: skip
_PASSING_CODES = {
    "500", "502", "503", "504", "429", "InternalError", "RequestTimeout", "ServiceUnavailable",
    "SlowDown", "Throttling", "ThrottlingException",
}  # fmt: skip
_PASSING_ERRNO = {errno.EAGAIN, errno.EBUSY, errno.ECONNRESET, errno.ESTALE, errno.ETIMEDOUT}


class Entry(NamedTuple):
    """Something directly inside a folder; `modified` is in seconds since 1970 where known."""

    name: str
    is_folder: bool
    size: int
    modified: float | None


class Remote:
    """Objects below a URL, each known by its `key`: a path relative to that URL, or "".

    Raises:
        UserError: from every method: the storage cannot be reached, refuses, does not exist, or
            needs a package. No message, and nothing chained to it, holds a credential.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.protocol = _checked(self.url)
        self.name = shown(self.url)
        self._fs, self._path = self._opened()
        self._local = self.protocol in ("file", "local")
        if not self._path.strip("/"):
            raise UserError(f"{self.name} names no place; give at least a bucket or a folder.")

    def read(self, key: str, limit: int) -> bytes | None:
        """An object's content, or None where there is none.

        Raises:
            UserError: as always, or it has more than `limit` bytes.
        """
        data = self._attempt(key, lambda: self._fs.cat_file(self._at(key), start=0, end=limit + 1))
        if data is not None and len(data) > limit:
            raise self._too_large(key, limit)
        return data

    def chunks(self, key: str, size: int) -> Iterator[bytes]:
        """The first `size` bytes of an object, in pieces.

        Raises:
            UserError: as always, or it is missing or shorter.
        """
        for start in range(0, size, CHUNK):
            end = min(start + CHUNK, size)
            data = self._range(key, start, end)
            if data is None or len(data) != end - start:
                raise UserError(
                    f"{self.shown(key)} is missing or cut short; publish again what it is part of."
                )
            yield data

    def stream(self, key: str, limit: int) -> Iterator[bytes] | None:
        """A whole object in pieces, or None where there is none.

        Raises:
            UserError: as always, or it has more than `limit` bytes.
        """
        if self.protocol not in ("http", "https"):
            size = self.size(key)
            if size is not None and size > limit:
                raise self._too_large(key, limit)
            return None if size is None else self.chunks(key, size)
        handle = self._attempt(key, lambda: self._fs.open(self._at(key), "rb", block_size=0))
        return None if handle is None else self._streamed(key, handle, limit)

    def size(self, key: str) -> int | None:
        """Bytes of an object, or None where there is none."""
        info = self._attempt(key, lambda: self._fs.info(self._at(key)))
        if info is None or info.get("type") == "directory":
            return None
        return int(info["size"]) if info.get("size") is not None else None

    def stamp(self, key: str) -> str | None:
        """What changes with the object; "" where the storage does not tell, None without it."""
        info = self._attempt(key, lambda: self._fs.info(self._at(key)))
        if info is None or info.get("type") == "directory":
            return None
        facts = [info.get("ETag"), _modified(info)]
        return repr([*facts, info.get("size")]) if any(facts) else ""

    def write(self, key: str, data: bytes) -> None:
        """Make `data` the object's content, in one step."""
        if self._local:
            atomic_write(self._at(key), data)
        else:
            self._place(key, lambda path: self._fs.pipe_file(path, data))

    def write_file(self, key: str, source: Path) -> None:
        """Make a local file the object's content, in one step."""
        if self._local:
            import shutil

            with atomic_path(self._at(key)) as temporary:
                shutil.copyfile(source, temporary)
        else:
            self._place(key, lambda path: self._fs.put_file(str(source), path))

    def delete(self, key: str) -> bool:
        """Remove an object; False where there was none."""
        if self.size(key) is None:  # object stores do not tell
            return False
        return self._attempt(key, lambda: self._fs.rm_file(self._at(key)) or True) is not None

    def entries(self, key: str = "") -> list[Entry]:
        """What is directly inside a folder; nothing where there is no such folder."""
        path = self._at(key)
        listed = self._attempt(key, lambda: self._fs.ls(path, detail=True)) or []
        found = []
        for info in listed:
            where = info["name"].rstrip("/")
            if where.strip("/") != path.strip("/"):
                folder = info["type"] == "directory"
                size = 0 if folder else int(info["size"] or 0)
                found.append(Entry(where.rpartition("/")[2], folder, size, _modified(info)))
        return sorted(found)

    def shown(self, key: str = "") -> str:
        """The object's URL as people may see it."""
        return f"{self.name}/{key}" if key else self.name

    def _at(self, key: str) -> str:
        return f"{self._path}/{key}" if key else self._path

    def _range(self, key: str, start: int, end: int) -> bytes | None:
        return self._attempt(key, lambda: self._fs.cat_file(self._at(key), start=start, end=end))

    def _opened(self) -> tuple[Any, str]:
        try:
            return _file_system(self.protocol), _stripped(self.protocol, self.url)
        except ImportError:
            package = _PACKAGES.get(self.protocol, f"fsspec's package for {self.protocol}")
            raise UserError(
                f"{self.name} cannot be opened: {self.protocol}:// needs another package; run "
                f"`pip install {package}`."
            ) from None
        except Exception as error:
            raise self._explained("", error) from None

    def _place(self, key: str, write: Callable[[str], object]) -> None:
        path = self._at(key)

        def whole() -> bool:
            if self.protocol in _WHOLE:
                write(path)
                return True
            folder, _, name = path.rpartition("/")
            temporary = f"{folder}/.partial-{random.getrandbits(32):08x}-{name}"
            self._fs.makedirs(folder, exist_ok=True)
            write(temporary)
            self._fs.mv(temporary, path)
            return True

        if self._attempt(key, whole) is None:
            raise UserError(f"{self.shown(key)} cannot be written; check the place it is in.")

    def _attempt(self, key: str, call: Callable[[], T]) -> T | None:
        """`call`, tried again after faults that pass; None where there is no such object."""
        for pause in (*_PAUSES, None):
            try:
                return call()
            except (FileNotFoundError, NotADirectoryError) as error:
                if _code(error) == "NoSuchBucket" or "bucket does not exist" in str(error):
                    raise self._no_bucket() from None
                return None
            except UserError:
                raise
            except Exception as error:
                if pause is None or not _passes(error):
                    raise self._explained(key, error) from None
                time.sleep(pause * random.uniform(0.75, 1.25))
        raise AssertionError

    def _streamed(self, key: str, handle: Any, limit: int) -> Iterator[bytes]:
        """Web servers need not know sizes or ranges, so that a page is read in one go."""
        taken = 0
        with handle:
            while True:
                try:
                    data = handle.read(CHUNK)
                except Exception as error:
                    raise self._explained(key, error) from None
                if not data:
                    return
                taken += len(data)
                if taken > limit:
                    raise self._too_large(key, limit)
                yield data

    def _too_large(self, key: str, limit: int) -> UserError:
        return UserError(
            f"{self.shown(key)} is larger than it may be ({limit / 1e6:.0f} MB); check the URL."
        )

    def _no_bucket(self) -> UserError:
        bucket = self._path.strip("/").partition("/")[0]
        return UserError(f"There is no bucket {bucket!r} for {self.name}; create it or correct it.")

    def _explained(self, key: str, error: Exception) -> UserError:
        """A sentence without the words of the library, which may hold what must stay secret."""
        what = _code(error) or type(error).__name__
        where = self.shown(key)
        if _names(error) & _REFUSED or _status(error) in (401, 403):
            return UserError(
                f"{where} is refused ({what}); check your credentials for it (for S3 AWS_PROFILE "
                "or AWS_ACCESS_KEY_ID) and what they may do there."
            )
        if _passes(error):
            return UserError(
                f"{where} cannot be reached ({what}, {len(_PAUSES) + 1} attempts); check the "
                "network (for S3 that is not Amazon's, AWS_ENDPOINT_URL), then run the same "
                "command again."
            )
        if isinstance(error, NotImplementedError):
            return UserError(f"{where} can only be read; choose another place to write to.")
        if self._local and isinstance(error, OSError) and error.strerror:
            what = error.strerror
        return UserError(
            f"{where} cannot be used ({what}); check the URL and the storage, then run "
            "the same command again."
        )


def is_url(text: str) -> bool:
    """Whether `text` is a URL such as s3://bucket/folder rather than a local path or a setting."""
    return _URL.fullmatch(text) is not None


def shown(url: str) -> str:
    """`url` without what may be secret: the user and password, and the query of a signed link."""
    found = _URL.fullmatch(url)
    if found is None:
        return url
    protocol, host, path = found.groups()
    bare = re.split(r"[?#]", path, maxsplit=1)[0] if protocol in ("http", "https") else path
    return f"{protocol}://{host.rpartition('@')[2]}{bare}"


def _checked(url: str) -> str:
    """The protocol of a URL that may be opened."""
    found = _URL.fullmatch(url)
    if found is None:
        raise UserError(f"{url!r} is not a URL; write it like s3://bucket/folder.")
    protocol, host, path = found.groups()
    if protocol not in _PROTOCOLS:
        known = ", ".join(sorted(_PROTOCOLS - {"local", "memory", "s3a"}))
        raise UserError(f"{shown(url)} has an unknown protocol; use one of {known}.")
    if ":" in host.partition("@")[0] and "@" in host:
        raise UserError(
            f"{shown(url)} was given with a password in it; keep it out of the URL (for S3 in "
            "AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)."
        )
    parts = re.split(r"[?#]", path, maxsplit=1)[0].split("/")
    if ".." in parts or "." in parts or "::" in url or any(ord(char) < 32 for char in url):
        raise UserError(f"{shown(url)} is not a plain URL; write it without .., :: and the like.")
    return protocol


@lru_cache(maxsize=16)
def _file_system(protocol: str) -> Any:
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in ("s3", "s3a"):
        # Attempts are counted here, once, and not by three layers that multiply.
        options["config_kwargs"] = {
            "connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 1},
        }  # fmt: skip
    return fsspec.filesystem(protocol, **options)


def _stripped(protocol: str, url: str) -> str:
    path = _file_system(protocol)._strip_protocol(url)
    return str(path)


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _code(error: BaseException) -> str:
    """The storage's own word for what is wrong, such as NoSuchBucket."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))[:40]
    status = _status(error)
    return f"HTTP {status}" if status else ""


def _status(error: BaseException) -> int:
    status = getattr(error, "status", 0)
    return status if isinstance(status, int) else 0


def _passes(error: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    if _names(error) & _REFUSED:
        return False
    return (
        bool(_names(error) & _PASSING)
        or _code(error) in _PASSING_CODES
        or _status(error) >= 500
        or _status(error) == 429
        or (isinstance(error, OSError) and error.errno in _PASSING_ERRNO)
    )


def _modified(info: dict[str, Any]) -> float | None:
    for name in ("LastModified", "last_modified", "updated", "mtime", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None
