"""Read what a file says about itself and whether that still holds."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from avatar3d.errors import UserError
from avatar3d.provenance import binding, packet

__all__ = ["Verdict", "verify"]


@dataclass(frozen=True)
class Verdict:
    """Whether a file carries a statement that it is synthetic, and whether it fits the file.

    Attributes:
        state: "valid"; "altered": the file was changed after it was signed; "none": no statement,
            which proves nothing, because a statement can be removed.
        how: "C2PA manifest" or "XMP packet".
        reason: what is wrong with an altered file.
        signer: organisation in the signer's certificate. Nobody vouches for it: who alters a file
            can sign it anew with another key.
        statement: what is said: digitalSourceType, consent, source_sha256.
    """

    state: Literal["valid", "altered", "none"]
    how: str = ""
    reason: str = ""
    signer: str = ""
    statement: dict[str, Any] = field(default_factory=dict)


def verify(path: str | os.PathLike[str]) -> Verdict:
    """Check the statement of a file that any writer of avatar3d, or other C2PA software, made.

    Raises:
        UserError: the file cannot be read.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            kind = binding.kind_of(file.read(16))
        if kind is not None and (found := binding.read(path, kind)) is not None:
            return _verdict("C2PA manifest", *found)
        if (found := packet.read(path)) is not None:
            return _verdict("XMP packet", *found)
    except OSError as error:
        raise UserError(
            f"Cannot read {path}: {error.strerror or error}; check the name and its permissions."
        ) from error
    return Verdict("none")


def _verdict(how: str, state: str, signer: str, statement: dict[str, Any]) -> Verdict:
    if state == "valid":
        return Verdict("valid", how, "", signer, statement)
    return Verdict("altered", how, state, signer, statement)
