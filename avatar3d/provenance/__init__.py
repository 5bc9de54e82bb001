"""Statements that a file is synthetic, signed and bound to its bytes, and their verification."""

from avatar3d.provenance.statement import (
    declare,
    declared_path,
    declared_write,
    facts_of,
    slot,
    without_provenance,
)  # fmt: skip
from avatar3d.provenance.verify import Verdict, verify

__all__ = [
    "Verdict", "declare", "declared_path", "declared_write", "facts_of", "slot", "verify",
    "without_provenance",
]  # fmt: skip
