"""The consent of the person shown: who agreed to what, and when."""

import hashlib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from avatar3d.errors import UserError

__all__ = ["Consent", "consent_line", "read_consent"]

_MAX_BYTES = 100_000
_EXAMPLE = "who: NAME, scope: WHAT FOR, date: YYYY-MM-DD"


class Consent(BaseModel):
    """A statement of consent; `sha256` is that of the file it was read from."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    who: str = Field(min_length=1, max_length=200)
    scope: str = Field(min_length=1, max_length=2000)
    date: date
    sha256: str = ""


def read_consent(text: str | None) -> Consent | str | None:
    """The statement in the YAML or JSON file named `text`; any other text is a note as it stands.

    Raises:
        UserError: the file does not say who, scope and date.
    """
    path = Path(text or "")
    try:
        is_file = bool(text) and path.is_file()
    except OSError:  # a long note is no name of a file
        is_file = False
    if not is_file:
        return text
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("it is too long")
        data = path.read_bytes()
        told = yaml.safe_load(data)
        if not isinstance(told, dict):
            raise ValueError("it is not a table")
        return Consent(**{**told, "sha256": hashlib.sha256(data).hexdigest()})
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
    raise UserError(f"{path} is not a statement of consent ({reason}); write {_EXAMPLE}.")


def consent_line(consent: Consent | Mapping[str, Any] | str | None) -> str:
    """One line for people."""
    if isinstance(consent, Consent):
        consent = consent.model_dump(mode="json")
    if isinstance(consent, Mapping):
        who = f"{consent['who']}, " if consent.get("who") else ""
        return f"{who}{consent.get('date')}: {consent.get('scope')}"
    return str(consent) if consent else "none noted"
