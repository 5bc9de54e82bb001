"""Progress of long work: a bar with the time left on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

__all__ = ["say", "track"]

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 10.0


def say(message: str) -> None:
    """One line for the person, on the error stream so that output can be piped."""
    print(message, file=sys.stderr, flush=True)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` while showing how far the work is and how long it will take.

    Args:
        items: what to work through.
        description: what is being done, e.g. "Tracking the face".
        total: number of items where `len(items)` does not tell.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from _bar(items, description, total)
    else:
        yield from _lines(items, description, total)


def _bar(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(items, total=total, description=description)


def _lines(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    start = last = time.monotonic()
    count = 0
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            left = f", {(now - start) / count * (total - count):.0f} s left" if total else ""
            say(f"{description}: {count}{f' of {total}' if total else ''}{left}")
    say(f"{description}: {count} done in {time.monotonic() - start:.1f} s")
