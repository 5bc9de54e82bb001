"""What our files say about themselves, and the switch that turns it off."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from avatar3d.io.atomic import atomic_path
from avatar3d.progress import say
from avatar3d.provenance import binding, packet
from avatar3d.provenance.signing import signing_folder

__all__ = [
    "SOURCE_TYPE", "declare", "declared_path", "declared_write", "facts_of", "slot",
    "without_provenance",
]  # fmt: skip

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_LOG = "no-provenance.log"

_off: ContextVar[set[str] | None] = ContextVar("without provenance", default=None)


@contextmanager
def without_provenance() -> Iterator[None]:
    """Write files that do not say what they are; each is told and logged.

    The log is `no-provenance.log` beside the signing key.
    """
    token = _off.set(set())
    try:
        yield
    finally:
        _off.reset(token)


@contextmanager
def declared_path(
    target: str | os.PathLike[str], facts: Mapping[str, Any] | None = None
) -> Iterator[Path]:
    """`atomic_path` for synthetic media: signed before the file appears under its name.

    Formats that C2PA binds to need nothing more; into others the body writes `slot`.

    Args:
        target: the final file; its suffix tells the format.
        facts: what is known of it, see `facts_of`.

    Raises:
        UserError: the file cannot be written, or its format has no place for a statement.
    """
    with atomic_path(target) as temporary:
        yield temporary
        declare(temporary, facts, target)


def declare(
    path: Path,
    facts: Mapping[str, Any] | None = None,
    name: str | os.PathLike[str] | None = None,
) -> None:
    """Sign a file that is not yet under its final `name`, such as those of an `atomic_folder`."""
    logged = _off.get()
    if logged is None:
        if binding.binds(path):
            binding.sign(path, _statement(facts))
        else:
            packet.seal(path)
    elif (final := str(name or path)) not in logged:
        logged.add(final)
        _log(Path(final))


def declared_write(
    target: str | os.PathLike[str], data: bytes | str, facts: Mapping[str, Any] | None = None
) -> None:
    """`atomic_write` for synthetic media; `data` contains `slot(facts)` where C2PA has no place."""
    payload = data.encode() if isinstance(data, str) else data
    with declared_path(target, facts) as temporary, open(temporary, "wb") as handle:
        handle.write(payload)


def slot(facts: Mapping[str, Any] | None = None) -> str:
    """An XMP packet of one ASCII line, without double quotes and without two hyphens in a row.

    `declared_path` signs a file that holds it. Empty when statements are off.
    """
    return packet.packet(_statement(facts)) if _off.get() is None else ""


def facts_of(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a file made of an avatar says, from the avatar's `info`.

    Of the consent, the person's name stays in the avatar file.
    """
    consent = info.get("consent")
    if isinstance(consent, Mapping):
        consent = {name: consent.get(name) for name in ("scope", "date", "sha256")}
    told = {"source_sha256": info.get("source_sha256"), "consent": consent}
    return {name: value for name, value in told.items() if value}


def _statement(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"synthetic": True, "digitalSourceType": SOURCE_TYPE, **(facts or {})}


def _log(target: Path) -> None:
    say(f"{target} is written without the statement that it is synthetic (--no-provenance).")
    try:
        signing_folder().mkdir(parents=True, exist_ok=True)
        with open(signing_folder() / _LOG, "a", encoding="utf-8") as log:
            log.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {target.absolute()}\n")
    except OSError as error:
        say(f"This could not be logged in {signing_folder()}: {error.strerror}.")
