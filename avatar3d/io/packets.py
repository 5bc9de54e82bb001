"""Packets of damaged files, and who watches over their decoding."""

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["expected_pixels", "packets", "watchdog"]


def watchdog() -> None:
    """Called at every packet; a decoding process puts its own here."""


def _unlimited(pixels: int) -> None: ...


expected_pixels: Callable[[int], None] = _unlimited
"""Called with the pixels of a frame before the first is decoded; put here likewise."""


def packets(container: Any, stream: Any) -> Iterator[Any]:
    """Packets of a PyAV stream, up to where the file can no longer be taken apart."""
    import av

    try:
        for packet in container.demux(stream):
            watchdog()
            yield packet
    except (av.error.FFmpegError, IndexError):
        # PyAV has no place for a track that a damaged file announces midway.
        return
