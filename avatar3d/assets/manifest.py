"""The list of assets, as typed records."""

import re
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from avatar3d.errors import UserError

__all__ = ["Asset", "Source", "manifest", "parse_manifest"]

_PLAIN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Source(BaseModel):
    """Where an asset comes from; `member` is a path inside the package's archive."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["pypi", "npm", "https", "import"]
    package: str | None = Field(None, pattern=r"^@?[A-Za-z0-9][A-Za-z0-9._/-]*$")
    version: str | None = Field(None, pattern=_PLAIN)
    member: str | None = None
    url: str | None = Field(None, pattern=r"^https://")

    @model_validator(mode="after")
    def _complete(self) -> "Source":
        if self.kind in ("pypi", "npm") and not (self.package and self.version):
            raise ValueError(f"{self.kind} needs package and version")
        if self.kind == "npm" and not self.member:
            raise ValueError("npm needs member")
        if self.kind == "https" and not self.url:
            raise ValueError("https needs url")
        return self


class Asset(BaseModel):
    """One file: its name in the cache, source, hash, size in bytes, licence and purpose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=_PLAIN)
    file: str = Field(pattern=_PLAIN)
    source: Source
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(gt=0, le=1 << 31)
    licence: str
    purpose: str


@lru_cache(maxsize=1)
def manifest() -> dict[str, Asset]:
    """The assets of this release by name."""
    text = resources.files("avatar3d.assets").joinpath("manifest.yaml").read_text("utf-8")
    return parse_manifest(text)


def parse_manifest(text: str) -> dict[str, Asset]:
    """Read a manifest.

    Raises:
        UserError: not YAML, or an entry with a missing, unknown or unsafe value.
    """
    try:
        entries: Any = yaml.safe_load(text)
        return {name: Asset(name=name, **entry) for name, entry in entries.items()}
    except (yaml.YAMLError, ValidationError, AttributeError, TypeError) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise UserError(
            f"The asset manifest is damaged ({reason}); install avatar3d again."
        ) from error
