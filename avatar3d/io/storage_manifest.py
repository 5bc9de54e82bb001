"""What a published file or folder consists of: the small object that makes it visible."""

import json
import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from avatar3d.errors import UserError
from avatar3d.io.storage_remote import Remote

__all__ = [
    "CONDEMNED", "OBJECTS", "SUFFIX", "Manifest", "StoredFile", "StoredObject",
    "UnreadableManifest", "condemned_objects", "object_key", "read_manifest", "safe_name",
]  # fmt: skip

SUFFIX = ".manifest.json"
OBJECTS = "objects"
"""Folder of a root that holds the contents, `objects/sha256/ab/abcd...`; no item has this name."""
CONDEMNED = f"{OBJECTS}/condemned.json"
"""Objects that a later sweep will remove, and when they were listed; they are as good as gone."""

_MAX_FILES = 1_000_000
_MAX_SIZE = 1 << 46  # bytes of one file
_MAX_JSON = 256 << 20  # bytes of a manifest
_UNSAFE = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0, le=_MAX_SIZE)]


class UnreadableManifest(UserError):
    """There is something that is not one of our manifests, or that of a newer version."""


class StoredObject(BaseModel):
    """One object of the storage; its name is its sha256, `size` is in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: Sha256
    size: Size


class StoredFile(BaseModel):
    """One file: `size` bytes of object number `object` of the manifest, from `offset` on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Annotated[str, Field(max_length=1024)]
    size: Size
    sha256: Sha256
    object: Annotated[int, Field(ge=0)]
    offset: Size


class Manifest(BaseModel):
    """What NAME.manifest.json says.

    Attributes:
        kind: a single file, or a folder of `files`.
        up: how many folders above the manifest the root is, which holds the objects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["avatar3d.published"] = "avatar3d.published"
    version: Literal[1] = 1
    kind: Literal["file", "folder"]
    up: Annotated[int, Field(ge=0, le=16)]
    objects: Annotated[list[StoredObject], Field(max_length=_MAX_FILES)]
    files: Annotated[list[StoredFile], Field(max_length=_MAX_FILES)]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        """Every file lies inside its object, and inside the folder that it is fetched to."""
        paths = {file.path for file in self.files}
        if len(paths) != len(self.files):
            raise ValueError("two files have the same path")
        if self.kind == "file" and (len(paths) != 1 or "/" in self.files[0].path):
            raise ValueError("a single file is expected")
        for file in self.files:
            parts = file.path.split("/")
            if not all(map(safe_name, parts)):
                raise ValueError(f"the path {file.path!r} is not allowed")
            if any("/".join(parts[:count]) in paths for count in range(1, len(parts))):
                raise ValueError(f"{file.path!r} is inside another file")
            if file.object >= len(self.objects):
                raise ValueError(f"{file.path!r} has no object")
            if file.offset + file.size > self.objects[file.object].size:
                raise ValueError(f"{file.path!r} is longer than its object")
        return self


def read_manifest(remote: Remote, key: str) -> Manifest | None:
    """The manifest at a key, or None.

    Raises:
        UserError: the storage fails.
        UnreadableManifest: it is not one of ours.
    """
    data = remote.read(key, _MAX_JSON)
    if data is None:
        return None
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"[:200]
        raise UnreadableManifest(
            f"{remote.shown(key)} is not a manifest that this version of avatar3d can read "
            f"({reason}); publish it again."
        ) from None


def condemned_objects(remote: Remote) -> dict[str, float]:
    """What CONDEMNED lists: sha256 and seconds since 1970."""
    data = remote.read(CONDEMNED, _MAX_JSON)
    try:
        values = json.loads(data) if data else {}
        return {str(name): float(when) for name, when in values.items()}
    except (ValueError, AttributeError, TypeError):
        raise UserError(f"{remote.shown(CONDEMNED)} is damaged; remove it.") from None


def safe_name(part: str) -> bool:
    """Whether `part` is the name of something directly inside a folder, on any system."""
    return 0 < len(part) <= 255 and part not in (".", "..") and not _UNSAFE.search(part)


def object_key(sha256: str) -> str:
    """Where an object lies below its root."""
    return f"{OBJECTS}/sha256/{sha256[:2]}/{sha256}"
