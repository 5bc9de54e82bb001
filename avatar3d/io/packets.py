"""Packets of damaged files."""

from collections.abc import Iterator
from typing import Any

__all__ = ["packets"]


def packets(container: Any, stream: Any) -> Iterator[Any]:
    """Packets of a PyAV stream, up to where the file can no longer be taken apart."""
    import av

    try:
        yield from container.demux(stream)
    except (av.error.FFmpegError, IndexError):
        # PyAV has no place for a track that a damaged file announces midway.
        return
